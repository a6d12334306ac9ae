"""Claims from hand-made records: every outcome of a finding, and every word they can come to."""

import re
from dataclasses import replace

import pytest

from tests.analysis.fake_claims import (
    AGREES,
    BETTER,
    NOISY,
    SMALL,
    SMALL_BETTER,
    WORSE,
    claim,
    finding,
    only,
    result_of,
)
from tests.analysis.fake_probes import make_probes
from tests.analysis.fake_runs import (
    diverge,
    edit_json,
    values,
    write,
)
from tests.analysis.fake_studies import make_study
from tyro_cli.analysis.claim_tables import (
    findings_table,
    outcome_in_words,
)
from tyro_cli.analysis.claims import claim_results, word_of
from tyro_cli.analysis.statistics import paired_t_test
from tyro_cli.analysis.studies import load_study_records, studies_in
from tyro_cli.errors import DamagedRecord, RunFolderError


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


def test_the_findings_of_a_claim_are_one_family(tmp_path):
    p = paired_t_test(BETTER)
    many = {512: BETTER, 1024: NOISY, 2048: NOISY, 4096: NOISY, 8192: NOISY}
    result = result_of(tmp_path, many, finding())
    assert result.findings[0].p_holm == pytest.approx(5 * p)
    assert 5 * p > 0.05 > p
    assert result.findings[0].outcome == "open"


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
    # Its side shows at 0.0067, the mean; that it counts as none only at 0.0033, below the margin.
    assert plan.sentence.startswith("to bring the half-width (0.0625) to 0.0067 would take ")
    assert plan.hours is not None and plan.hours > 0


def test_a_mean_near_zero_is_settled_by_its_equivalence(tmp_path):
    near = [-0.02, 0.021, 0.0005]
    one = only(result_of(tmp_path, {512: near}, finding()).findings)
    within = one.margin - one.mean
    what = f"{within:.4f}, at which the interval would lie within the margin,"
    assert f"of the 90 % interval) to {what} would take " in one.plan.sentence


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
                changes={"name": name, "claim": claim(finding())},
            )
        )
    result = only(claim_results([load_study_records(folder) for folder in folders]))
    assert result.word == "mixed: depends on the vocabulary"
    edit_json(folders[1] / "manifest.json", lambda one: one["claim"].update(sentence="No."))
    with pytest.raises(RunFolderError, match="puts claim 3 in other words"):
        claim_results([load_study_records(folder) for folder in folders])


def test_one_study_twice_is_not_both_halves_of_a_claim(tmp_path):
    changes = {"claim": claim(finding(), parts=2)}
    for name in ("whole", "tried with smoke"):
        (tmp_path / name).mkdir()
        make_study(tmp_path / name, {(512,): values(BETTER)}, changes=changes)
    studies = [load_study_records(path.parent) for path in tmp_path.glob("*/sizes-*/study.yaml")]
    with pytest.raises(RunFolderError, match="are both the study sizes") as caught:
        claim_results(studies)
    assert "move one of the two" in caught.value.remedy


def test_studies_without_a_claim_are_left_out(tmp_path):
    make_study(tmp_path, {(512,): values(BETTER)})
    assert studies_in(tmp_path) == ()


def test_a_claim_about_an_arm_that_is_not_there_is_damaged(tmp_path):
    folder = make_study(
        tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(finding(arm="wide"))}
    )
    with pytest.raises(DamagedRecord, match="names no arm 'wide'"):
        load_study_records(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": "entropy"}, "measure"),
        ({"at": {"vocabulary": 99}}, "names a point that the study has not"),
        ({"at": {"vocabulary": 512}, "minus": {"vocabulary": 99}}, "a point that the study has no"),
    ],
)
def test_a_finding_that_cannot_be_read_is_damaged(tmp_path, changes, message):
    folder = make_study(
        tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(finding(**changes))}
    )
    with pytest.raises(DamagedRecord, match=message):
        load_study_records(folder)


def test_outcomes_come_to_one_word():
    assert word_of(["holds", "open"], "x") == "cannot tell"
    assert word_of(["fails", "open"], "x") == "cannot tell"
    assert word_of(["holds", "fails", "open"], "x") == "mixed: depends on x"
    assert word_of(["holds", "holds, by less than its margin"], "x") == "supported"
    assert word_of(["holds", "not run"], "x") == "not run"
    assert word_of(["withheld", "holds"], "x") == "cannot tell"
