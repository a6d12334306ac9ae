"""Studies from the command line: trained once, by content, in whatever way they come to an end."""

import json
import random
import shutil
import signal
import time

import pytest

from tests.end_to_end.workplace import (
    SWEEP,
    Workplace,
    assert_same_study,
    assert_told,
    children_of,
    is_running,
    kill,
    results,
    wait_until,
)
from tests.folders import digests, snapshot

SEEDS = [0, 1]
HUGE_RATE = {"rate": {"training.optimizer.learning_rate": [100, 0.01]}}
UNCLIPPED = {"training.budget": {"steps": 40}, "training.gradient_clip": None}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, shared_cache):
    """Train the study in one go; tests must leave it as it is."""
    place = Workplace(tmp_path_factory.mktemp("swept"), shared_cache)
    place.environment["COLUMNS"] = "100"  # as in every test, whose output is compared with this
    place.study(seeds=SEEDS)
    place.first = place.sweep()
    assert place.first.exit_code == 0, place.first.stderr
    return place


# what costs next to nothing: refused before anything is loaded


def test_a_level_that_the_schema_refuses_writes_nothing(place):
    place.study({"width": {"model.d_model": [8, "wide"]}})
    assert_told(
        place.sweep(), 2, "s.yaml:7:7: model.d_model: must be a whole number, not the text 'wide'"
    )
    assert not place.runs.exists()


def test_a_large_grid_must_be_confirmed(place):
    place.study(seeds="0-125")
    assert_told(place.sweep(), 2, "the grid has 504 cells, more than 500", "--dry-run", "--yes")
    assert not place.runs.exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "1/0", "-1/2", "a/b"])
def test_a_shard_that_cannot_be_read(place, shard):
    place.study()
    finished = place.wtie(*SWEEP, "--config", "s.yaml", f"--shard={shard}")
    assert_told(finished, 2, "--shard", "write i/n with i from 1 to n")


@pytest.mark.slow
def test_two_points_that_are_one_experiment_are_refused(place):
    place.study({"inner": {"model.d_ff": [None, 48]}})  # which is what 16 comes to
    told = "the points inner null and inner 48 are one and the same experiment"
    assert_told(place.sweep(), 2, told)
    assert not place.runs.exists()


# dry runs


@pytest.mark.slow
def test_a_dry_run_counts_and_writes_nothing(place):
    place.study(seeds="0-299")
    shown = place.sweep("--dry-run")
    assert shown.exit_code == 0, shown.stderr
    assert "cells         1,200: 2 points, 2 arms, 300 seeds" in shown.stdout
    assert "missing       1,200 of the 1,200 asked for" in shown.stdout
    assert "tokens        460,800 to train on" in shown.stdout
    assert "hours" in shown.stdout
    assert not place.runs.exists()
    place.study(seeds=SEEDS)
    finished = place.sweep("--dry-run", "--json", "--shard", "1/2")
    record = json.loads(finished.stdout)
    assert (record["cells"], record["shard_cells"], record["missing_cells"]) == (8, 4, 4)
    assert record["missing_tokens"] == 4 * 12 * 32
    assert record["points"] == [{"width": 8}, {"width": 16}]
    assert record["train_seconds"] > 0
    assert record["disk_bytes"] > 0
    assert not place.runs.exists()


@pytest.mark.slow
def test_a_dry_run_of_a_trained_study_has_nothing_to_do(swept):
    before = snapshot(swept.runs)
    shown = swept.sweep("--dry-run")
    assert "missing       0 of the 8 asked for" in shown.stdout
    assert "time          none: every cell is done" in shown.stdout
    assert snapshot(swept.runs) == before


# a whole study


@pytest.mark.slow
def test_a_sweep_trains_every_cell_and_prints_the_tables(swept):
    assert "training 8 of 8 cells, 2 at a time" in swept.first.stderr
    assert ": started" in swept.first.stderr and "16/tied/seed-1" in swept.first.stderr
    for text in ("Results of the study sizes", "Contrasts of the study sizes against untied"):
        assert text in swept.first.stdout
    folder = swept.study_folder()
    assert swept.first.stdout.endswith(f"study: runs/{folder.name}\n")
    assert {path.name for path in folder.iterdir()} == {"study.yaml", "manifest.json", "tables"}
    assert (folder / "study.yaml").read_bytes() == (swept.folder / "s.yaml").read_bytes()
    assert len(results(swept.runs)) == 8
    assert len(swept.run_folders()) == 2
    for run in swept.run_folders():
        assert len(list((run / "tables").iterdir())) == 16


@pytest.mark.slow
def test_the_same_sweep_again_trains_nothing_and_changes_nothing(swept):
    done, before = results(swept.runs), digests(swept.runs)
    again = swept.sweep()
    assert again.exit_code == 0
    assert "all 8 cells were trained before; nothing to do" in again.stderr
    assert again.stdout == swept.first.stdout
    assert results(swept.runs) == done
    assert digests(swept.runs) == before


@pytest.mark.slow
def test_json_is_one_document(swept):
    finished = swept.sweep("--json")
    record = json.loads(finished.stdout)
    assert (record["planned_cells"], record["trained_cells"], record["done_cells"]) == (8, 0, 8)
    assert (record["failed"], record["diverged"]) == ([], [])
    assert [row["level width"] for row in record["tables"]["contrasts"]["rows"]] == ["8", "16"]
    written = json.loads((swept.study_folder() / "tables" / "contrasts.json").read_text())
    assert record["tables"]["contrasts"] == written


@pytest.mark.slow
def test_a_run_of_the_study_names_the_command_that_trains_it_alone(swept):
    for run in swept.run_folders():
        command = json.loads((run / "manifest.json").read_text())["command"]
        assert command[:4] == ["wtie", "train", "--config", "a.yaml"]
        done = results(swept.runs)
        alone = swept.wtie(*command[1:], "--json")
        assert alone.exit_code == 0, alone.stderr
        record = json.loads(alone.stdout)
        assert record["trained_cells"] == 0
        assert record["run_folder"].endswith(run.name)
        assert results(swept.runs) == done


@pytest.mark.slow
def test_cells_that_train_has_trained_are_reused_and_the_study_grows(trained_copy):
    place = trained_copy  # whose d_model is 16
    first = results(place.runs)
    assert len(first) == 2
    place.study(seeds=[0])
    swept = place.sweep("--json")
    assert json.loads(swept.stdout)["trained_cells"] == 2
    second = results(place.runs)
    assert len(second) == 4
    assert {name: second[name] for name in first} == first
    folder = place.study_folder()
    # A level and a seed more: the same study, only what is missing, and it is said.
    old = (folder / "study.yaml").read_bytes()
    place.study({"width": {"model.d_model": [8, 16, 24]}}, seeds=SEEDS)
    grown = json.loads(place.sweep("--json").stdout)
    assert (grown["planned_cells"], grown["trained_cells"]) == (12, 8)
    assert place.study_folder() == folder
    assert (folder / "study.yaml.old-1").read_bytes() == old
    third = results(place.runs)
    assert {name: third[name] for name in second} == second
    notes = grown["tables"]["contrasts"]["notes"]
    assert "Extended after looking: 2 of 3 contrasts." in notes


# stopped


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_stopped_and_started_again_gives_the_same_tables(place, swept, number):
    place.study(seeds=SEEDS)
    run = place.start(*SWEEP, "--config", "s.yaml")
    run.wait_for(": started", times=4)
    workers = children_of(run.process.pid)
    run.send(number)
    finished = run.finish()
    assert finished.exit_code == 128 + number, finished.stderr
    assert finished.stdout == ""
    assert f"go on with: wtie {' '.join(SWEEP)} --config s.yaml" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not any(map(is_running, workers))
    assert len(results(place.runs)) < 8
    assert place.sweep().stdout == swept.first.stdout
    assert_same_study(place.runs, swept.runs)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_and_started_again_gives_the_same_tables(place, swept, seed):
    generator = random.Random(seed)
    place.study(seeds=SEEDS)
    for _ in range(3):
        run = place.start(*SWEEP, "--config", "s.yaml")
        mark = generator.choice(["", ": started", ": step ", ": done"])
        if mark:
            run.wait_for(mark, times=generator.randint(1, 2))
        time.sleep(generator.uniform(0.0, 0.5))
        workers = children_of(run.process.pid)
        kill([run.process.pid, *workers])
        run.process.wait()
        wait_until(lambda alive=workers: not any(map(is_running, alive)), "the workers are gone")
    last = place.sweep()
    assert (last.exit_code, last.stdout) == (0, swept.first.stdout), last.stderr
    assert_same_study(place.runs, swept.runs)


# shards


@pytest.mark.slow
def test_two_shards_merged_by_copying_are_one_sweep(place, swept):
    place.study(seeds=SEEDS)
    for shard in ("1/2", "2/2"):
        finished = place.sweep("--shard", shard, "--out", f"machine-{shard[0]}", "--json")
        record = json.loads(finished.stdout)
        assert (record["planned_cells"], record["trained_cells"]) == (8, 4)
        notes = record["tables"]["results"]["notes"]
        assert "Not final: 4 cells are unfinished." in notes
    for machine in ("machine-1", "machine-2"):
        shutil.copytree(place.folder / machine, place.runs, dirs_exist_ok=True)
    shards = {path.name for path in (place.study_folder() / "shards").iterdir()}
    assert shards == {"1-of-2.json", "2-of-2.json"}
    done = results(place.runs)
    merged = place.sweep()
    assert "all 8 cells were trained before; nothing to do" in merged.stderr
    assert merged.stdout == swept.first.stdout
    assert results(place.runs) == done
    assert_same_study(place.runs, swept.runs)


@pytest.mark.slow
def test_shards_that_overlap_are_refused_and_nothing_is_trained(place):
    place.study(seeds=[0, 1])
    assert place.sweep("--shard", "1/2").exit_code == 0
    before = digests(place.runs)
    assert_told(
        place.sweep("--shard", "3/3"),
        2,
        "--shard 3/3 overlaps shard 1/2",
        "use the same n: --shard i/2",
    )
    assert digests(place.runs) == before
    # A shard of another split that was copied here, and one of another study.
    path = place.study_folder() / "shards" / "1-of-2.json"
    record = json.loads(path.read_text())
    other = path.with_name("2-of-3.json")
    other.write_text(json.dumps(record | {"shard": 2, "shards": 3}))
    assert_told(place.sweep(), 2, "shards 1-of-2 and 2-of-3 overlap", "(2 pairs in all)")
    other.write_text(json.dumps(record | {"pairs": [], "study_id": "0" * 64}))
    assert_told(place.sweep(), 2, "2-of-3.json belongs to another study")
    other.unlink()
    assert digests(place.runs) == before
    assert place.sweep("--shard", "2/2").exit_code == 0
    assert len(results(place.runs)) == 8


# failures


@pytest.mark.slow
def test_a_diverging_cell_stops_no_other_and_can_be_tried_again(place):
    place.experiment(UNCLIPPED)
    place.study(HUGE_RATE)
    first = place.sweep()
    assert first.exit_code == 4, first.stderr
    for arm in ("untied", "tied"):
        name = f"100/{arm}/seed-0"
        assert f"diverged: {name}; --retry-failed trains it again" in first.stderr
    assert "withheld: 1 of 1 pairs diverged" in first.stdout
    statuses = {
        path.parent.parent.parent.name: json.loads(path.read_text())["status"]
        for path in place.runs.rglob("seed-0/result.json")
    }
    assert sorted(statuses.values()) == ["diverged", "done"]
    done = results(place.runs)
    again = place.sweep()
    assert (again.exit_code, again.stdout) == (4, first.stdout)
    assert results(place.runs) == done

    unfit = place.sweep("--retry-failed", "--threads", "2")
    assert_told(unfit, 2, "1 thread(s) a cell, not 2", "leave --threads and --device out")
    assert results(place.runs) == done, "nothing is moved aside for a request that is refused"
    retried = place.sweep("--retry-failed", "--json")
    assert retried.exit_code == 4
    record = json.loads(retried.stdout)
    assert (record["trained_cells"], record["done_cells"]) == (2, 4)
    assert record["diverged"] == ["100/untied/seed-0", "100/tied/seed-0"]
    aside = sorted(path.parent.name for path in place.runs.rglob("seed-0.old-1/result.json"))
    assert aside == ["seed-0.old-1", "seed-0.old-1"]
    after = results(place.runs)
    kept = {name for name in done if after[name] == done[name]}
    assert len(kept) == 2, "the cells that were done are not touched"
    assert place.sweep().stdout == first.stdout


@pytest.mark.slow
def test_fail_fast_stops_at_the_first_failure(place):
    place.experiment(UNCLIPPED)
    place.study(HUGE_RATE)
    finished = place.wtie(
        "sweep", "--config", "s.yaml", "--threads", "1", "--workers", "1", "--fail-fast"
    )
    assert finished.exit_code == 4
    assert finished.stderr.count("diverged: ") == 1
    assert finished.stderr.count(": not trained") == 3
    assert len(results(place.runs)) == 1
    assert place.sweep("--json").exit_code == 4
    assert len(results(place.runs)) == 4


@pytest.mark.slow
def test_a_killed_worker_is_one_failed_cell(place):
    place.study(seeds=[0])
    run = place.start(*SWEEP, "--config", "s.yaml")
    run.wait_for(": started", times=2)
    kill([children_of(run.process.pid)[-1]])
    finished = run.finish()
    assert finished.exit_code == 4
    assert finished.stderr.count("\nfailed: ") == 1
    assert len(results(place.runs)) == 3
    assert place.sweep().exit_code == 0


# what is in the way


@pytest.mark.slow
def test_what_is_no_folder_of_the_study_is_refused_and_left_alone(place):
    place.study()
    folder = place.folder / json.loads(place.sweep("--dry-run", "--json").stdout)["study_folder"]
    folder.parent.mkdir()
    folder.write_text("mine")
    assert_told(place.sweep(), 2, "is in the way: it is not a folder")
    assert folder.read_text() == "mine"
    folder.unlink()
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    assert_told(place.sweep(), 2, "is in the way: it is not the folder of a study")
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert not place.run_folders()


@pytest.mark.slow
def test_other_threads_than_those_of_one_run_are_refused_before_any_is_written(trained_copy):
    place = trained_copy  # whose d_model is 16
    before = digests(place.runs)
    place.study()
    finished = place.wtie("sweep", "--config", "s.yaml", "--threads", "2")
    assert_told(finished, 2, "1 thread(s) a cell, not 2", "leave --threads and --device out")
    after = {name: sha for name, sha in digests(place.runs).items() if not name.endswith(".lock")}
    assert after == {name: before[name] for name in before if not name.endswith(".lock")}
