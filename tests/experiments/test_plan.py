"""The plan of cells, and run folders that are created, extended and refused."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.experiments.small_experiments import ARMS, BASE, V, load, prepared_data
from tests.folders import snapshot
from tyro_cli.analysis.formats import Manifest
from tyro_cli.config.schema import Settings
from tyro_cli.data.prepared import PreparedData
from tyro_cli.errors import (
    ConfigurationError,
    DamagedRecord,
    DataError,
    RunFolderError,
    UsageError,
)
from tyro_cli.experiments.plan import Plan, plan_experiment, planned_steps
from tyro_cli.experiments.run_folder import check_run_folder, open_run_folder
from tyro_cli.ledger.ledger import ledger_of

ENVIRONMENT = {
    "versions": {"torch": "2.13.0"},
    "hardware": {"cores": 2},
    "git": {"commit": None},
    "command": ["wtie", "train"],
    "created": "2024-01-01T00:00:00+00:00",
}


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    return prepared_data(tmp_path)


def planned(
    folder: Path, written: str = ARMS, *overrides: str, base: str = BASE, **asked: Any
) -> Plan:
    return plan_experiment(
        load(folder, written, *overrides, base=base),
        asked.pop("data", None) or prepared_data(folder),
        precision="fp32",
        runs_root=folder / "runs",
        **asked,
    )


def opened(plan: Plan, data: PreparedData, **changes: Any) -> dict[str, Any]:
    ledgers = {name: ledger_of(arm.settings, V) for name, arm in plan.arms.items()}
    return open_run_folder(
        plan,
        prepared=data,
        ledgers=ledgers,
        **{
            "threads": 1,
            "device": "cpu",
            "environment": ENVIRONMENT,
            **changes,
        },
    )


def leave_result(plan: Plan, arm: str, seed: int) -> None:
    folder = plan.run_folder / arm / f"seed-{seed}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")


# The plan.


def test_the_cells_are_arms_by_seeds_pairs_together(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert [(cell.arm, cell.seed) for cell in plan.cells] == [
        ("untied", 0),
        ("tied", 0),
        ("untied", 1),
        ("tied", 1),
    ]
    assert plan.run_folder == tmp_path / "runs" / f"small-{plan.run_id[:8]}"
    assert plan.cells[3].folder == plan.run_folder / "tied" / "seed-1"
    assert len({cell.cell_id for cell in plan.cells}) == 4
    assert plan.total_steps == {"untied": 4, "tied": 4}
    assert plan.differences["tied"] == {"model.tying": ["none", "in-out"]}


def test_planning_writes_nothing(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    assert check_run_folder(plan, data) is None
    assert not (tmp_path / "runs").exists()


def test_seeds_and_arms_can_be_chosen_and_the_baseline_left_out(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds=(7, 3), arms=("tied",))
    assert [(cell.arm, cell.seed) for cell in plan.cells] == [("tied", 7), ("tied", 3)]
    assert list(plan.arms) == ["untied", "tied"]
    assert plan.cells[0].cell_id == planned(tmp_path, seeds=(7,)).cells[1].cell_id


def test_an_arm_named_twice_is_planned_once_in_the_files_order(tmp_path: Path) -> None:
    assert planned(tmp_path, arms=("tied", "untied", "tied")).selected_arms == ("untied", "tied")


def test_an_unknown_arm_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        planned(tmp_path, arms=("tide",))
    assert caught.value.message == "--arms: there is no arm 'tide'; did you mean 'tied'?"
    assert caught.value.remedy == "the arms are: untied, tied"


@pytest.mark.parametrize(
    "asked", [{"arms": ()}, {"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)}]
)
def test_an_empty_or_impossible_choice_is_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        planned(tmp_path, **asked)


def test_a_match_is_solved_into_the_settings_the_differences_and_the_record(tmp_path: Path) -> None:
    arms = ARMS.replace(
        "baseline",
        "  wide: {model: {tying: in-out}, match: {parameters_of: untied, by: d_ff}}\nbaseline",
    )
    plan = planned(tmp_path, arms)
    assert plan.arms["wide"].settings.model.d_ff == 58
    assert plan.differences["wide"]["model.d_ff"] == [48, 58]
    assert plan.matches["wide"] is not None and plan.matches["wide"]["difference"] == -16
    assert plan.matches["tied"] is None
    assert len({cell.cell_id for cell in plan.cells if cell.seed == 0}) == 3


def test_a_match_without_a_solution_points_at_the_arm(tmp_path: Path) -> None:
    arms = ARMS.replace(
        "baseline", "  thin: {match: {parameters_of: tied, by: num_layers}}\nbaseline"
    )
    base = BASE.replace("num_layers: 2", "num_layers: 0")
    with pytest.raises(ConfigurationError) as caught:
        planned(tmp_path, arms, base=base)
    assert "experiment.yaml:15:" in caught.value.message
    assert "arms.thin.match: there is no num_layers that gives the 992 parameters" in (
        caught.value.message
    )
    assert caught.value.remedy


def test_an_undeclared_difference_is_refused_before_anything_is_planned(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"differ in model\.num_heads"):
        planned(tmp_path, ARMS.replace("tying: in-out", "num_heads: 2"))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "train_fraction", "0.5"),
        ("training", "batch_tokens", "64"),
        ("training", "micro_batch_tokens", "8"),
        ("training", "precision", "bf16"),
        ("training", "deterministic", "false"),
        ("training", "compile", "true"),
        ("model", "embedding_std", "0.01"),
    ],
)
def test_arms_that_could_never_be_a_pair_are_refused(
    tmp_path: Path, section: str, key: str, value: str
) -> None:
    arms = ARMS.replace("{model: {tying: in-out}}", f"{{{section}: {{{key}: {value}}}}}")
    with pytest.raises(ConfigurationError, match=rf"arms\.tied\.{section}\.{key}: arms share it"):
        planned(tmp_path, f"{arms}allow_differences: [{section}.{key}]\n")


def test_a_corpus_smaller_than_one_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        planned(tmp_path, data=prepared_data(tmp_path, num_tokens=38))
    assert "38 tokens" in caught.value.message
    # 40 tokens hold 4 windows of 8 behind any offset: exactly one batch.
    assert planned(tmp_path, data=prepared_data(tmp_path, num_tokens=40)).cells


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"steps": 7}, 7),
        ({"tokens": 1000}, 31),
        ({"tokens": 1024}, 32),
        ({"tokens": 1}, 1),
        ({"epochs": 1}, 25),
        ({"epochs": 2.5}, 62),
        ({"epochs": 0.01}, 1),
        # In binary floating point 1.16 * 100 falls below 116.
        ({"epochs": 1.16}, 29),
    ],
)
def test_the_budget_in_steps(budget: dict[str, Any], steps: int) -> None:
    record = yaml.safe_load(BASE.replace("2e-3", "0.002"))
    record["training"]["budget"] = budget
    settings = Settings.model_validate({key: record[key] for key in record if key != "name"})
    batch_tokens = settings.training.batch_tokens
    epoch = Fraction(100 * settings.data.context_length, batch_tokens)
    assert planned_steps(settings.training.budget, epoch, Fraction(batch_tokens)) == steps


def test_the_run_folder_may_not_be_a_link(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    plan.run_folder.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    plan.run_folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="symbolic link"):
        planned(tmp_path)


# The run folder.


def test_a_new_run_folder_holds_text_settings_tokenizer_and_manifest(
    tmp_path: Path, data: PreparedData
) -> None:
    plan = planned(tmp_path)
    manifest = opened(plan, data)
    folder = plan.run_folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "experiment.yaml",
        "manifest.json",
        "resolved.yaml",
        "tokenizer.json",
    ]
    assert (folder / "experiment.yaml").read_text() == BASE + ARMS
    assert (folder / "tokenizer.json").read_bytes() == data.tokenizer_path.read_bytes()
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    read = Manifest.model_validate(manifest)
    assert read.arms["tied"].ledger.total == read.arms["untied"].ledger.total - V * 16
    assert (read.baseline, read.margin, read.vocab_size) == ("untied", 0.01, V)
    assert manifest["plans"] == [
        {"seeds": [0, 1], "arms": ["untied", "tied"], "after_results": False}
    ]
    assert manifest["versions"] == {"torch": "2.13.0"}
    assert (manifest["threads"], manifest["device"], manifest["precision"]) == (1, "cpu", "fp32")
    resolved = yaml.safe_load((folder / "resolved.yaml").read_text())
    assert resolved["run_id"] == plan.run_id
    assert resolved["experiment"]["training"]["schedule"]["warmup_fraction"] == 0.05
    assert Settings.model_validate(resolved["arms"]["tied"]) == plan.arms["tied"].settings


def test_the_same_again_writes_nothing(tmp_path: Path, data: PreparedData) -> None:
    first = opened(planned(tmp_path), data)
    before = snapshot(tmp_path / "runs")
    later = ENVIRONMENT | {"created": "2025-01-01T00:00:00+00:00", "command": ["other"]}
    assert opened(planned(tmp_path), data, environment=later, threads=2) == first
    assert opened(planned(tmp_path, seeds=(1,), arms=("tied",)), data) == first
    assert snapshot(tmp_path / "runs") == before


def test_more_seeds_extend_the_run(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    opened(plan, data)
    later = ENVIRONMENT | {"command": ["later"]}
    manifest = opened(planned(tmp_path, seeds=(0, 1, 2)), data, environment=later)
    assert [one["seeds"] for one in manifest["plans"]] == [[0, 1], [0, 1, 2]]
    assert manifest["plans"][1]["after_results"] is False
    assert manifest["plans"][1]["environment"]["command"] == ["later"]
    assert manifest["command"] == ["wtie", "train"]
    leave_result(plan, "untied", 0)
    manifest = opened(planned(tmp_path, seeds=(3,)), data)
    assert manifest["plans"][2]["after_results"] is True
    assert Manifest.model_validate(check_run_folder(plan, data))


def test_cells_to_come_measure_what_the_extension_asks_for(
    tmp_path: Path, data: PreparedData
) -> None:
    def recorded(*overrides: str) -> list[Any]:
        plan = planned(tmp_path, ARMS, *overrides, seeds=(0, 1, 2))
        arms = opened(plan, data)["arms"].values()
        return [one["settings"]["evaluation"].get("role_gradients_every_steps") for one in arms]

    opened(planned(tmp_path), data)
    assert recorded("evaluation.role_gradients_every_steps=2") == [2, 2]
    assert recorded() == [None, None]


def test_what_a_crash_left_unfinished_of_a_run_is_cleared(
    tmp_path: Path, data: PreparedData
) -> None:
    plan = planned(tmp_path)
    folder = plan.run_folder
    folder.parent.mkdir()
    removed = folder.parent / f".{folder.name}.tmp-0123abcd"
    others = folder.parent / f".{folder.name}0.tmp-0123abcd"
    for path in (removed, others):
        path.mkdir()
        (path / "checkpoint").write_text("half removed")
    opened(plan, data)
    assert not removed.exists() and others.exists()


def test_another_arm_extends_the_run_and_the_older_text_is_kept(
    tmp_path: Path, data: PreparedData
) -> None:
    first = planned(tmp_path)
    opened(first, data)
    leave_result(first, "tied", 0)
    arms = ARMS.replace("arms:\n", "arms:\n  new: {model: {tied_role: embedding}}\n")
    arms += "allow_differences: [model.tied_role]\n"
    second = planned(tmp_path, arms)
    assert second.run_folder == first.run_folder
    manifest = opened(second, data)
    assert {name: one["order"] for name, one in manifest["arms"].items()} == {
        "new": 0,
        "untied": 1,
        "tied": 2,
    }
    assert (first.run_folder / "experiment.yaml").read_text() == BASE + arms
    assert (first.run_folder / "experiment.yaml.old-1").read_text() == BASE + ARMS
    assert set(yaml.safe_load((first.run_folder / "resolved.yaml").read_text())["arms"]) == {
        "new",
        "untied",
        "tied",
    }


def test_an_arm_that_left_the_file_stays_in_the_manifest(
    tmp_path: Path, data: PreparedData
) -> None:
    opened(planned(tmp_path), data)
    alone = "arms:\n  tied: {model: {tying: in-out}}\nbaseline: tied\nseeds: [0]\n"
    manifest = opened(planned(tmp_path, alone), data)
    assert {name: one["order"] for name, one in manifest["arms"].items()} == {
        "tied": 0,
        "untied": 1,
    }
    assert manifest["baseline"] == "tied"
    assert len(manifest["plans"]) == 1


REDEFINED = ARMS.replace("tying: in-out", "tying: in-out, tied_role: embedding") + (
    "allow_differences: [model.tied_role]\n"
)


def test_an_arm_redefined_while_it_has_cells_is_refused_and_nothing_changes(
    tmp_path: Path, data: PreparedData
) -> None:
    plan = planned(tmp_path)
    opened(plan, data)
    leave_result(plan, "tied", 0)
    before = snapshot(tmp_path / "runs")
    with pytest.raises(RunFolderError) as caught:
        opened(planned(tmp_path, REDEFINED), data)
    assert "the arm 'tied' has cells" in caught.value.message
    assert "model.tied_role head then, embedding now" in caught.value.message
    assert "new name" in caught.value.remedy and "--fresh" in caught.value.remedy
    assert caught.value.exit_code == 2
    assert snapshot(tmp_path / "runs") == before


def test_an_arm_redefined_before_it_has_cells_is_taken(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    opened(plan, data)
    leave_result(plan, "untied", 0)
    manifest = opened(planned(tmp_path, REDEFINED), data)
    assert manifest["arms"]["tied"]["settings"]["model"]["tied_role"] == "embedding"


def test_the_same_data_elsewhere_is_the_same_run(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    first = opened(plan, data)
    leave_result(plan, "tied", 0)
    moved = planned(tmp_path, ARMS, "data.corpus=somewhere/else")
    assert moved.run_folder == plan.run_folder
    assert opened(moved, data)["arms"] == first["arms"]


def test_changed_data_at_the_same_path_is_another_run(tmp_path: Path) -> None:
    first = planned(tmp_path)
    second = planned(tmp_path, data=prepared_data(tmp_path, text="b"))
    assert first.run_folder != second.run_folder


def test_the_same_text_with_other_tokens_is_refused(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    opened(plan, data)
    path = plan.run_folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["data"]["tokenizer_sha256"] = "f" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(RunFolderError, match="tokenizer"):
        opened(plan, data)


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(
    tmp_path: Path, data: PreparedData
) -> None:
    plan = planned(tmp_path)
    plan.run_folder.mkdir(parents=True)
    (plan.run_folder / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"no manifest\.json") as caught:
        opened(plan, data)
    assert "--fresh" in caught.value.remedy
    assert [path.name for path in plan.run_folder.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_taken(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    plan.run_folder.mkdir(parents=True)
    opened(plan, data)
    assert (plan.run_folder / "manifest.json").is_file()
    assert [path.name for path in plan.run_folder.parent.iterdir()] == [plan.run_folder.name]


def test_a_file_in_the_way_is_refused(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    plan.run_folder.parent.mkdir()
    plan.run_folder.write_text("mine")
    with pytest.raises(RunFolderError, match="not a folder"):
        opened(plan, data)
    assert plan.run_folder.read_text() == "mine"


def test_another_run_under_the_same_name_is_refused(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    opened(plan, data)
    path = plan.run_folder / "manifest.json"
    path.write_text(path.read_text().replace(plan.run_id, "0" * 64))
    with pytest.raises(RunFolderError, match="holds another run"):
        opened(plan, data)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "[" * 1000, '{"format": 2}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, data: PreparedData, text: str) -> None:
    plan = planned(tmp_path)
    opened(plan, data)
    (plan.run_folder / "manifest.json").write_text(text)
    with pytest.raises(DamagedRecord, match=r"manifest\.json"):
        opened(plan, data)


def test_fresh_moves_the_folder_aside_and_deletes_nothing(
    tmp_path: Path, data: PreparedData
) -> None:
    plan = planned(tmp_path)
    opened(plan, data)
    leave_result(plan, "tied", 0)
    before = snapshot(plan.run_folder)
    opened(planned(tmp_path, REDEFINED), data, fresh=True)
    assert snapshot(plan.run_folder.with_name(f"{plan.run_folder.name}.old-1")) == before
    assert not (plan.run_folder / "tied").exists()
    opened(planned(tmp_path), data, fresh=True)
    assert plan.run_folder.with_name(f"{plan.run_folder.name}.old-2").is_dir()


def test_fresh_without_a_folder_is_a_first_start(tmp_path: Path, data: PreparedData) -> None:
    opened(planned(tmp_path), data, fresh=True)
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_tokenizer_that_was_lost_is_written_again(tmp_path: Path, data: PreparedData) -> None:
    plan = planned(tmp_path)
    opened(plan, data)
    (plan.run_folder / "tokenizer.json").unlink()
    opened(plan, data)
    assert (plan.run_folder / "tokenizer.json").is_file()
