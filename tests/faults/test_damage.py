"""Damaged and swapped checkpoints: found out every time, set aside, and the one before serves."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cells import SmallRun, stable_digests
from tests.faults.crashes import Recovery, Reference
from tyro_cli.errors import BrokenArm, DamagedRecord, Interrupted, RunFolderError
from tyro_cli.storage.checkpoints import list_checkpoints
from tyro_cli.storage.manifests import write_manifest
from tyro_cli.storage.records import read_records

TIED, UNTIED, OTHER_SEED = "tied/seed-0", "untied/seed-0", "tied/seed-1"
FILES = ("MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json")


def stopping_at(step: int) -> dict[str, Any]:
    """Return what makes training stop, as a signal does, after a step."""
    steps = 0

    def report(event: dict[str, Any]) -> None:
        nonlocal steps
        steps += event["kind"] == "step"

    def poll() -> None:
        if steps == step:
            raise Interrupted

    return {"report": report, "poll": poll}


class StoppedCells:
    """Cells that were stopped at step 10, with the checkpoints of steps 8 and 10."""

    def __init__(self, run: SmallRun, place: Path) -> None:
        self.run, self.place = run, place
        self.folders = {}
        for name in (TIED, UNTIED, OTHER_SEED):
            folder = place / name
            self.folders[name] = folder
            with pytest.raises(Interrupted):
                run.train(name, folder, **stopping_at(10))
            assert [s for s, _ in list_checkpoints(folder / "checkpoints", "last")] == [10, 8]
        folder = self.folders[TIED]
        stored = {
            step: {file.name: file.read_bytes() for file in path.iterdir()}
            for step, path in list_checkpoints(folder / "checkpoints", "last")
        }
        reference = Reference(stored, read_records(folder / "metrics.jsonl"), {})
        self.recovery = Recovery(run, TIED, reference, place / "scratch")
        self.copy = place / "copy" / "seed-0"

    def fresh(self) -> Path:
        """Return the newest checkpoint of a fresh copy of the tied cell."""
        if self.copy.exists():
            shutil.rmtree(self.copy)
        shutil.copytree(self.folders[TIED], self.copy)
        return self.newest(self.copy)

    def newest(self, folder: Path) -> Path:
        return list_checkpoints(folder / "checkpoints", "last")[0][1]

    def assert_found_out(self) -> None:
        """Check that the newest checkpoint is set aside and the one before it is resumed."""
        assert self.recovery.step_of(self.copy, may_be_damaged=True) == 8
        assert (self.copy / "checkpoints" / "last-00000010.corrupt").is_dir()
        assert self.recovery.step_of(self.copy) == 8


@pytest.fixture(scope="module")
def cells(short, tmp_path_factory) -> StoppedCells:
    return StoppedCells(short, tmp_path_factory.mktemp("damage"))


def test_without_damage_the_newest_is_resumed(cells):
    cells.fresh()
    assert cells.recovery.step_of(cells.copy) == 10


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_found_out(cells, injected, name):
    length = (cells.newest(cells.folders[TIED]) / name).stat().st_size
    for size in (0, 1, length // 2, length - 1):
        os.truncate(cells.fresh() / name, size)
        cells.assert_found_out()
        injected("files cut short")


@pytest.mark.parametrize("part", range(4))
def test_one_flipped_bit_is_found_out(cells, injected, part):
    for seed in range(part * 50, part * 50 + 50):
        draw = random.Random(seed)
        path = cells.fresh() / draw.choice(FILES)
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        cells.assert_found_out()
        injected("flipped bits")


def other_checkpoints(cells: StoppedCells) -> dict[str, Path]:
    """Return a checkpoint of another step, another cell, and another arm."""
    return {
        "another step": list_checkpoints(cells.folders[TIED] / "checkpoints", "last")[1][1],
        "another cell": cells.newest(cells.folders[OTHER_SEED]),
        "another arm": cells.newest(cells.folders[UNTIED]),
    }


@pytest.mark.parametrize("source", ["another step", "another cell", "another arm"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_checkpoint_is_found_out(cells, injected, source, name):
    shutil.copy(other_checkpoints(cells)[source] / name, cells.fresh() / name)
    cells.assert_found_out()
    injected("swapped files")


@pytest.mark.parametrize("source", ["another step", "another cell", "another arm"])
def test_a_whole_checkpoint_of_another_is_refused(cells, injected, source):
    newest = cells.fresh()
    shutil.rmtree(newest)
    shutil.copytree(other_checkpoints(cells)[source], newest)
    with pytest.raises(RunFolderError, match="belongs to another cell or step") as caught:
        cells.recovery.step_of(cells.copy)
    assert caught.value.remedy
    injected("swapped checkpoints")


@pytest.mark.parametrize(
    ("source", "name", "error"),
    [
        ("another step", "state.json", RunFolderError),
        ("another cell", "state.json", RunFolderError),
        ("another arm", "state.json", RunFolderError),
        ("another arm", "model.safetensors", BrokenArm),
        ("another arm", "optimizer.safetensors", DamagedRecord),
    ],
)
def test_swapping_a_file_with_matching_hashes_is_refused(cells, injected, source, name, error):
    newest = cells.fresh()
    shutil.copy(other_checkpoints(cells)[source] / name, newest / name)
    write_manifest(newest)
    with pytest.raises(error):
        cells.recovery.step_of(cells.copy)
    injected("swapped files, hashes rewritten")


@pytest.mark.parametrize("damage", ["gone", "cut", "of another cell"])
def test_the_best_checkpoint_is_looked_at_too(cells, injected, tmp_path, damage):
    cells.fresh()
    checkpoints = cells.copy / "checkpoints"
    for step, best in list_checkpoints(checkpoints, "best"):
        if damage == "cut":
            os.truncate(best / "model.safetensors", 100)
            continue
        shutil.rmtree(best)
        if damage == "of another cell":
            others = cells.folders[OTHER_SEED] / "checkpoints"
            [source] = [path for s, path in list_checkpoints(others, "best") if s == step]
            shutil.copytree(source, best)
    injected("damaged best checkpoints")
    if damage == "of another cell":
        with pytest.raises(RunFolderError, match="belongs to another cell or step"):
            cells.recovery.step_of(cells.copy)
        return
    told: list[str] = []
    cells.run.train(TIED, cells.copy, report=lambda event: told.append(event.get("text", "")))
    assert any("is lost" in text for text in told)
    whole = cells.run.train(TIED, tmp_path / "whole")
    files = {k: v for k, v in stable_digests(cells.copy).items() if ".corrupt" not in k}
    assert files == stable_digests(whole)


def test_a_finished_cell_that_lost_its_best_is_trained_anew(cells, injected, tmp_path):
    whole = cells.run.train(TIED, tmp_path / "whole")
    broken = Path(shutil.copytree(whole, tmp_path / "broken"))
    (broken / "result.json").unlink()
    [(_, best)] = list_checkpoints(broken / "checkpoints", "best")
    os.truncate(best / "model.safetensors", 100)
    cells.run.train(TIED, broken)
    files = {k: v for k, v in stable_digests(broken).items() if ".corrupt" not in k}
    assert files == stable_digests(whole)
    injected("damaged best checkpoints")
