"""Kills at random calls, many starters at once, and numbers that are not finite."""

import gc
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.cells import SmallRun, is_saving, stable_digests
from tests.faults.test_damage import stopping_at
from tests.storage.disk import before_each_call
from tyro_cli.errors import Diverged, Interrupted, LockHeld
from tyro_cli.experiments import worker
from tyro_cli.storage.checkpoints import list_checkpoints
from tyro_cli.storage.manifests import verify_manifest
from tyro_cli.training import tasks
from tyro_cli.training.loop import Trainer

NAME = "tied/seed-0"


class Killed(BaseException):
    """The process is gone: from here on no call is made any more."""


def train_until_call(run: SmallRun, name: str, folder: Path, last_call: int) -> bool:
    """Train on, and die at a call as SIGKILL would have it; say whether the cell was finished.

    Every later call fails alike, so nothing on the way out can touch the disk.
    """
    calls = 0

    def act(call: str, arguments: tuple) -> None:
        nonlocal calls
        calls += 1
        if calls >= last_call:
            raise Killed

    finished = False
    with suppress(Killed), before_each_call(act):
        run.train(name, folder)
        finished = True
    gc.collect(1)  # the lock ends with its owner
    return finished


def kill_at_random(run: SmallRun, name: str, folder: Path, kills: int, longest: int) -> int:
    """Kill a cell at random calls until it was killed often enough, then let it end."""
    draw = random.Random(name)
    done = 0
    for _ in range(kills):
        if train_until_call(run, name, folder, draw.randint(1, longest)):
            break
        done += 1
    run.train(name, folder)
    return done


def test_random_kills_leave_no_trace(short, tmp_path, injected):
    whole = short.train(NAME, tmp_path / "whole")
    done = kill_at_random(short, NAME, tmp_path / "killed", kills=10, longest=120)
    assert done >= 5
    assert stable_digests(tmp_path / "killed") == stable_digests(whole)
    injected("random kills of one cell", done)


def fork(work: Callable[[], int]) -> int:
    """Run something in a process of its own; return its id."""
    process = os.fork()
    if process == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return process


PREPARING, TRAINING, EVALUATING = "preparing the data", "training", "evaluating"
SAVING, FINAL = "saving", "the final evaluation and write"
# In which phase each life of a run ends, and at which of its moments at the latest. The data are
# prepared once; of the others there are enough for four cells.
EACH_CELL = [(TRAINING, 80), (EVALUATING, 3), (SAVING, 30)] * 2 + [(FINAL, 30)]
LIVES = [(PREPARING, 10)] * 4 + EACH_CELL * 4


def live(place: Path, wanted: str, last_moment: int) -> int:
    """Start a run as its first start would be, and be killed in a phase at one of its moments.

    A moment is a call of the system or a safe point.
    """
    begun, moments = PREPARING, 0

    def moment(call: str = "", arguments: tuple = ()) -> None:
        nonlocal moments
        moments += (SAVING if is_saving() else begun) == wanted
        if moments == last_moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def report(event: dict[str, Any]) -> None:
        nonlocal begun
        if event["kind"] == "phase":
            begun = FINAL
        elif event["kind"] in ("step", "evaluation"):
            due = event["kind"] == "step" and event["step"] % 20 == 0
            begun = EVALUATING if due else TRAINING

    with before_each_call(moment):
        run = SmallRun(place, steps=200, every=20)
        for name in run.names:
            begun = "opening the cell"
            run.train(name, report=report, poll=moment)
    return 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has used torch")
def test_thirty_kills_of_a_run_over_all_phases_leave_no_trace(tmp_path, injected):
    draw = random.Random(0)
    killed: Counter[str] = Counter()
    for phase, latest in LIVES:
        moment = draw.randint(1, latest)
        _, status = os.waitpid(fork(lambda p=phase, m=moment: live(tmp_path / "run", p, m)), 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL)
        killed[phase] += code != 0
    run = SmallRun(tmp_path / "run", steps=200, every=20)
    for name in run.names:
        whole = run.train(name, tmp_path / "whole" / name)
        assert stable_digests(run.train(name)) == stable_digests(whole)
    assert killed.total() >= 30
    assert min(killed[phase] for phase, _ in LIVES) >= 3, killed
    injected("random kills of one run", killed.total())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has used torch")
def test_of_twenty_starters_of_one_cell_one_runs(long, tmp_path, injected, monkeypatch):
    monkeypatch.setattr(worker, "ORPHAN_SECONDS", 1.0)
    whole = long.train(NAME, tmp_path / "whole")
    cell = tmp_path / "runs" / "cell"
    cell.parent.mkdir()
    ready, begin = os.pipe()

    def start() -> int:
        os.close(begin)
        os.read(ready, 1)  # all go on when the other end is closed

        def stay() -> None:
            if (cell / "metrics.jsonl").exists():
                time.sleep(0.2)

        try:
            long.train(NAME, cell, poll=stay)
        except LockHeld as error:
            (tmp_path / f"told-{os.getpid()}").write_text(error.message)
            return 7
        return 0

    processes = [fork(start) for _ in range(20)]
    os.close(begin)
    os.close(ready)
    left = set(processes)
    deadline = time.monotonic() + 120
    try:
        while len(left) > 1 and time.monotonic() < deadline:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process:
                assert os.waitstatus_to_exitcode(status) == 7
                left.discard(process)
            time.sleep(0.01)
        assert len(left) == 1, "more than one ran"
        [owner] = left
        told = [path.read_text() for path in tmp_path.glob("told-*")]
        assert len(told) == 19
        assert all(f"process {owner} on " in text and str(cell) in text for text in told)
    finally:
        for process in left:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    begun = time.monotonic()
    step_of_first: list[float] = []
    long.train(NAME, cell, report=lambda event: step_of_first.append(time.monotonic() - begun))
    assert step_of_first[0] < 10, "the lock of the killed owner was still in the way"
    assert stable_digests(cell) == stable_digests(whole)
    injected("starters of one cell at once", 20)


def spoil_loss(monkeypatch, step: int) -> None:
    accumulate = Trainer._accumulate
    monkeypatch.setattr(
        Trainer,
        "_accumulate",
        lambda self, batch: (
            accumulate(self, batch) * (float("nan") if self.progress.step + 1 == step else 1.0)
        ),
    )


def spoil_gradient(monkeypatch, step: int) -> None:
    accumulate = Trainer._accumulate

    def spoiled(self: Trainer, batch: Any) -> float:
        loss = accumulate(self, batch)
        if self.progress.step + 1 == step:
            gradient = self.model.blocks[0].attention.output.weight.grad
            assert gradient is not None
            gradient[3, 5] = float("inf")
        return loss

    monkeypatch.setattr(Trainer, "_accumulate", spoiled)


def spoil_evaluation(monkeypatch, step: int, every: int = 20) -> None:
    sweep, evaluations = tasks.sweep_nats, 0

    def spoiled(*arguments: Any, **options: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        nats = sweep(*arguments, **options)
        if evaluations == step // every:
            nats[7] = float("nan")
        return nats

    monkeypatch.setattr(tasks, "sweep_nats", spoiled)


@pytest.mark.parametrize(
    ("name", "spoil", "step", "what", "kept"),
    [
        ("tied/seed-0", spoil_loss, 107, "loss", 106),
        ("untied/seed-0", spoil_gradient, 107, "gradient", 106),
        ("tied/seed-1", spoil_gradient, 1, "gradient", 0),
        ("untied/seed-1", spoil_evaluation, 120, "valid loss", 100),
    ],
    ids=["loss", "one gradient", "the first gradient", "evaluation"],
)
def test_a_number_that_is_not_finite_ends_the_cell_before_the_update(
    long, tmp_path, monkeypatch, injected, name, spoil, step, what, kept
):
    whole = tmp_path / "whole"
    if kept:
        with pytest.raises(Interrupted):
            long.train(name, whole, **stopping_at(kept))
    cell = tmp_path / "cell"
    with monkeypatch.context() as patch:
        spoil(patch, step)
        with pytest.raises(Diverged, match=f"step {step}: the {what} is not a finite number"):
            long.train(name, cell)
    injected("numbers that are not finite")
    result = json.loads((cell / "result.json").read_text())
    assert result["status"] == "diverged"
    assert result["diverged"]["step"] == step
    assert len(result["diverged"]["batch_sha256"]) == 64
    assert result["evaluations"] is None
    for kind in ("last", "best"):
        for _, path in list_checkpoints(cell / "checkpoints", kind):
            verify_manifest(path)
            tensors = load_file(path / "model.safetensors")
            assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    lasts = list_checkpoints(cell / "checkpoints", "last")
    assert [s for s, _ in lasts][:1] == ([kept] if kept else [])
    if kept:
        file = f"checkpoints/last-{kept:08d}/model.safetensors"
        assert (cell / file).read_bytes() == (whole / file).read_bytes()
    before = stable_digests(cell)
    long.train(name, cell)  # it counts as done: nothing is trained
    assert stable_digests(cell) == before
