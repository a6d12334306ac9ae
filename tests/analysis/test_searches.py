"""A search: which trial is best and why, the edge, and what each arm's best makes of a verdict."""

import pytest

from tests.analysis.fake_runs import diverge, edit_json, make_run, split_scores
from tests.analysis.fake_searches import (
    DIVERGED,
    RATE,
    TRIALS,
    TUNED,
    add_search,
    name_of,
    shared_values,
)
from tyro_cli.analysis.records import at_best, load_run
from tyro_cli.analysis.search_tables import contrast_cells, tuned_verdicts, unfinished_cells
from tyro_cli.analysis.tables import all_tables, search_tables
from tyro_cli.errors import DamagedRecord

BEFORE = {"settings": [name_of(0.001), name_of(0.002)], "seeds": [100, 101], "shared": "own"}
AFTER = {**BEFORE, "settings": [name_of(rate) for rate in (0.001, 0.002, 0.004)]}


@pytest.fixture
def searched(tmp_path):
    """Make a run with a search, changed as asked; return its records."""

    def make(trials=TRIALS, tuned=TUNED, nats=None, **changes):
        folder = make_run(tmp_path, nats_per_word=nats or shared_values())
        return load_run(add_search(folder, trials, tuned, **changes))

    return make


def best(run):
    return {
        arm: run.search.setting(name).values[RATE] if name is not None else None
        for arm, name in run.search.best.items()
    }


def test_each_arms_best_is_its_own_lowest_mean_on_valid(searched):
    run = searched()
    assert best(run) == {"untied": 0.004, "tied": 0.002}
    assert run.search.trials["untied"][0].valid_nats == pytest.approx(4.71 * 1.02 / 1.5)


def test_test_loss_decides_nothing(searched, tmp_path):
    run = searched()
    path = run.folder / "trials/untied" / name_of(0.004) / "seed-100/result.json"

    def much_worse_on_test(record):
        record["evaluations"]["best"]["test"] = split_scores("test", 9.0)

    edit_json(path, much_worse_on_test)
    assert best(load_run(run.folder)) == best(run)


def without_test(record):
    for at in ("best", "last"):
        del record["evaluations"][at]["test"]
    del record["signatures"]["test"]


def test_a_trial_need_not_have_seen_test(searched):
    run = searched()
    for path in (run.folder / "trials").rglob("result.json"):
        edit_json(path, without_test)
    again = load_run(run.folder)
    assert best(again) == best(run)
    cell = again.search.trials["tied"][0].cells[0]
    assert cell.result.splits == ("valid",)
    assert search_tables(again, "untied") == search_tables(run, "untied")


@pytest.mark.parametrize("place", ["tied/seed-0", f"tuned/untied/{name_of(0.004)}/seed-1"])
def test_a_cell_of_a_contrast_without_test_is_refused(searched, place):
    run = searched()
    edit_json(run.folder / place / "result.json", without_test)
    with pytest.raises(
        DamagedRecord, match=r"evaluations\.best\.test: missing, as only in a trial"
    ):
        at_best(load_run(run.folder))


def test_a_trial_that_saw_test_at_one_checkpoint_alone_is_refused(searched):
    run = searched()
    path = run.folder / "trials/tied" / name_of(0.001) / "seed-100/result.json"
    edit_json(path, lambda record: record["evaluations"]["last"].pop("test"))
    with pytest.raises(DamagedRecord, match="test is scored at one of the checkpoints alone"):
        load_run(run.folder)


def test_a_mean_over_seeds_decides_not_one_seed(searched):
    run = searched({**TRIALS, ("tied", 0.001): (4.40, 4.60)})
    assert best(run)["tied"] == 0.002


def test_a_diverged_trial_counts_and_cannot_be_best(searched):
    run = searched({**TRIALS, ("untied", 0.004): DIVERGED}, {})
    assert best(run) == {"untied": 0.002, "tied": 0.002}
    trials = search_tables(run, "untied")[1]
    assert [row["status"] for row in trials.rows][2] == "diverged at step 33"
    assert "valid_nats" not in trials.rows[2]
    assert (
        "1 of 3 trials of untied diverged: they count as trials and cannot be best." in trials.notes
    )


def test_an_arm_whose_trials_all_diverged_has_no_best_and_no_contrast_there(searched):
    run = searched({**TRIALS, **{("tied", rate): DIVERGED for rate in (0.001, 0.002, 0.004)}})
    assert best(run)["tied"] is None
    assert set(at_best(run).arms) == {"untied"}
    tuned, trials = search_tables(run, "untied")
    assert tuned.rows == ()
    sentence = "Whether the sign survives cannot be said: every trial of tied diverged."
    assert tuned.notes[0] == f"tied: {sentence}"
    assert "Every trial of tied diverged: tied has no best setting." in trials.notes
    assert tuned_verdicts(run, "untied")["tied"].text == sentence.removesuffix(".")
    assert all_tables(run)["contrasts"].rows[0]["mean"] == pytest.approx(-0.045)


def test_no_best_before_every_trial_of_the_arm_has_ended(searched):
    run = searched({**TRIALS, ("tied", 0.004): None})
    assert best(run) == {"untied": 0.004, "tied": None}
    said = tuned_verdicts(run, "untied")["tied"]
    assert (said.verdict, said.survives) == (None, None)
    assert said.sentence.endswith("1 of 3 trials of tied are unfinished.")
    assert unfinished_cells(run) == (
        "tied seed 100, trial of learning_rate 0.004",
        "tied seed 101, trial of learning_rate 0.004",
    )


def test_an_arm_that_was_not_planned_has_no_trials(tmp_path):
    plans = [{"seeds": [0, 1, 2], "arms": ["untied"], "after_results": False}]
    alone = {key: value for key, value in shared_values().items() if key[0] == "untied"}
    folder = add_search(make_run(tmp_path, nats_per_word=alone, plans=plans))
    said = tuned_verdicts(load_run(folder), "untied")["tied"]
    assert said.text == "Whether the sign survives cannot be said: no trial of tied is planned yet"
    assert all_tables(load_run(folder))["tuned"].rows == ()


def test_without_a_best_of_the_baseline_there_is_no_contrast_at_all(searched):
    run = searched({**TRIALS, ("untied", 0.004): None}, {})
    tuned = search_tables(run, "untied")[0]
    assert (tuned.name, tuned.rows) == ("tuned", ())
    assert tuned.notes == (
        "tied: Whether the sign survives cannot be said: 1 of 3 trials of untied are unfinished.",
    )


def test_a_tie_goes_to_the_shared_setting_else_to_the_lowest_values(searched):
    same = {("tied", rate): (4.5, 4.6) for rate in (0.001, 0.002, 0.004)}
    run = searched({**TRIALS, **same})
    assert best(run)["tied"] == 0.002
    assert run.search.edges("tied") == ()


def test_a_tie_outside_of_the_shared_setting_goes_to_the_lowest(searched):
    trials = {("untied", 0.004): (4.5, 4.5), ("untied", 0.001): (4.5, 4.5)}
    trials |= {("tied", 0.004): (4.4, 4.4), ("tied", 0.001): (4.4, 4.4)}
    run = searched(trials, {})
    assert best(run) == {"untied": 0.001, "tied": 0.001}
    assert run.search.edges("tied") == ()  # where the next value is as good, the key does nothing
    assert "not in the grid" in search_tables(run, "untied")[1].notes[2]


def test_a_best_value_on_the_edge_of_the_grid_is_flagged(searched):
    run = searched()
    assert run.search.edges("untied") == ((RATE, "highest"),)
    assert run.search.edges("tied") == ()
    trials = search_tables(run, "untied")[1]
    flagged = [row for row in trials.rows if row["edge"]]
    assert [(row["arm"], row[f"value {RATE}"], row["role"]) for row in flagged] == [
        ("untied", 0.004, "best")
    ]
    assert flagged[0]["edge"] == "learning_rate highest"
    assert any(note.startswith("On the edge of the grid: 0.004 is the h") for note in trials.notes)


def test_the_lowest_value_is_an_edge_too(searched):
    run = searched({**TRIALS, ("tied", 0.001): (4.3, 4.3)}, {})
    assert run.search.edges("tied") == ((RATE, "lowest"),)


def test_the_contrast_at_each_arms_best_takes_the_shared_cells_where_they_are_the_same(searched):
    run = searched()
    tuned = at_best(run)
    assert tuned.cells["tied", 0].folder == run.folder / "tied/seed-0"
    assert tuned.cells["untied", 0].folder.parent == run.folder / "tuned/untied" / name_of(0.004)
    assert len(contrast_cells(run)) == 9
    table = search_tables(run, "untied")[0]
    assert table.rows[0]["baseline_values"] == pytest.approx((4.40, 4.41, 4.42))
    assert table.rows[0]["mean"] == pytest.approx(0.055)
    assert table.title == "Contrasts of tiny against untied, each arm at its best"


def test_the_verdict_there_says_at_which_rates_and_the_tables_what_differs(searched):
    table = search_tables(searched(), "untied")[0]
    verdict = next(note for note in table.notes if note.startswith("Verdict: "))
    assert "each at its best: rates 0.002 for tied and 0.004 for untied." in verdict
    assert f"`{RATE}`: 0.004 -> 0.002" in table.notes[-1]


def test_at_one_best_rate_the_verdict_names_it_once(searched):
    trials = {**TRIALS, ("tied", 0.004): (4.3, 4.3)}
    tuned = {**TUNED, ("tied", 0.004): (4.3, 4.3, 4.3)}
    table = search_tables(searched(trials, tuned), "untied")[0]
    assert any("each at its best: rate 0.004 for both." in note for note in table.notes)


def test_a_sign_that_changes_is_said_with_both_means_and_verdicts(searched):
    said = tuned_verdicts(searched(), "untied")["tied"]
    assert said.survives is False
    assert said.sentence == (
        "The sign does not survive: tied - untied is -0.0450 nats per word at the shared setting "
        "and +0.0550 with each arm at its best; the verdicts are `tied better` and "
        "`untied better`."
    )
    assert said.text == "untied better; the sign does not survive"


def test_a_sign_that_survives_is_said(searched):
    said = tuned_verdicts(searched(tuned={("untied", 0.004): (4.47, 4.48, 4.49)}), "untied")["tied"]
    assert said.survives is True
    assert said.sentence.startswith("The sign survives: tied - untied is -0.0450 nats per word")


def test_arms_that_are_best_at_the_shared_setting_make_one_contrast(searched):
    run = searched({**TRIALS, ("untied", 0.004): (4.9, 4.9)}, {})
    said = tuned_verdicts(run, "untied")["tied"]
    assert said.survives is True
    assert said.sentence.endswith("the two contrasts are one.")
    assert len(contrast_cells(run)) == 6


def test_a_mean_of_zero_has_no_sign(searched):
    said = tuned_verdicts(searched(nats={**shared_values(), **_equal()}), "untied")["tied"]
    assert said.survives is None
    assert "a mean of zero has none" in said.sentence


def _equal():
    return {("tied", seed): 4.5 + 0.01 * seed for seed in range(3)}


def test_a_withheld_verdict_lets_nothing_be_said_of_the_sign(searched):
    run = searched()
    edit_json(run.folder / "tuned/untied" / name_of(0.004) / "seed-1/result.json", diverge)
    said = tuned_verdicts(load_run(run.folder), "untied")["tied"]
    assert said.survives is None
    assert said.sentence == (
        "Whether the sign survives cannot be said: with each arm at its best the verdict is "
        "withheld: 1 of 3 pairs diverged."
    )


def test_cells_at_the_best_that_are_missing_are_unfinished(searched):
    run = searched(tuned={("untied", 0.004): (4.40, 4.41)})
    assert unfinished_cells(run) == ("untied seed 2",)


def test_the_baselines_best_can_be_what_all_arms_share(searched):
    tuned = {("untied", 0.004): (4.40, 4.41, 4.42), ("tied", 0.004): (4.5, 4.5, 4.5)}
    run = searched(tuned=tuned, shared="baseline-best")
    assert run.search.shared == name_of(0.004)
    assert {cell.folder.parent.parent.name for cell in run.cells.values()} == {"untied", "tied"}
    assert run.cells["tied", 0].folder.parent == run.folder / "tuned/tied" / name_of(0.004)
    tables = all_tables(run)
    verdict = next(note for note in tables["contrasts"].notes if note.startswith("Verdict"))
    assert "shared rate 0.004, the baseline's best." in verdict
    assert tables["contrasts"].rows[0]["mean"] == pytest.approx(0.09)
    assert tables["tuned"].rows[0]["baseline_values"] == pytest.approx((4.40, 4.41, 4.42))
    assert tables["tuned"].rows[0]["arm_values"] == pytest.approx((4.46, 4.46, 4.475))


def test_while_the_baselines_best_is_not_known_no_cell_is_at_the_shared_setting(searched):
    run = searched({**TRIALS, ("untied", 0.001): None}, shared="baseline-best")
    assert {cell.status for cell in run.cells.values()} == {"unfinished"}
    assert "which is not known" in search_tables(run, "untied")[1].notes[2]


def test_a_grid_extended_after_looking_is_said_with_what_was_best_before(searched):
    plans = [BEFORE | {"after_results": False}, AFTER | {"after_results": True}]
    run = searched(plans=plans)
    tables = all_tables(run)
    assert any("extended after looking" in note for note in tables["trials"].notes)
    assert (
        "The best setting of untied was learning_rate 0.002 before the search was changed."
        in tables["trials"].notes
    )
    assert not any("best setting of tied was" in note for note in tables["trials"].notes)
    said = tuned_verdicts(run, "untied")["tied"].verdict
    assert said.extended
    assert said.sentence.endswith("extended after looking.")
    verdict = next(note for note in tables["contrasts"].notes if note.startswith("Verdict"))
    assert "extended after looking" not in verdict


def test_a_search_extended_before_any_result_is_not_flagged(searched):
    plans = [BEFORE | {"after_results": False}, AFTER | {"after_results": False}]
    assert not any(
        "after looking" in note
        for table in all_tables(searched(plans=plans)).values()
        for note in table.notes
    )


def test_a_search_planned_after_looking_is_flagged(searched):
    run = searched(plans=[AFTER | {"after_results": True}])
    assert run.search.changed_after_looking
    assert run.search.best_before("untied") is None


def test_a_trial_of_another_setting_is_refused(searched):
    run = searched()
    path = run.folder / "trials/tied" / name_of(0.001) / "seed-100/result.json"

    def other_rate(record):
        record["settings"]["training"]["optimizer"]["learning_rate"] = 0.004

    edit_json(path, other_rate)
    with pytest.raises(DamagedRecord, match=r"learning_rate: 0.004, but manifest.json says 0.001"):
        load_run(run.folder)


def test_a_trial_of_another_budget_is_refused(searched):
    with pytest.raises(DamagedRecord, match=r"settings.training.budget"):
        searched(budget={"tokens": None, "epochs": None, "steps": 5})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["settings"].append(t["settings"][0]), "two settings have one name"),
        (lambda t: t["settings"][0].update(values={"x": 1.0}), "do not search the same keys"),
        (lambda t: t["plans"][0].update(settings=["other"]), "plans name a setting"),
        (lambda t: t.update(seeds=[]), "tuning.seeds"),
        (lambda t: t["settings"][0].update(name="../.."), "the name"),
    ],
)
def test_a_damaged_record_of_a_search_is_refused(searched, change, message):
    run = searched()

    def damage(manifest):
        change(manifest["tuning"])
        if message == "the name":
            manifest["tuning"]["plans"][0]["settings"][0] = "../.."

    edit_json(run.folder / "manifest.json", damage)
    with pytest.raises(DamagedRecord, match=message):
        load_run(run.folder)
