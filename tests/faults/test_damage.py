"""Damaged and swapped checkpoints: found out every time, set aside, and the one before serves."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cells import SmallRun, stable_digests
from tests.faults.crashes import Recovery, Reference
from tests.faults.test_crashes import CELLS
from tyro_cli.errors import BrokenArm, DamagedRecord, Interrupted, RunFolderError
from tyro_cli.storage.checkpoints import list_checkpoints
from tyro_cli.storage.manifests import write_manifest
from tyro_cli.storage.records import read_records

TIED, UNTIED, OTHER_SEED = "tied/seed-0", "untied/seed-0", "tied/seed-1"
FILES = ("MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json")
STOPPED, BEFORE = 130, 120
"""Of 200 steps: where the cells were stopped, and the checkpoint before that."""


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
    """Every cell of a run, stopped half-way, with its last two checkpoints."""

    def __init__(self, run: SmallRun, place: Path) -> None:
        self.run, self.place = run, place
        self.folders = {}
        self.recoveries = {}
        for name in run.names:
            folder = place / name
            self.folders[name] = folder
            with pytest.raises(Interrupted):
                run.train(name, folder, **stopping_at(STOPPED))
            lasts = list_checkpoints(folder / "checkpoints", "last")
            assert [step for step, _ in lasts] == [STOPPED, BEFORE]
            stored = {
                step: {file.name: file.read_bytes() for file in path.iterdir()}
                for step, path in lasts
            }
            reference = Reference(stored, read_records(folder / "metrics.jsonl"), {})
            self.recoveries[name] = Recovery(run, name, reference, place / "scratch" / name)

    def fresh(self, name: str = TIED) -> "Copy":
        """Return a fresh copy of a cell."""
        folder = self.place / "copy" / name
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(self.folders[name], folder)
        return Copy(folder, self.recoveries[name])

    def newest(self, name: str) -> Path:
        """Return the newest checkpoint of a cell that is whole."""
        return newest(self.folders[name])


class Copy:
    """A copy of a stopped cell, to be damaged."""

    def __init__(self, folder: Path, recovery: Recovery) -> None:
        self.folder, self.recovery = folder, recovery
        self.newest = newest(folder)

    def step(self) -> int:
        """Return the step that a start resumes from."""
        return self.recovery.step_of(self.folder)

    def assert_found_out(self) -> None:
        """Check that the newest checkpoint is set aside and the one before it is resumed."""
        assert self.recovery.step_of(self.folder, may_be_damaged=True) == BEFORE
        assert (self.folder / "checkpoints" / f"last-{STOPPED:08d}.corrupt").is_dir()
        assert self.step() == BEFORE


def newest(folder: Path) -> Path:
    """Return the newest checkpoint of a cell."""
    return list_checkpoints(folder / "checkpoints", "last")[0][1]


@pytest.fixture(scope="module")
def cells(long, tmp_path_factory) -> StoppedCells:
    return StoppedCells(long, tmp_path_factory.mktemp("damage"))


@pytest.mark.parametrize("cell", CELLS)
def test_without_damage_the_newest_is_resumed(cells, cell):
    assert cells.fresh(cell).step() == STOPPED


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_found_out(cells, injected, name, cell):
    length = (cells.newest(cell) / name).stat().st_size
    for size in (0, 1, length // 2, length - 1):
        copy = cells.fresh(cell)
        os.truncate(copy.newest / name, size)
        copy.assert_found_out()
        injected("files cut short")


@pytest.mark.parametrize(("part", "cell"), list(enumerate(CELLS)))
def test_one_flipped_bit_is_found_out(cells, injected, part, cell):
    for seed in range(part * 50, part * 50 + 50):
        draw = random.Random(seed)
        copy = cells.fresh(cell)
        path = copy.newest / draw.choice(FILES)
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        copy.assert_found_out()
        injected("flipped bits")


def other_checkpoints(cells: StoppedCells) -> dict[str, Path]:
    """Return a checkpoint of another step, another cell, and another arm."""
    return {
        "another step": list_checkpoints(cells.folders[TIED] / "checkpoints", "last")[1][1],
        "another cell": cells.newest(OTHER_SEED),
        "another arm": cells.newest(UNTIED),
    }


@pytest.mark.parametrize("source", ["another step", "another cell", "another arm"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_checkpoint_is_found_out(cells, injected, source, name):
    copy = cells.fresh()
    shutil.copy(other_checkpoints(cells)[source] / name, copy.newest / name)
    copy.assert_found_out()
    injected("swapped files")


@pytest.mark.parametrize("source", ["another step", "another cell", "another arm"])
def test_a_whole_checkpoint_of_another_is_refused(cells, injected, source):
    copy = cells.fresh()
    shutil.rmtree(copy.newest)
    shutil.copytree(other_checkpoints(cells)[source], copy.newest)
    with pytest.raises(RunFolderError, match="belongs to another cell or step") as caught:
        copy.step()
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
    copy = cells.fresh()
    shutil.copy(other_checkpoints(cells)[source] / name, copy.newest / name)
    write_manifest(copy.newest)
    with pytest.raises(error) as caught:
        copy.step()
    assert copy.newest.name in caught.value.message and caught.value.remedy
    injected("swapped files, hashes rewritten")


@pytest.mark.parametrize("damage", ["gone", "cut", "of another cell"])
def test_the_best_checkpoint_is_looked_at_too(cells, injected, tmp_path, damage):
    copy = cells.fresh()
    for step, best in list_checkpoints(copy.folder / "checkpoints", "best"):
        if damage == "cut":
            os.truncate(best / "model.safetensors", 100)
            continue
        shutil.rmtree(best)
        if damage == "of another cell":
            # That cell may have its best elsewhere: one of these weights and this step is made.
            shutil.copytree(cells.newest(OTHER_SEED), best)
            state = json.loads((best / "state.json").read_text())
            (best / "state.json").write_text(json.dumps(state | {"step": step}))
            write_manifest(best)
    injected("damaged best checkpoints")
    if damage == "of another cell":
        with pytest.raises(RunFolderError, match="belongs to another cell or step"):
            copy.step()
        return
    told: list[str] = []
    cells.run.train(TIED, copy.folder, report=lambda event: told.append(event.get("text", "")))
    assert any("is lost" in text for text in told)
    assert list((copy.folder / "checkpoints").glob("last-*.corrupt*"))  # no later start takes it
    whole = cells.run.train(TIED, tmp_path / "whole")
    files = {k: v for k, v in stable_digests(copy.folder).items() if ".corrupt" not in k}
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
