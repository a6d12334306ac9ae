"""What a finding reads: scores, counts, gaps, agreement of matrices, and changes along a factor."""

import re

import pytest

from tests.analysis.fake_claims import AGREES, BETTER, WORSE, claim, finding, only, result_of
from tests.analysis.fake_probes import make_probes
from tests.analysis.fake_runs import (
    TOKENS_PER_WORD,
    diverge,
    edit_json,
    split_scores,
    values,
    write,
)
from tests.analysis.fake_studies import make_study
from tests.analysis.fake_translations import make_translation_study
from tyro_cli.analysis.claim_tables import (
    measure_in_words,
    outcome_in_words,
)
from tyro_cli.analysis.claims import claim_results
from tyro_cli.analysis.probes import Agreements, ProbeRecord
from tyro_cli.analysis.statistics import paired_t_test
from tyro_cli.analysis.studies import load_study_records
from tyro_cli.errors import RunFolderError


def test_a_change_along_a_factor_is_taken_seed_by_seed(tmp_path):
    change = finding("higher", at={"vocabulary": 1024}, minus={"vocabulary": 512})
    result = result_of(tmp_path, {512: BETTER, 1024: WORSE}, change)
    one = only(result.findings)
    assert one.where == "vocabulary 512 to 1024"
    assert measure_in_words(one) == "change of test nats per word, tied - untied"
    assert one.differences == pytest.approx(
        [there - here for here, there in zip(BETTER, WORSE, strict=True)]
    )
    assert result.word == "supported"


def retokenize(tokenizer):
    """Return an edit after which a cell's tokens are those of another tokenizer."""

    def edit(record):
        for of_split in record["signatures"].values():
            for metric, line in of_split.items():
                of_split[metric] = re.sub(r"tok:[^|]+", f"tok:{tokenizer}", line)

    return edit


@pytest.mark.parametrize(
    ("measure", "tokenizers", "outcome"),
    [
        ("nats_per_word", ("bpe-512-aaaaaa", "bpe-1024-bbbbbb"), "holds"),
        ("nats_per_token", ("bpe-512-aaaaaa", "bpe-512-aaaaaa"), "holds"),
        ("nats_per_token", ("word-64-aaaaaa", "word-64-bbbbbb"), "holds"),  # a token is a word
        ("nats_per_token", ("word-64-aaaaaa", "word-128-bbbbbb"), "withheld"),
        ("nats_per_token", ("bpe-512-aaaaaa", "bpe-1024-bbbbbb"), "withheld"),
        ("last_gap_nats", ("bpe-512-aaaaaa", "bpe-1024-bbbbbb"), "withheld"),
    ],
)
def test_a_change_is_withheld_where_a_token_is_another_one(tmp_path, measure, tokenizers, outcome):
    change = finding("higher", measure, at={"vocabulary": 1024}, minus={"vocabulary": 512})
    edits = dict(zip([(512,), (1024,)], map(retokenize, tokenizers), strict=True))
    points = {512: BETTER, 1024: WORSE}
    one = only(result_of(tmp_path, points, change, edits=edits).findings)
    assert one.outcome == outcome
    said = f"{measure} has another unit at each level: tok:"
    assert one.reason.startswith(said) == (outcome == "withheld")


def test_bleu_of_two_signatures_decides_nothing(tmp_path):
    folder = make_translation_study(
        tmp_path, claim=claim(finding("higher", "bleu", at={"disjoint": 1}, minus={"disjoint": 0}))
    )

    def outcome():
        return only(only(claim_results([load_study_records(folder)])).findings).outcome

    def search_narrowly(record):
        record["quality"]["test"]["signatures"]["bleu"] = "nrefs:1|case:mixed|tok:13a|beam:1"

    assert outcome() != "withheld"
    for path in (tmp_path / "tiny-00000001").rglob("untied/*/result.json"):
        edit_json(path, search_narrowly)
    with pytest.raises(RunFolderError, match="test bleu"):
        outcome()
    for path in (tmp_path / "tiny-00000001").rglob("tied/*/result.json"):
        edit_json(path, search_narrowly)
    assert outcome() == "withheld"


def test_what_is_counted_needs_no_interval_and_is_in_no_family(tmp_path):
    counted = finding("lower", "parameters")
    result = result_of(tmp_path, {512: BETTER}, counted, finding())
    first, second = result.findings
    assert first.outcome == "holds" and first.interval() is None and first.p_holm is None
    assert set(first.differences) == {-976.0}  # V 61, d 16
    assert second.p_holm == pytest.approx(paired_t_test(BETTER))


@pytest.mark.parametrize(
    ("measure", "expected"), [("parameter_share", None), ("memory_share", -0.25)]
)
def test_a_share_is_of_the_baseline(tmp_path, measure, expected):
    folder = make_study(
        tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(finding("lower", measure))}
    )

    def edit(record):
        for arm, memory in (("untied", 4000), ("tied", 3000)):
            record["arms"][arm]["ledger"]["training_memory_bytes"] = memory

    edit_json(tmp_path / "tiny-00000000" / "manifest.json", edit)
    study = load_study_records(folder)
    if expected is None:
        expected = -976 / study.points[0].run.manifest.arms["untied"].ledger.total  # V 61, d 16
    one = only(only(claim_results([study])).findings)
    assert one.differences == pytest.approx([expected] * 3)


@pytest.mark.parametrize("measure", ["parameters", "parameter_share", "memory_share"])
@pytest.mark.parametrize("missing", [[("tied", 1)], list(values(BETTER))])
def test_what_is_counted_is_not_run_before_its_cells_are_trained(tmp_path, measure, missing):
    trained = {key: one for key, one in values(BETTER).items() if key not in missing}
    folder = make_study(
        tmp_path, {(512,): trained}, changes={"claim": claim(finding("lower", measure))}
    )
    result = only(claim_results([load_study_records(folder)]))
    assert result.word == "not run"
    assert only(result.findings).reason == "its cells are not all trained"


def score_all_apart(record):
    """Let valid and test, the best step and the last, differ in what they say of the tie."""
    tied = record["arm"] == "tied"
    for checkpoint, factor in (("best", 1.0), ("last", 2.0)):
        valid = split_scores("valid", factor * (3.0 if tied else 3.5))
        gap = factor * (0.5 if tied else 0.75)
        record["evaluations"][checkpoint].update(valid=valid, generalisation_gap_nats=gap)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("valid_nats_per_token", -0.5 / TOKENS_PER_WORD),
        ("gap_nats", -0.25),
        ("last_gap_nats", -0.5),
    ],
)
def test_other_measures_are_read_from_the_cells(tmp_path, measure, expected):
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER)},
        changes={"claim": claim(finding("lower", measure))},
        edits={(512,): score_all_apart},
    )
    one = only(only(claim_results([load_study_records(folder)])).findings)
    assert one.differences == pytest.approx([expected] * 3)


def test_bleu_is_that_of_test(tmp_path):
    folder = make_translation_study(
        tmp_path, claim=claim(finding("lower", "bleu", arm="tied", at={"disjoint": 1}))
    )

    def edit(record):
        record["quality"]["test"]["bleu"] = 32.0 if record["arm"] == "untied" else 30.0

    for path in (tmp_path / "tiny-00000001").rglob("result.json"):
        edit_json(path, edit)
    one = only(only(claim_results([load_study_records(folder)])).findings)
    assert one.differences == pytest.approx([-2.0] * 3)
    assert outcome_in_words(one) == "holds"


def agreement_results(tmp_path, record):
    """Return the claim of a study whose one run has this record of probes, or none."""
    folder = make_study(tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(*AGREES)})
    if record is not None:
        write(tmp_path / "tiny-00000000" / "probes.json", record)
    return only(claim_results([load_study_records(folder)]))


@pytest.mark.parametrize("num_seeds", [3, 4])
def test_agreement_across_seeds_is_read_from_the_probes_at_the_studys_seeds(tmp_path, num_seeds):
    result = agreement_results(tmp_path, make_probes(num_seeds))
    assert [one.mean for one in result.findings] == pytest.approx([0.3, 0.1, 0.3, 0.1])
    assert {one.seeds for one in result.findings} == {(0, 1, 2)}
    assert result.word == "supported"


def test_agreement_that_differs_between_seeds_has_the_jackknifes_interval(tmp_path):
    record = make_probes()
    for number, one in enumerate(record["agreements"]):
        if one["first"]["arm"] == one["second"]["arm"] == "tied":
            one["observed"]["neighbour_overlap"] += 0.2 * number
    one = agreement_results(tmp_path, record).findings[0]
    over = Agreements(ProbeRecord.model_validate(record), "neighbour_overlap").contrast(
        ("tied", "tied"), ("untied", "input")
    )
    assert one.mean == pytest.approx(over.estimate)
    assert one.interval().low == pytest.approx(over.jackknife.interval.low)
    assert one.interval().high == pytest.approx(over.jackknife.interval.high)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (diverge, "seed 2: tied"),
        (lambda record: record["pairing"]["fingerprint"].update(capability="AVX2"), "seed 2: "),
    ],
)
def test_agreement_is_withheld_where_a_pair_is_not_verified(tmp_path, edit, says):
    folder = make_study(tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(*AGREES)})
    write(tmp_path / "tiny-00000000" / "probes.json", make_probes())
    edit_json(tmp_path / "tiny-00000000" / "tied" / "seed-2" / "result.json", edit)
    result = only(claim_results([load_study_records(folder)]))
    assert {one.outcome for one in result.findings} == {"withheld"}
    assert says in result.findings[0].reason


def test_a_change_is_withheld_where_other_sentences_are_translated(tmp_path):
    folder = make_translation_study(tmp_path)
    changing = finding(
        "higher", "bits_per_byte", arm="tied", at={"disjoint": 1}, minus={"disjoint": 0}
    )

    counted = changing | {"measure": "parameters"}

    def outcomes():
        both = claim(changing, counted)
        edit_json(folder / "manifest.json", lambda record: record.update(claim=both))
        found = only(claim_results([load_study_records(folder)])).findings
        return [outcome_in_words(one) for one in found]

    assert outcomes() == ["holds", "fails: no difference"]
    for path in (tmp_path / "tiny-00000001").rglob("result.json"):
        edit_json(path, lambda record: record["quality"]["test"].update(sentences=29))
    withheld = "withheld: other sentences are scored at each level"
    assert outcomes() == [withheld, "fails: no difference"]
    (tmp_path / "tiny-00000001" / "tied" / "seed-1" / "result.json").unlink()
    assert outcomes()[0] == "not run: its cells are not all trained"


@pytest.mark.parametrize("record", [None, make_probes(2)])
def test_agreement_without_probes_of_all_seeds_is_not_run(tmp_path, record):
    result = agreement_results(tmp_path, record)
    assert result.word == "not run"
    assert "wtie probe" in result.findings[0].reason
