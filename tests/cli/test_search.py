"""A search from the command line, its cells trained in this process by the real worker."""

import json
import shutil

import pytest

from tests.analysis.fake_runs import edit_json
from tests.end_to_end.workplace import results
from tests.faults.cells import SmallRun, deterministic
from tyro_cli.errors import CellFailed
from tyro_cli.experiments.launchers import local
from tyro_cli.experiments.launchers.local import CellFailure
from tyro_cli.experiments.worker import run_cell
from tyro_cli.storage.locks import owned

RATE = "training.optimizer.learning_rate"
GRID = f"tune={{grid: {{{RATE}: [3e-3, 3e-2]}}, seeds: [100], budget: {{steps: 4}}}}"
WORDS = ("--threads", "1", "--workers", "1")


def flat(text):
    """Undo the wrapping of lines."""
    return " ".join(text.split())


def diverge(record):
    record.update(
        status="diverged",
        diverged={"step": 2, "batch_sha256": "0" * 64, "what": "loss is nan"},
        evaluations=None,
    )


class Here:
    """Trains cells in this process, in place of the local launcher."""

    def __init__(self):
        self.batches = []
        self.failing = ""

    def __call__(self, specs, num_workers, observe, stop, *, fail_fast=False):
        self.batches.append([spec.name for spec in specs])
        failures = []
        for spec in specs:
            if self.failing and self.failing in spec.name:
                failures.append(CellFailure(spec.name, "no", "", CellFailed.exit_code))
                continue
            with deterministic():
                run_cell(spec, lambda event: None, lambda: None)
        return failures


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return SmallRun(tmp_path_factory.mktemp("search"), steps=8, every=4, seeds=(0,))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the module's trained run is kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def here(monkeypatch, small):
    launcher = Here()
    monkeypatch.setattr(local, "run_locally", launcher)
    monkeypatch.setenv("WTIE_CACHE", str(small.config.parent / "cache"))
    return launcher


@pytest.fixture
def train(wtie, small, here, tmp_path):
    def command(*words, out=tmp_path / "runs"):
        return wtie("train", "--config", small.config, *words, "--out", out, *WORDS)

    return command


@pytest.fixture
def trained(train, kept, here, tmp_path):
    """A run with a search, trained once for all tests: a copy of its own for each."""
    if not any(kept.iterdir()):
        assert train(GRID, "--json", out=kept).exit_code == 0
        (kept / "batches").write_text(json.dumps(here.batches))
    here.batches = json.loads((kept / "batches").read_text())
    (folder,) = [path for path in kept.iterdir() if path.is_dir()]
    return shutil.copytree(folder, tmp_path / "runs" / folder.name)


def test_trials_and_shared_cells_come_first_then_each_arm_at_its_best(trained, here):
    first, second = here.batches
    assert first == [
        *(
            f"trial {rate}/{arm}/seed-100"
            for rate in ("0.003", "0.03")
            for arm in ("untied", "tied")
        ),
        "untied/seed-0",
        "tied/seed-0",
    ]
    assert second == ["at 0.03/untied/seed-0", "at 0.03/tied/seed-0"]
    assert len(results(trained)) == 8
    record = json.loads(next(trained.glob("tuned/tied/*/seed-0/result.json")).read_text())
    assert (record["arm"], record["training"]["learning_rate"]) == ("tied", 0.03)
    assert record["training"]["steps"] == 8
    trial = json.loads(next(trained.glob("trials/tied/*/seed-100/result.json")).read_text())
    assert trial["training"]["steps"] == 4


def test_the_tables_show_trials_both_contrasts_and_the_sign(trained, train, here):
    again = train(GRID)
    assert again.exit_code == 0
    assert "all 8 cells were trained before; nothing to do" in again.stderr
    for text in (
        "Trials of faults",
        "Contrasts of faults against untied, at the shared setting",
        "Contrasts of faults against untied, each arm at its best",
        "On the edge of the grid: 0.03 is the highest",
        "each at its best: rate 0.03 for both",
        "each arm at its best: one pair: no interval over seeds; the sign ",
    ):
        assert text in flat(again.stdout), text
    names = {path.name for path in (trained / "tables").iterdir()}
    assert {f"{n}.{k}" for n in ("trials", "tuned") for k in ("md", "csv", "json", "tex")} <= names


def test_json_has_the_verdict_at_each_arms_best(trained, wtie):
    record = json.loads(wtie("compare", trained, "--json").stdout)
    tuned = record["each_at_its_best"]["tied"]
    assert tuned["verdict"]["kind"] == "one-pair"
    assert tuned["sign_survives"] in (True, False)
    assert tuned["sentence"] in record["tables"]["tuned"]["notes"][0]
    assert len(record["tables"]["trials"]["rows"]) == 4


@pytest.mark.parametrize("format_", ["md", "csv", "tex"])
@pytest.mark.parametrize("table", ["trials", "tuned"])
def test_each_table_in_each_format(trained, wtie, table, format_):
    shown = wtie("compare", trained, "--table", table, "--format", format_)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "tied" in shown.stdout


def test_show_ls_and_verify_know_the_search(trained, wtie):
    shown = wtie("runs", "show", trained).stdout
    assert "search: 2 settings for each arm, seeds 100, shared setting: own" in shown
    assert "trials of tied: 2 done; best at learning_rate 0.03" in shown
    verified = wtie("runs", "verify", trained)
    assert "8 cells (8 done), 16 checkpoints, 4 pairs: all is well" in verified.stdout
    (row,) = json.loads(wtie("runs", "ls", "--out", trained.parent, "--json").stdout)
    assert row["state"] == "done"


@pytest.mark.parametrize("kind", ["trials", "tuned"])
def test_verify_names_a_damaged_cell_of_the_search(trained, wtie, kind):
    path = sorted(trained.glob(f"{kind}/tied/*/seed-*/result.json"))[0]
    path.write_text(path.read_text() + "\n")
    found = wtie("runs", "verify", trained)
    assert found.exit_code == 1
    place = path.relative_to(trained).as_posix()
    assert f"{place}: has changed: it is not the text that was written" in found.stdout


@pytest.mark.parametrize("kind", ["trials", "tuned"])
def test_a_cell_of_the_search_that_is_missing_is_said_and_trained_again(
    trained, wtie, train, here, kind
):
    folder = sorted(trained.glob(f"{kind}/tied/*/seed-*"))[0]
    before = results(trained)
    shutil.rmtree(folder)
    said = wtie("compare", trained)
    assert "warning: 1 of " in said.stderr
    assert ("tied seed 100, trial of" if kind == "trials" else "(tied seed 0)") in said.stderr
    assert (
        json.loads(wtie("runs", "ls", "--out", trained.parent, "--json").stdout)[0]["state"]
        == "unfinished"
    )
    here.batches.clear()
    assert train(GRID).exit_code == 0
    assert sum(map(len, here.batches)) == 1
    after = results(trained)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {folder.relative_to(trained).joinpath("result.json").as_posix()}


def test_a_record_of_another_cell_is_kept_and_its_cell_trained_again(trained, train):
    mine, other = (trained / arm / "seed-0" / "result.json" for arm in ("tied", "untied"))
    before, foreign = mine.read_bytes(), other.read_bytes()
    mine.write_bytes(foreign)
    said = train(GRID)
    assert said.exit_code == 0
    assert "belongs to another cell; it is kept as result.json.old-1" in flat(said.stderr)
    assert mine.read_bytes() == before
    assert mine.with_name("result.json.old-1").read_bytes() == foreign


def test_a_higher_rate_in_the_grid_trains_only_what_it_adds(trained, train, here):
    here.batches.clear()
    shown = train(GRID.replace("3e-2]", "3e-2, 1e-1]"))
    assert shown.exit_code == 0
    first, second = here.batches
    assert first == ["trial 0.1/untied/seed-100", "trial 0.1/tied/seed-100"]
    assert set(second) <= {"at 0.1/untied/seed-0", "at 0.1/tied/seed-0"}
    assert "extended after looking" in shown.stdout
    assert "was learning_rate 0.03 before the search was changed." in flat(shown.stdout)


def test_the_grid_cannot_be_reduced_under_its_trials(trained, train):
    refused = train(GRID.replace("[3e-3, 3e-2]", "[3e-2, 1e-1]"))
    assert refused.exit_code == 2
    assert "tune: leaves out now: learning_rate 0.003" in refused.stderr


def test_a_trial_that_fails_leaves_the_arm_without_a_best_and_says_so(train, here, wtie):
    here.failing = "trial 0.03/tied"
    failed = train(GRID)
    assert failed.exit_code == 1
    assert "failed: trial 0.03/tied/seed-100: no" in failed.stderr
    assert here.batches[1:] == [["at 0.03/untied/seed-0"]]
    assert "1 of 2 trials of tied are unfinished" in failed.stdout
    here.failing = ""
    assert train(GRID).exit_code == 0
    assert here.batches[2:] == [["trial 0.03/tied/seed-100"], ["at 0.03/tied/seed-0"]]


def test_a_diverged_trial_is_no_failure_and_no_best(trained, train, here, wtie):
    path = next(trained.glob("trials/tied/*/seed-100/result.json"))
    rate = json.loads(path.read_text())["settings"]["training"]["optimizer"]["learning_rate"]

    edit_json(path, diverge)
    here.batches.clear()
    shown = train(GRID)
    assert shown.exit_code == 0
    assert "diverged" not in shown.stderr
    assert not any("trial" in name for batch in here.batches for name in batch)
    assert "1 of 2 trials of tied diverged" in flat(shown.stdout)
    other = 0.03 if rate == 0.003 else 0.003
    assert f"tied is best at learning_rate {other:g}." in flat(shown.stdout)


def test_a_cell_at_an_arms_best_that_diverged_is_a_failure(trained, train):
    edit_json(next(trained.glob("tuned/tied/*/seed-0/result.json")), diverge)
    shown = train(GRID)
    assert shown.exit_code == 1
    assert "diverged: tied seed 0" in shown.stderr
    assert "withheld: 1 of 1 pairs diverged" in flat(shown.stdout)


@pytest.mark.parametrize("kind", ["trials", "tuned"])
def test_a_run_is_not_removed_while_a_cell_of_its_search_is_in_use(trained, wtie, kind):
    with owned(next(trained.glob(f"{kind}/tied/*/seed-*")), "cell"):
        refused = wtie("runs", "rm", trained, "--yes")
    assert refused.exit_code != 0
    assert trained.exists()


def test_where_all_share_the_baselines_best_its_cells_serve_both_contrasts(
    train, here, wtie, tmp_path
):
    shared = GRID.replace("}}", "}, shared: baseline-best}")
    shown = train(shared)
    assert shown.exit_code == 0
    first, second = here.batches
    assert len(first) == 4
    assert second == ["at 0.03/untied/seed-0", "at 0.03/tied/seed-0"]
    assert "shared rate 0.03, the baseline's best" in flat(shown.stdout)
    assert "Both arms are best at the shared setting" in flat(shown.stdout)
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert not (folder / "untied").exists()
    assert "all is well" in wtie("runs", "verify", folder).stdout
    assert wtie("runs", "rm", folder, "--yes").exit_code == 0


def test_a_dry_run_counts_trials_and_what_may_follow(train, here, tmp_path):
    said = train(GRID, "--dry-run")
    assert "cells       6, 6 of them missing" in said.stdout
    assert "4 of the cells are trials; at most 2 more follow from them" in said.stdout
    record = json.loads(train(GRID, "--dry-run", "--json").stdout)
    assert (record["trials"], record["most_cells_to_come"]) == (4, 2)
    assert record["cells"][0]["setting"] == "trial 0.003"
    assert (here.batches, (tmp_path / "runs").exists()) == ([], False)


@pytest.fixture
def widths(small):
    """The command that sweeps a search over two widths."""
    study = small.config.with_name("study.yaml")
    study.write_text(
        f"name: widths\nexperiment: {small.config.name}\n"
        "factors:\n  width: {model.d_model: [8, 16]}\n"
    )
    return ("sweep", "--config", study, GRID, *WORDS)


def test_shards_of_a_search_are_whole_runs_and_merge_by_copying(widths, here, wtie, tmp_path):
    whole = json.loads(wtie(*widths, "--out", tmp_path / "whole", "--json").stdout)
    trained = []
    for number in (1, 2):
        part = tmp_path / f"part-{number}"
        shard = (*widths, "--out", part, "--shard", f"{number}/2")
        done = json.loads(wtie(*shard, "--json").stdout)
        trained.append(done["trained_cells"])
        assert done["done_cells"] == trained[-1] == len([*part.glob("**/result.json")])
        assert "nothing to do" in wtie(*shard).stderr
        shutil.copytree(part, tmp_path / "merged", dirs_exist_ok=True)
    assert min(trained) > 0
    assert sum(trained) == whole["trained_cells"]
    merged = wtie(*widths, "--out", tmp_path / "merged", "--json")
    assert json.loads(merged.stdout)["trained_cells"] == 0
    assert json.loads(merged.stdout)["tables"] == whole["tables"]


def test_a_study_searches_at_every_point_and_shows_whether_signs_survive(
    widths, here, wtie, tmp_path
):
    words = (*widths, "--out", tmp_path / "runs")
    counted = json.loads(wtie(*words, "--dry-run", "--json").stdout)
    assert (counted["cells"], counted["trials"], counted["most_cells_to_come"]) == (12, 8, 4)
    done = json.loads(wtie(*words, "--json").stdout)
    assert (
        done["trained_cells"]
        == done["done_cells"]
        == done["planned_cells"]
        == sum(map(len, here.batches))
    )
    rows = done["tables"]["tuned"]["rows"]
    assert [row["level width"] for row in rows] == ["8", "16"]
    assert all(row["sign"] in ("survives", "does not survive") for row in rows)
    assert rows[0]["best"] == "learning_rate 0.03"
    for path in (tmp_path / "runs").glob("*/trials/tied/*/seed-100/result.json"):
        if json.loads(path.read_text())["training"]["learning_rate"] == 3e-3:
            edit_json(path, diverge)
    again = wtie(*words, "--retry-failed")
    assert again.exit_code == 0
    assert "nothing to do" in again.stderr
    damaged = sorted((tmp_path / "runs").glob("*/tied/seed-0/result.json"))[0]
    before = damaged.read_bytes()
    damaged.write_text("{")
    mended = wtie(*words)
    assert mended.exit_code == 0
    assert "is damaged or belongs to another cell; it is kept as" in flat(mended.stderr)
    assert damaged.read_bytes() == before
    assert damaged.with_name("result.json.old-1").read_text() == "{"
