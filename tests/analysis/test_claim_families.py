"""Claims whose findings share cells, a search, or a family with open findings."""

import pytest

from tests.analysis.fake_claims import BETTER, NOISY, claim, finding, only
from tests.analysis.fake_runs import edit_json, values
from tests.analysis.fake_searches import DIVERGED, TRIALS, add_search, shared_values
from tests.analysis.fake_studies import make_study
from tyro_cli.analysis.claim_tables import findings_table
from tyro_cli.analysis.claims import claim_results
from tyro_cli.analysis.statistics import paired_t_interval, paired_t_test, seeds_needed
from tyro_cli.analysis.studies import load_study_records
from tyro_cli.errors import RunFolderError
from tyro_cli.reporting.claims_page import claims_page

AT_BOTH = (finding(margin=0.01), finding(margin=0.01, rates="each-best"))
"""At the shared setting and with each arm at its best."""

BEST_IS_SHARED = {
    (arm, rate): (nats, nats)
    for arm in ("untied", "tied")
    for rate, nats in ((0.001, 4.6), (0.002, 4.5), (0.004, 4.55))
}


def result_with_search(root, trials, **tuned):
    """Return the claim of a study of one point, whose run has these trials."""
    changes = {"claim": claim(*AT_BOTH)}
    folder = make_study(root, {(512,): shared_values()}, changes=changes)
    add_search(root / "tiny-00000000", trials, **tuned)
    return only(claim_results([load_study_records(folder)]))


def test_findings_that_read_the_same_cells_are_one_to_holm(tmp_path):
    result = result_with_search(tmp_path, BEST_IS_SHARED, tuned={})
    first, second = result.findings
    assert (first.repeats, second.repeats) == (False, True)
    assert first.differences == second.differences
    assert first.p_holm == second.p_holm == pytest.approx(paired_t_test(first.differences))
    assert result.word == "supported"
    (note,) = [one for one in findings_table(result).notes if "the same cells" in one]
    assert note.startswith("test nats per word, tied - untied, each at its best rate, vocabulary ")


def test_findings_with_other_margins_are_one_to_the_t_test(tmp_path):
    findings = (finding(margin=0.01), finding(margin=0.5))
    folder = make_study(tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(*findings)})
    first, second = only(claim_results([load_study_records(folder)])).findings
    assert first.p_holm == second.p_holm == pytest.approx(paired_t_test(first.differences))
    assert first.equivalence_p_holm != second.equivalence_p_holm


def test_a_search_whose_trials_all_diverged_withholds_the_finding(tmp_path):
    trials = {key: DIVERGED if key[0] == "tied" else nats for key, nats in TRIALS.items()}
    shared, each_best = result_with_search(tmp_path, trials).findings
    assert shared.outcome == "holds"
    assert (each_best.outcome, each_best.reason) == ("withheld", "every trial of tied diverged")


def test_a_search_that_is_not_over_is_not_run(tmp_path):
    trials = TRIALS | {("tied", 0.001): None}
    each_best = result_with_search(tmp_path, trials).findings[1]
    assert each_best.outcome == "not run" and "1 of 3 trials of tied" in each_best.reason


def test_findings_at_other_settings_are_two_to_holm(tmp_path):
    result = result_with_search(tmp_path, TRIALS)
    first, second = result.findings
    assert not first.repeats and not second.repeats
    assert first.differences != second.differences
    smaller = min(paired_t_test(one.differences) for one in result.findings)
    assert min(one.p_holm for one in result.findings) == pytest.approx(2 * smaller)
    assert not any("the same cells" in one for one in findings_table(result).notes)


def test_a_best_setting_on_the_edge_of_the_grid_is_told_on(tmp_path):
    notes = findings_table(result_with_search(tmp_path, TRIALS)).notes
    said = "sizes: On the edge of the grid: 0.004 is the highest "
    (note,) = [one for one in notes if one.startswith(said)]
    assert "tried for untied; its best may lie beyond" in note


@pytest.mark.parametrize(("shared", "is_told"), [("own", False), ("baseline-best", True)])
def test_a_shared_setting_on_the_edge_is_told_on_where_the_search_chose_it(
    tmp_path, shared, is_told
):
    changes = {"claim": claim(finding())}
    folder = make_study(tmp_path, {(512,): shared_values()}, changes=changes)
    at_the_edge = {(arm, 0.004): (4.40, 4.41, 4.42) for arm in ("untied", "tied")}
    add_search(tmp_path / "tiny-00000000", tuned=at_the_edge, shared=shared)
    one = only(only(claim_results([load_study_records(folder)])).findings)
    assert one.outcome != "not run"
    assert any("On the edge of the grid" in notice for notice in one.notices) == is_told


def test_rows_of_one_plot_say_which_is_at_each_arms_best(tmp_path):
    result = result_with_search(tmp_path, TRIALS)
    (chart,) = [one for one in claims_page([result], "runs").charts() if "nats" in one.name]
    assert "vocabulary 512, each at its best" in chart.description


def test_cells_of_a_search_count_among_those_that_came_before_the_claim(tmp_path):
    changes = {"claim": claim(finding()), "claim_after_cells": 14}
    folder = make_study(tmp_path, {(512,): shared_values()}, changes=changes)
    add_search(tmp_path / "tiny-00000000")
    notes = findings_table(only(claim_results([load_study_records(folder)]))).notes
    # 3 seeds of 2 arms, those of untied at its best, and 2 seeds of 3 trials of 2 arms.
    assert any("after 14 of its 21 cells had been trained" in one for one in notes)


def test_what_would_settle_an_open_finding_is_reckoned_at_the_level_that_holm_asks(tmp_path):
    points = {(512,): values(NOISY), (1024,): values(BETTER), (2048,): values(NOISY[::-1])}
    folder = make_study(tmp_path, points, changes={"claim": claim(finding(margin=1e-6))})
    findings = only(claim_results([load_study_records(folder)])).findings
    assert [one.outcome for one in findings] == ["open", "holds", "open"]
    noisy = findings[0].differences
    seeds = seeds_needed(noisy, abs(sum(noisy) / 3), 0.975)  # two of three are open
    width = paired_t_interval(noisy, 0.975).half_width
    said = findings[0].plan.sentence
    assert f"({width:.4f}, of the 97.5 % interval that Holm asks for)" in said
    assert f"would take {seeds:,} seeds in all" in said
    assert seeds > seeds_needed(noisy, abs(sum(noisy) / 3))


def test_half_of_a_claim_decides_nothing(tmp_path):
    folders = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        changes = {"claim": claim(finding(), parts=2)}
        folders.append(make_study(tmp_path / name, {(512,): values(BETTER)}, changes=changes))
    edit_json(folders[1] / "manifest.json", lambda record: record.update(name="other sizes"))
    studies = [load_study_records(folder) for folder in folders]
    half = only(claim_results(studies[:1]))
    assert half.word == "not run"
    assert only(half.findings).outcome == "holds"
    said = (
        "Claim 3 is decided by 2 studies together; 1 of them here, and the p values are adjusted "
        "for what is here alone."
    )
    assert said in findings_table(half).notes
    assert said in claims_page([half], "runs").notices
    whole = only(claim_results(studies))
    assert whole.word == "supported"
    assert said not in findings_table(whole).notes
    edit_json(folders[1] / "manifest.json", lambda one: one["claim"].update(parts=3))
    with pytest.raises(RunFolderError, match="puts claim 3 in other words"):
        claim_results([load_study_records(folder) for folder in folders])
