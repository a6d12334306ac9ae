"""The search of `tune:` from its plan to the cells that its trials lead to, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.small_experiments import ARMS, BASE, V, prepared_data
from tests.experiments.test_plan import leave_result, opened, planned
from tyro_cli.analysis.formats import Manifest
from tyro_cli.config.schema import Settings
from tyro_cli.errors import ConfigurationError, DamagedRecord, RunFolderError, UsageError
from tyro_cli.experiments import run, search
from tyro_cli.experiments.identity import cell_id
from tyro_cli.experiments.launchers.local import LocalLauncher
from tyro_cli.experiments.plan import Plan
from tyro_cli.experiments.run import Start
from tyro_cli.experiments.run_folder import check_run_folder
from tyro_cli.experiments.search import cells_at_best, most_to_come, open_cells
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.training.world import World

RATE = "training.optimizer.learning_rate"
HEAD = "training.optimizer.roles.head.rate"
SEARCH = ARMS + f"tune:\n  grid: {{{RATE}: [1e-3, 2e-3, 4e-3]}}\n  seeds: [100, 101]\n"
SHARED = SEARCH + "  shared: baseline-best\n"


def opened_search(folder: Path, written: str = SEARCH, **asked: Any) -> Plan:
    plan = planned(folder, written, **asked)
    opened(plan, prepared_data(folder))
    return plan


def tuning(plan: Plan) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((plan.run_folder / "manifest.json").read_text())["tuning"]
    return record


class Found:
    """What trials say, without trials."""

    def __init__(self, plan: Plan, shared: str, best: dict[str, str | None]) -> None:
        self.record = Manifest.model_validate(
            json.loads((plan.run_folder / "manifest.json").read_text())
        ).tuning
        self.shared, self.best = shared, best


@pytest.fixture
def found(monkeypatch):
    def say(plan: Plan, shared: str = "own", **best: str | None) -> None:
        monkeypatch.setattr(
            search, "read_search", lambda folder, manifest: Found(plan, shared, best)
        )

    return say


# The trials.


def test_processes_that_cannot_share_a_batch_are_refused_though_no_cell_is_known_yet(tmp_path):
    plan = planned(tmp_path, SHARED)
    assert not plan.cells
    ledgers = {name: ledger_of(arm.settings, V) for name, arm in plan.arms.items()}
    start = Start(prepared_data(tmp_path), "cpu", plan, ledgers)
    trials = list(plan.trials)
    with pytest.raises(ConfigurationError, match="3 processes cannot share a batch"):
        run._choose_workers(start, trials, None, World(size=3), LocalLauncher())
    assert run._choose_workers(start, trials, None, World(size=2), LocalLauncher()) == 1


def test_every_arm_has_the_same_trials_at_the_seeds_of_the_search(tmp_path):
    plan = planned(tmp_path, SEARCH)
    names = [setting.name for setting in plan.settings]
    tried = {
        arm: [(c.seed, c.folder.parent.name) for c in plan.trials if c.arm == arm]
        for arm in ("untied", "tied")
    }
    assert tried["untied"] == tried["tied"] == [(s, n) for s in (100, 101) for n in names]
    assert all(cell.is_trial for cell in plan.trials)
    trial = plan.trials[0]
    assert trial.folder == plan.run_folder / "trials" / "untied" / names[0] / "seed-100"
    assert trial.name() == "trial 0.001/untied/seed-100"
    assert trial.name("512") == "512,trial 0.001/untied/seed-100"
    assert len({cell.name() for cell in (*plan.trials, *plan.cells)}) == 12 + 4


def test_a_search_leaves_the_run_and_the_cells_of_the_contrast_what_they_are(tmp_path):
    plan, without = planned(tmp_path, SEARCH), planned(tmp_path)
    assert (plan.run_id, plan.cells) == (without.run_id, without.cells)
    assert without.trials == without.settings == ()


def test_a_trial_is_identified_by_what_it_trains(tmp_path):
    plan = planned(tmp_path, SEARCH)
    settings = plan.arms["tied"].settings.model_dump(mode="json")
    settings["training"]["optimizer"]["learning_rate"] = 4e-3
    wanted = cell_id(Settings.model_validate(settings), 101, plan.content_sha256, plan.precision)
    assert plan.trials[-1].cell_id == wanted
    assert plan.trials[-1].values == {RATE: 4e-3}
    own = next(c for c in plan.trials if c.folder.parent.name == "own" and c.arm == "tied")
    assert own.cell_id == cell_id(plan.arms["tied"].settings, 100, "a" * 64, "fp32")


def test_trials_may_have_a_budget_of_their_own(tmp_path):
    plan = planned(tmp_path, SEARCH + "  budget: {epochs: 2}\n")
    assert {cell.total_steps for cell in plan.trials} == {24}
    assert {cell.total_steps for cell in plan.cells} == {4}
    budget = {"tokens": None, "epochs": 2.0, "steps": None}
    assert plan.trials[0].values == {RATE: 1e-3, "training.budget": budget}
    assert plan.trials[0].cell_id != planned(tmp_path, SEARCH).trials[0].cell_id


def test_only_the_arms_asked_for_are_tried(tmp_path):
    assert {c.arm for c in planned(tmp_path, SEARCH, arms=("tied",)).trials} == {"tied"}


def test_where_all_share_the_baselines_best_no_cell_is_known_before_the_trials(tmp_path):
    assert planned(tmp_path, SHARED).cells == ()


def test_seeds_of_the_command_line_that_are_seeds_of_trials_are_refused(tmp_path):
    with pytest.raises(UsageError, match="seeds: 100 is a seed of the contrasts too"):
        planned(tmp_path, SEARCH, seeds=(0, 100))


def test_arms_without_the_baseline_cannot_share_its_best(tmp_path):
    with pytest.raises(UsageError, match="--arms: leaves out untied") as caught:
        planned(tmp_path, SHARED, arms=("tied",))
    assert caught.value.remedy == "add untied to --arms"


# The record.


def test_the_manifest_records_the_search_and_validates(tmp_path):
    plan = opened_search(tmp_path, SEARCH + "  budget: {steps: 2}\n")
    record = tuning(plan)
    assert [one["values"] for one in record["settings"]] == [
        {RATE: rate} for rate in (1e-3, 2e-3, 4e-3)
    ]
    assert (record["seeds"], record["shared"]) == ([100, 101], "own")
    assert record["budget"] == {"tokens": None, "epochs": None, "steps": 2}
    assert [one["after_results"] for one in record["plans"]] == [False]
    Manifest.model_validate(json.loads((plan.run_folder / "manifest.json").read_text()))


def test_opening_it_again_changes_nothing_and_without_tune_it_stays(tmp_path):
    plan = opened_search(tmp_path)
    first = tuning(plan)
    opened_search(tmp_path)
    assert tuning(plan) == first
    opened_search(tmp_path, ARMS)
    assert tuning(plan) == first


def test_a_run_without_a_search_records_none(tmp_path):
    plan = opened_search(tmp_path, ARMS)
    assert "tuning" not in json.loads((plan.run_folder / "manifest.json").read_text())


def test_an_extended_grid_is_recorded_with_whether_results_were_there(tmp_path):
    plan = opened_search(tmp_path)
    opened_search(tmp_path, SEARCH.replace("4e-3]", "4e-3, 8e-3]"))
    assert [one["after_results"] for one in tuning(plan)["plans"]] == [False, False]
    leave_result(plan, "untied", 0)
    more = SEARCH.replace("4e-3]", "4e-3, 8e-3]").replace("101]", "101, 102]")
    opened_search(tmp_path, more)
    plans = tuning(plan)["plans"]
    assert [one["after_results"] for one in plans] == [False, False, True]
    assert [len(one["settings"]) for one in plans] == [3, 4, 4]
    assert plans[-1]["seeds"] == [100, 101, 102]


def test_results_at_an_arms_best_are_results(tmp_path):
    plan = opened_search(tmp_path, SHARED)
    folder = plan.run_folder / "tuned" / "tied" / plan.settings[0].name / "seed-0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    opened_search(tmp_path, SHARED.replace("4e-3]", "4e-3, 8e-3]"))
    assert [one["after_results"] for one in tuning(plan)["plans"]] == [False, True]


def test_another_shared_setting_is_a_change_of_the_search(tmp_path):
    plan = opened_search(tmp_path)
    leave_result(plan, "untied", 0)
    opened_search(tmp_path, SHARED)
    assert [one["shared"] for one in tuning(plan)["plans"]] == ["own", "baseline-best"]
    assert tuning(plan)["plans"][1]["after_results"] is True


def test_a_key_that_is_added_keeps_the_old_trials_where_it_has_its_own_value(tmp_path):
    plan = opened_search(tmp_path)
    more = planned(tmp_path, SEARCH.replace("4e-3]", f"4e-3], {HEAD}: [1, 2]"))
    assert check_run_folder(more, prepared_data(tmp_path)) is not None
    before = {cell.folder: cell.cell_id for cell in plan.trials}
    after = {cell.folder: cell.cell_id for cell in more.trials}
    assert {folder: after[folder] for folder in before} == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1e-3, ", "", "with trials that tune: leaves out now: learning_rate 0.001"),
        ("[100, 101]", "[100]", "at seeds that tune: leaves out now: 101"),
        ("[100, 101]", "[100, 101]\n  budget: {steps: 2}", "that of every cell then, steps 2 now"),
    ],
)
def test_a_search_that_takes_trials_back_is_refused(tmp_path, old, new, message):
    opened_search(tmp_path)
    plan = planned(tmp_path, SEARCH.replace(old, new))
    with pytest.raises(RunFolderError, match=message) as caught:
        check_run_folder(plan, prepared_data(tmp_path))
    assert "--fresh" in caught.value.remedy


def test_a_seed_that_was_a_contrasts_cannot_become_a_trials_nor_the_other_way(tmp_path):
    opened_search(tmp_path, ARMS)
    data = prepared_data(tmp_path)
    late = planned(tmp_path, SEARCH.replace("[0, 1]", "[0]").replace("[100, 101]", "[1, 101]"))
    with pytest.raises(RunFolderError, match="1 is a seed of the contrasts too"):
        check_run_folder(late, data)
    opened_search(tmp_path)
    with pytest.raises(RunFolderError, match="101 is a seed of the contrasts too"):
        check_run_folder(planned(tmp_path, seeds=(101,)), data)


@pytest.mark.parametrize("kind", ["trials", "tuned"])
def test_an_arm_with_cells_of_a_search_cannot_be_redefined(tmp_path, kind):
    plan = opened_search(tmp_path)
    (plan.run_folder / kind / "tied" / plan.settings[0].name / "seed-100").mkdir(parents=True)
    changed = SEARCH.replace("in-out}", "in-out, tied_role: embedding}")
    changed = changed.replace(
        "seeds: [0, 1]", "allow_differences: [model.tied_role]\nseeds: [0, 1]"
    )
    with pytest.raises(RunFolderError, match="the arm 'tied' has cells"):
        check_run_folder(planned(tmp_path, changed), prepared_data(tmp_path))


# What the trials lead to.


def test_there_is_nothing_at_a_best_before_there_is_a_folder_or_a_result(tmp_path):
    assert cells_at_best(planned(tmp_path, SEARCH)) == ()
    assert cells_at_best(opened_search(tmp_path)) == ()
    assert open_cells(planned(tmp_path)) == planned(tmp_path).cells


def test_an_arms_best_is_trained_once_and_a_shared_cell_is_not_trained_again(tmp_path, found):
    plan = opened_search(tmp_path)
    found(plan, untied=plan.settings[2].name, tied="own")
    at_best = cells_at_best(plan)
    assert [(c.arm, c.seed, c.values) for c in at_best if c.values] == [
        ("untied", seed, {RATE: 4e-3}) for seed in (0, 1)
    ]
    assert {c for c in at_best if not c.values} == {c for c in plan.cells if c.arm == "tied"}
    assert len(open_cells(plan)) == len(plan.trials) + len(plan.cells) + 2
    tuned = at_best[0]
    assert tuned.folder == plan.run_folder / "tuned/untied" / plan.settings[2].name / "seed-0"
    assert (tuned.name(), tuned.total_steps) == ("at 0.004/untied/seed-0", 4)


def test_at_the_baselines_best_each_at_its_best_costs_only_the_other_arms(tmp_path, found):
    plan = opened_search(tmp_path, SHARED)
    best, other = plan.settings[2].name, plan.settings[0].name
    found(plan, best, untied=best, tied=other)
    folders = {c.folder.relative_to(plan.run_folder).as_posix() for c in cells_at_best(plan)}
    assert folders == {
        f"tuned/{place}/seed-{seed}"
        for place in (f"untied/{best}", f"tied/{best}", f"tied/{other}")
        for seed in (0, 1)
    }
    found(plan, best, untied=best, tied=best)
    assert len(open_cells(plan)) == len(plan.trials) + 4


def test_an_arm_without_a_best_leads_nowhere(tmp_path, found):
    plan = opened_search(tmp_path)
    found(plan, untied=plan.settings[0].name, tied=None)
    assert {c.arm for c in cells_at_best(plan)} == {"untied"}


def test_while_a_grid_is_extended_the_old_best_leads_nowhere(tmp_path, found):
    plan = opened_search(tmp_path)
    found(plan, untied=plan.settings[0].name, tied="own")
    assert cells_at_best(planned(tmp_path, SEARCH.replace("4e-3]", "4e-3, 8e-3]"))) == ()


def test_a_damaged_trial_is_trained_again_before_it_decides(tmp_path, monkeypatch):
    plan = opened_search(tmp_path)

    def damaged(folder, manifest):
        raise DamagedRecord("half a file", "")

    monkeypatch.setattr(search, "read_search", damaged)
    assert cells_at_best(plan) == ()


def test_what_may_come_of_missing_trials_is_counted_at_most(tmp_path):
    plan = planned(tmp_path, SEARCH)
    assert len(most_to_come(plan, plan.trials[:1])) == 4
    assert most_to_come(plan, plan.cells) == ()
    shared = planned(tmp_path, SHARED)
    assert len(most_to_come(shared, shared.trials)) == 6


def test_base_is_the_shared_setting_of_these_tests():
    assert "learning_rate: 2e-3" in BASE
