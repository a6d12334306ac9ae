"""Claims from hand-made records: every outcome of a finding, and every word they can come to."""

import re
import shutil
from dataclasses import replace

import pytest

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
    alike,
    claim_tables,
    findings_table,
    measure_in_words,
    outcome_in_words,
)
from tyro_cli.analysis.claims import claim_results, word_of
from tyro_cli.analysis.probes import Agreements, ProbeRecord
from tyro_cli.analysis.rendering import to_markdown
from tyro_cli.analysis.statistics import paired_t_test
from tyro_cli.analysis.studies import load_study_records, studies_in
from tyro_cli.errors import DamagedRecord, RunFolderError

BETTER = [-0.04, -0.05, -0.035]  # p .0110
WORSE = [0.04, 0.05, 0.035]
SMALL = [-0.002, 0.001, 0.002]  # within 1 %: p .0026
SMALLER = [-0.0021, 0.0009, 0.0019]
SMALL_BETTER = [-0.005, -0.0055, -0.0052]
NOISY = [-0.02, 0.03, 0.01]


def only(items):
    """Return the one item there is."""
    (item,) = items
    return item


def finding(expected="lower", measure="nats_per_word", **keys):
    return {
        "name": "tied loses less",
        "measure": measure,
        "arm": "tied",
        "baseline": "untied",
        "matrix": None,
        "at": {},
        "minus": None,
        "rates": "shared",
        "expected": expected,
        "margin": None,
    } | keys


def published(**keys):
    """Return the record of an untied model of 100 parameters, 80 of them in two matrices."""
    return {
        "name": "big",
        "vocab_size": 10,
        "d_model": 4,
        "untied_total": 100,
        "saving": 40,
        "tied": False,
        "embedding_and_head": 80,
    } | keys


def claim(*findings, **keys):
    return {
        "number": 3,
        "sentence": "Tying helps.",
        "depends_on": "the vocabulary",
        "findings": list(findings),
        "counted": [],
    } | keys


def result_of(tmp_path, points, *findings, **changes):
    """Return the one claim of a study with these differences at its levels."""
    folder = make_study(
        tmp_path,
        {(level,): values(one) for level, one in points.items()},
        changes={"claim": claim(*findings)},
        **changes,
    )
    return only(claim_results([load_study_records(folder)]))


@pytest.mark.parametrize(
    ("differences", "expected", "outcome", "word"),
    [
        (BETTER, "lower", "holds", "supported"),
        (WORSE, "higher", "holds", "supported"),
        (WORSE, "lower", "fails", "refuted"),
        (SMALL, "lower", "fails", "refuted"),
        (SMALL_BETTER, "lower", "holds, by less than its margin", "supported"),
        (NOISY, "lower", "open", "cannot tell"),
    ],
)
def test_a_finding_comes_to(tmp_path, differences, expected, outcome, word):
    result = result_of(tmp_path, {512: differences}, finding(expected))
    assert only(result.findings).outcome == outcome
    assert result.word == word
    assert only(result.findings).differences == pytest.approx(differences)


@pytest.mark.parametrize(
    ("differences", "expected", "words"),
    [
        (WORSE, "lower", "fails: opposite"),
        (SMALL, "lower", "fails: no effect (within margin)"),
        (SMALL_BETTER, "higher", "fails: opposite, by less than its margin"),
        (BETTER, "lower", "holds"),
        (NOISY, "lower", "open"),
    ],
)
def test_a_finding_that_fails_says_in_which_way(tmp_path, differences, expected, words):
    one = only(result_of(tmp_path, {512: differences}, finding(expected)).findings)
    assert outcome_in_words(one) == words


def test_a_count_fails_without_a_p(tmp_path):
    one = only(result_of(tmp_path, {512: BETTER}, finding("higher", "parameters")).findings)
    assert outcome_in_words(one) == "fails: opposite"
    same = replace(one, differences=(0.0, 0.0, 0.0))
    assert outcome_in_words(same) == "fails: no difference"


def test_a_margin_of_its_own_decides_what_is_small(tmp_path):
    assert result_of(tmp_path, {512: WORSE}, finding("lower", margin=0.2)).word == "refuted"


def test_without_a_margin_a_small_difference_is_open(tmp_path):
    # Bits per byte have no margin of their own, so nothing is shown to be small.
    result = result_of(tmp_path, {512: SMALL}, finding("lower", "bits_per_byte"))
    assert result.word == "cannot tell"


def test_some_hold_and_some_fail(tmp_path):
    result = result_of(tmp_path, {512: BETTER, 1024: WORSE}, finding())
    assert [one.outcome for one in result.findings] == ["holds", "fails"]
    assert [one.where for one in result.findings] == ["vocabulary 512", "vocabulary 1024"]
    assert result.word == "mixed: depends on the vocabulary"


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


def test_the_findings_of_a_claim_are_one_family(tmp_path):
    p = paired_t_test(BETTER)
    many = {512: BETTER, 1024: NOISY, 2048: NOISY, 4096: NOISY, 8192: NOISY}
    result = result_of(tmp_path, many, finding())
    assert result.findings[0].p_holm == pytest.approx(5 * p)
    assert 5 * p > 0.05 > p
    assert result.findings[0].outcome == "open"


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


AGREES = [
    finding("higher", measure, matrix=matrix)
    for measure in ("neighbour_overlap", "linear_cka")
    for matrix in ("input", "output")
]


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


def test_seeds_that_were_added_after_looking_are_told_on(tmp_path):
    plans = [
        {"seeds": seeds, "arms": ["untied", "tied"], "after_results": is_late}
        for seeds, is_late in (([0, 1], False), ([2], True))
    ]
    changes = {"claim": claim(*AGREES, finding())}
    folder = make_study(tmp_path, {(512,): values(BETTER)}, changes=changes, plans=plans)
    write(tmp_path / "tiny-00000000" / "probes.json", make_probes())
    result = only(claim_results([load_study_records(folder)]))
    assert result.word == "supported"
    told = [note for note in findings_table(result).notes if "after looking" in note]
    assert told == ["sizes: Seeds were added when results were known: extended after looking."]
    assert all(one.notices for one in result.findings)


def test_cells_that_were_resumed_on_other_numerics_are_told_on(tmp_path):
    folder = make_study(tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(finding())})
    for path in (tmp_path / "tiny-00000000").rglob("seed-1/result.json"):
        edit_json(path, lambda record: record["pairing"].update(numeric_drift=[{"step": 20}]))
    notes = findings_table(only(claim_results([load_study_records(folder)]))).notes
    assert any("sizes: Resumed under another numeric fingerprint: " in note for note in notes)


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


def test_an_unfinished_pair_is_not_run(tmp_path):
    points = {(512,): {key: one for key, one in values(BETTER).items() if key != ("tied", 1)}}
    folder = make_study(tmp_path, points, changes={"claim": claim(finding())})
    result = only(claim_results([load_study_records(folder)]))
    assert result.word == "not run"
    assert only(result.findings).reason == "its cells are not all trained"


def test_a_diverged_pair_withholds_the_finding(tmp_path):
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER)},
        changes={"claim": claim(finding())},
        edits={(512,): lambda result: diverge(result) if result["seed"] == 1 else None},
    )
    result = only(claim_results([load_study_records(folder)]))
    assert only(result.findings).outcome == "withheld"
    assert "seed 1" in only(result.findings).reason
    assert result.word == "cannot tell"


def test_each_best_without_a_search_is_not_run(tmp_path):
    assert result_of(tmp_path, {512: BETTER}, finding(rates="each-best")).word == "not run"


def test_an_open_finding_says_what_would_settle_it(tmp_path):
    plan = only(result_of(tmp_path, {512: NOISY}, finding()).findings).plan
    assert plan.sentence.startswith("to bring the half-width (0.0625) to 0.0100 would take ")
    assert plan.hours is not None and plan.hours > 0


def test_the_side_of_a_difference_beyond_its_margin_is_what_would_settle_it(tmp_path):
    wide = [0.2, -0.1, 0.5]
    plan = only(result_of(tmp_path, {512: wide}, finding()).findings).plan
    assert ") to 0.2000 would take " in plan.sentence
    hours = f"About {plan.hours:.1f} more hours of cells, every arm at every point."
    assert plan.in_full == f"{plan.sentence} {hours}"


def test_the_hours_of_more_seeds_are_those_of_every_arm_at_every_point(tmp_path):
    levels = {512: NOISY, 1024: BETTER}
    result = result_of(tmp_path, levels, finding(at={"vocabulary": 512}))
    seconds = [
        cell.performance.seconds
        for point in result.studies[0].points
        for cell in point.run.cells.values()
    ]
    assert len(seconds) == 2 * 2 * 3  # points, arms, seeds
    plan = only(result.findings).plan
    seeds = int(re.search(r"take ([0-9,]+) seeds", plan.sentence)[1].replace(",", ""))
    assert plan.hours == pytest.approx((seeds - 3) * sum(seconds) / 3 / 3600)


def test_the_hours_of_more_seeds_are_not_named_where_a_point_has_recorded_no_time(tmp_path):
    levels = {512: NOISY, 1024: BETTER}
    folder = make_study(
        tmp_path,
        {(level,): values(one) for level, one in levels.items()},
        changes={"claim": claim(finding(at={"vocabulary": 512}))},
    )
    run = load_study_records(folder).points[1].run.folder
    for path in (run / "tied").glob("seed-*/performance.json"):
        path.unlink()
    plan = only(only(claim_results([load_study_records(folder)])).findings).plan
    assert plan.hours is None and plan.in_full == plan.sentence


def test_studies_of_one_number_decide_together(tmp_path):
    folders = []
    for name, differences in (("one", BETTER), ("two", WORSE)):
        (tmp_path / name).mkdir()
        folders.append(
            make_study(
                tmp_path / name,
                {(512,): values(differences)},
                changes={"claim": claim(finding())},
            )
        )
    result = only(claim_results([load_study_records(folder) for folder in folders]))
    assert result.word == "mixed: depends on the vocabulary"
    edit_json(folders[1] / "manifest.json", lambda one: one["claim"].update(sentence="No."))
    with pytest.raises(RunFolderError, match="puts claim 3 in other words"):
        claim_results([load_study_records(folder) for folder in folders])


def test_studies_without_a_claim_are_left_out(tmp_path):
    make_study(tmp_path, {(512,): values(BETTER)})
    assert studies_in(tmp_path) == ()


def test_a_claim_about_an_arm_that_is_not_there_is_damaged(tmp_path):
    folder = make_study(
        tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(finding(arm="wide"))}
    )
    with pytest.raises(DamagedRecord, match="names no arm 'wide'"):
        load_study_records(folder)


def test_the_words():
    assert word_of(["holds", "open"], "x") == "cannot tell"
    assert word_of(["fails", "open"], "x") == "cannot tell"
    assert word_of(["holds", "fails", "open"], "x") == "mixed: depends on x"
    assert word_of(["holds", "holds, by less than its margin"], "x") == "supported"
    assert word_of(["holds", "not run"], "x") == "not run"
    assert word_of(["withheld", "holds"], "x") == "cannot tell"


def test_the_tables_say_claim_answer_and_numbers(tmp_path):
    counted = {"name": "big", "vocab_size": 10, "d_model": 4, "untied_total": 100, "saving": 40}
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER), (1024,): values(NOISY)},
        changes={"claim": claim(finding(), counted=[counted])},
    )
    tables = claim_tables(claim_results([load_study_records(folder)]))
    assert list(tables) == ["claims", "claim-3", "claim-3-counted"]
    text = {name: to_markdown(table) for name, table in tables.items()}
    for part in ("Tying helps.", "cannot tell", "1 of 2 holds", "1 of 2 open", "-0.0417"):
        assert part in text["claims"]
    for part in ("vocabulary 1024", "seeds in all, by the upper 80 % bound", "holds"):
        assert part in text["claim-3"]
    assert [name for name, one in text.items() if "All hold" in one] == ["claims"]
    assert tables["claim-3-counted"].rows == ({"vocab_size": 10, "share 4": 0.4},)


def test_no_number_of_one_finding_stands_for_the_claim(tmp_path):
    result = result_of(tmp_path, {512: BETTER, 1024: SMALL, 2048: SMALLER}, finding())
    (held, failed), table = alike(result), claim_tables([result])["claims"]
    assert [one.outcome for one in (held, failed)] == [
        "1 of 3 holds",
        "2 of 3 fail: no effect (within margin)",
    ]
    assert [one.where for one in (held, failed)] == [
        "vocabulary 512",
        "vocabulary 1024; vocabulary 2048",
    ]
    assert held.means == (result.findings[0].mean,)
    assert failed.means == pytest.approx((sum(SMALLER) / 3, sum(SMALL) / 3))
    first, second = table.rows
    assert first["answer"] == result.word and "highest_mean" not in first
    assert "answer" not in second and second["highest_mean"] == pytest.approx(sum(SMALL) / 3)
    assert second["interval_95"] == failed.interval
    assert "lowest and highest mean" in table.notes[1]


def test_a_claim_says_how_small_its_experiments_are_in_its_first_row(tmp_path):
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER), (1024,): values(WORSE)},
        changes={"claim": claim(finding())},
    )
    one_point = tmp_path / "tiny-00000000"

    def edit_settings(settings):
        settings["data"]["corpus"] = "../data/wikitext-2"
        settings["model"]["num_layers"] = 0

    for path in one_point.rglob("result.json"):
        edit_json(path, lambda record: edit_settings(record["settings"]))
        edit_json(path, lambda record: record["training"].update(tokens=900))
    edit_json(
        one_point / "manifest.json",
        lambda record: [edit_settings(arm["settings"]) for arm in record["arms"].values()],
    )
    result = only(claim_results([load_study_records(folder)]))
    first, second = claim_tables([result])["claims"].rows
    assert first["measured_on"] == (
        "wikitext-2, kjv, 900 to 3,840 tokens a cell, width 16, 0 to 1 layer, 3 seeds"
    )
    assert "measured_on" not in second


def test_a_claim_with_damaged_settings_says_of_its_size_what_it_can(tmp_path):
    folder = make_study(tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(finding())})
    run = tmp_path / "tiny-00000000"
    for path in run.rglob("seed-*"):
        shutil.rmtree(path)
    edit_json(
        run / "manifest.json",
        lambda record: record["arms"]["untied"].update(settings={"model": {"d_model": "wide"}}),
    )
    row = claim_tables(claim_results([load_study_records(folder)]))["claims"].rows[0]
    assert row["answer"] == "not run" and row["measured_on"] == "3 seeds"


def test_many_places_of_one_outcome_are_counted(tmp_path):
    counted = finding("lower", "parameters")
    result = result_of(tmp_path, dict.fromkeys((1, 2, 3, 4), BETTER), counted)
    (group,) = alike(result)
    assert (group.outcome, group.where, group.means) == ("4 of 4 hold", "4 places", (-976,))
    assert group.interval is None


def test_what_is_counted_shows_the_share_saved_and_no_empty_columns(tmp_path):
    result = result_of(tmp_path, {512: BETTER}, finding("lower", "parameters"))
    table = findings_table(result)
    keys = [column.key for column in table.columns]
    assert keys == [
        "finding", "where", "measure", "expected", "seeds", "mean", "share_saved", "outcome",
    ]  # fmt: skip
    row = only(table.rows)
    (study,) = result.studies
    total = study.points[0].run.manifest.arms["untied"].ledger.total
    assert row["mean"] == -976 and row["share_saved"] == pytest.approx(976 / total)
    assert table.notes == ()


def test_a_change_of_a_count_has_no_share_and_is_explained(tmp_path):
    change = finding(
        "lower", "parameters", at={"vocabulary": 1024}, minus={"vocabulary": 512}, margin=None
    )
    table = findings_table(result_of(tmp_path, {512: BETTER, 1024: BETTER}, change))
    assert "share_saved" not in [column.key for column in table.columns]
    assert only(table.notes).startswith("A change is the difference at the second")


def test_a_change_to_a_point_without_a_run_names_both_levels(tmp_path):
    change = finding("lower", at={"vocabulary": 1024}, minus={"vocabulary": 512})
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER), (1024,): values(BETTER)},
        changes={"claim": claim(change)},
    )
    shutil.rmtree(tmp_path / "tiny-00000001")
    one = only(only(claim_results([load_study_records(folder)])).findings)
    assert one.where == "vocabulary 512 to 1024"
    assert outcome_in_words(one) == "not run: its run is not there yet"


def test_counts_of_several_studies_have_a_table_each(tmp_path):
    folders = []
    for name, saving in (("one", 40), ("two", 20)):
        (tmp_path / name).mkdir()
        counted = {"name": "a", "vocab_size": 10, "d_model": 4, "untied_total": 100}
        folders.append(
            make_study(
                tmp_path / name,
                {(512,): values(BETTER)},
                changes={"claim": claim(finding(), counted=[counted | {"saving": saving}])},
            )
        )
    tables = claim_tables(claim_results([load_study_records(one) for one in folders]))
    assert list(tables) == ["claims", "claim-3", "claim-3-counted", "claim-3-counted-2"]
    assert "study" in [column.key for column in tables["claim-3"].columns]


def test_published_models_have_a_table_of_their_own(tmp_path):
    models = [
        published(untied_total=200),
        published(name="small", tied=True, embedding_and_head=40),
    ]
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER)},
        changes={"claim": claim(finding(), published=models)},
    )
    tables = claim_tables(claim_results([load_study_records(folder)]))
    assert list(tables) == ["claims", "claim-3", "claim-3-published"]
    either = {
        "vocab_size": 10,
        "d_model": 4,
        "saving": 40,
    }
    assert tables["claim-3-published"].rows == (
        either
        | {"name": "small", "published": "tied"}
        | {"untied_total": 100, "tied_total": 60, "share": 0.4},
        either
        | {"name": "big", "published": "untied"}
        | {"untied_total": 200, "tied_total": 160, "share": 0.2},
    )
    text = to_markdown(tables["claim-3-published"])
    for part in (" untied ", "20.0 %", "40.0 %", "no weight was read"):
        assert part in text


def test_published_models_change_no_answer(tmp_path):
    folders = []
    for name, models in (("with", [published()]), ("without", [])):
        (tmp_path / name).mkdir()
        folders.append(
            make_study(
                tmp_path / name,
                {(512,): values(NOISY)},
                changes={"claim": claim(finding(), published=models)},
            )
        )
    first, second = (only(claim_results([load_study_records(one)])) for one in folders)
    assert first.word == second.word == "cannot tell"
    assert first.findings == second.findings


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"saving": 41}, "saving is not vocab_size x d_model"),
        ({"embedding_and_head": 39}, "embedding_and_head is not between vocab_size x d_model and"),
        ({"embedding_and_head": 61, "tied": True}, "embedding_and_head is not between vocab_size"),
    ],
)
def test_a_published_model_that_contradicts_itself_is_damaged(tmp_path, keys, message):
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER)},
        changes={"claim": claim(finding(), published=[published(**keys)])},
    )
    with pytest.raises(DamagedRecord, match=message):
        load_study_records(folder)
