"""A system that refuses at the k-th call: words with path and remedy, and nothing lost."""

import copy
import errno
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest

from tests.faults.cells import SmallRun, stable_digests
from tests.faults.crashes import Recovery, Reference, reference_of
from tests.faults.test_crashes import CELLS
from tests.storage.disk import FailingCall, before_each_call
from tyro_cli.errors import StorageError
from tyro_cli.storage.checkpoints import list_checkpoints
from tyro_cli.storage.records import RecordWriter
from tyro_cli.training.loop import Trainer

NAME = "tied/seed-0"
NUMBERS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EINTR)


class Paused(Exception):
    """Training has come to where faults begin."""


class PausedCell:
    """A cell that has made a step and is about to evaluate and save; as often as asked."""

    def __init__(self, run: SmallRun, place: Path, step: int, name: str = NAME) -> None:
        self.folder = place / "cell"
        self.folder.mkdir()
        self.reference: Reference = reference_of(run, name, place / "reference")
        self.recovery = Recovery(run, name, self.reference, place / "scratch")
        self.trainer = Trainer(run.context(name, self.folder))
        self.old_step, self.new_step = step - run.every, step
        go_on = self.trainer._after_step

        def pause() -> None:
            if self.trainer.progress.step == step:
                raise Paused
            go_on()

        self.trainer._after_step = pause  # type: ignore[method-assign]
        with pytest.raises(Paused):
            self.trainer.run()
        self.trainer._after_step = go_on  # type: ignore[method-assign]
        self.before = place / "before"
        shutil.copytree(self.folder, self.before)
        self.state = copy.deepcopy((self.trainer.progress, self.trainer.anchors))

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.before, self.folder)
        self.trainer.progress, self.trainer.anchors = copy.deepcopy(self.state)
        self.trainer.records = RecordWriter(self.folder / "metrics.jsonl")

    def save(self) -> None:
        try:
            self.trainer._after_step()
        finally:
            self.trainer.records.close()


def check(cell: PausedCell, k: int, number: int) -> bool:
    """Let the k-th call of evaluating and saving fail; say whether there was such a call."""
    cell.restore()
    failing = FailingCall(k, number)
    error = None
    with before_each_call(failing):
        try:
            cell.save()
        except StorageError as raised:
            error = raised
    if failing.calls < k:
        return False
    step = cell.recovery.step_of(cell.folder)
    if error is None:
        assert step == cell.new_step
    else:
        assert str(cell.folder) in error.message
        assert os.strerror(number) in error.message
        assert error.remedy
        assert step in (cell.old_step, cell.new_step)
    return True


def test_a_call_that_fails_while_saving_costs_no_checkpoint(short, tmp_path, injected):
    cell = PausedCell(short, tmp_path, step=8)
    k = 1
    while check(cell, k, NUMBERS[k % len(NUMBERS)]):
        k += 1
    assert k > 30, "hardly any call was seen"
    injected("calls that fail", k - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_every_error_at_every_call_while_saving(long, tmp_path, injected, name):
    """A cell of 200 steps, half-way: older checkpoints are there, and one is removed."""
    cell = PausedCell(long, tmp_path, step=120, name=name)
    for number in NUMBERS:
        k = 1
        while check(cell, k, number):
            k += 1
        assert k > 30
        injected("calls that fail", k - 1)


def final_write_fails(
    run: SmallRun, name: str, trained: Path, folder: Path, k: int, number: int
) -> bool:
    """Let the k-th call fail from where training has ended; then go on without a fault."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(trained, folder)
    for file in ("result.json", "documents.npz", "performance.json"):
        (folder / file).unlink()
    failing = FailingCall(k, number)
    with before_each_call(failing):
        try:
            run.train(name, folder)
        except StorageError as error:
            assert os.strerror(number) in error.message
            assert error.remedy
    if failing.calls < k:
        return False
    run.train(name, folder)
    assert stable_digests(folder) == stable_digests(trained)
    return True


def fail_the_final_write(run: SmallRun, name: str, place: Path, every: int) -> int:
    """Let each `every`-th call fail in turn; return how many did."""
    trained = run.train(name, place / "trained")
    number, k = 0, 1
    while final_write_fails(run, name, trained, place / "cell", k, NUMBERS[k % len(NUMBERS)]):
        k += every
        number += 1
    assert k > 30, "hardly any call was seen"
    return number


def test_a_call_that_fails_in_the_final_write_costs_nothing(short, tmp_path, injected):
    injected("calls that fail", fail_the_final_write(short, NAME, tmp_path, every=25))


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_no_call_that_fails_in_a_final_write_costs_anything(long, tmp_path, injected, name):
    injected("calls that fail", fail_the_final_write(long, name, tmp_path, every=1))


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files")
def test_a_file_that_may_not_grow_is_told_in_words(short, tmp_path, injected):
    """The tensors are written in C, where no call of ours can be made to fail."""
    cell = PausedCell(short, tmp_path, step=8)
    cell.restore()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large") as caught:
            cell.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free some space" in caught.value.remedy
    assert cell.recovery.step_of(cell.folder) == cell.old_step
    assert [s for s, _ in list_checkpoints(cell.folder / "checkpoints", "last")] == [4]
    injected("calls that fail")
