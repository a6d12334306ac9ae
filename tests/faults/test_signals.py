"""SIGTERM and SIGINT at calls and safe points: it stops before another step, and nothing is lost.

The signals are real and reach a cell in this process, as they would its worker. Training ends with
the exit code of the signal, or it was so near its end that it is done; either way the next start
leaves the bytes of a cell that was never stopped.
"""

import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cells import SmallRun, is_saving, stable_digests
from tests.faults.test_crashes import CELLS
from tests.faults.test_stops import fork
from tests.storage.disk import before_each_call
from tyro_cli.errors import Interrupted
from tyro_cli.training.signals import polled_signals

NAME = "tied/seed-0"
STEPS = 8
SAVING, FINAL = "between the writes of a checkpoint", "the final evaluation or write"


class Interruptions:
    """A cell that is trained again and again, each time with a signal somewhere.

    Args:
        run: The run.
        place: An empty folder.
        name: The cell.
    """

    def __init__(self, run: SmallRun, place: Path, name: str = NAME) -> None:
        self.run, self.place, self.name = run, place, name
        self.whole = stable_digests(run.train(name, place / "whole"))
        self.seen: Counter[str] = Counter()
        self.saving: list[int] = []  # which calls of the last training wrote a checkpoint

    def at_call(self, k: int, number: int) -> int:
        """Send a signal before the k-th call of the system; return how many calls were made."""
        calls = 0
        self.saving.clear()

        def train(send: Callable[[str], None], **watched: Any) -> None:
            def act(call: str, arguments: tuple) -> None:
                nonlocal calls
                calls += 1
                if is_saving():
                    self.saving.append(calls)
                if calls == k:
                    send(SAVING if is_saving() else "another call")

            with before_each_call(act):
                self.run.train(self.name, self.place / "cell", **watched)

        self._interrupt(train, number)
        return calls

    def twice_at_call(self, k: int, number: int) -> None:
        """Send two signals before the k-th call, to a process of its own, and go on after it."""
        cell, place = self.place / "cell", self.place / "place"
        shutil.rmtree(cell, ignore_errors=True)
        calls = 0

        def act(call: str, arguments: tuple) -> None:
            nonlocal calls
            calls += 1
            if calls == k:
                place.write_text(SAVING if is_saving() else "another call")
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), number)

        def train() -> int:
            with polled_signals() as stop, before_each_call(act):
                self.run.train(self.name, cell, poll=stop.poll)
            return 0

        _, status = os.waitpid(fork(train), 0)
        assert os.waitstatus_to_exitcode(status) == 128 + number
        self.seen[place.read_text()] += 1
        self.run.train(self.name, cell)
        assert stable_digests(cell) == self.whole

    def at_poll(self, k: int, number: int) -> int:
        """Send a signal at the k-th safe point; return how many there were."""
        polls = 0

        def train(send: Callable[[str], None], **watched: Any) -> None:
            go_on = watched.pop("poll")

            def poll() -> None:
                nonlocal polls
                polls += 1
                if polls == k:
                    send("a step or an evaluation")
                go_on()

            self.run.train(self.name, self.place / "cell", poll=poll, **watched)

        self._interrupt(train, number)
        return polls

    def _interrupt(self, train: Callable[..., None], number: int) -> None:
        cell = self.place / "cell"
        shutil.rmtree(cell, ignore_errors=True)
        phase, sent_in, steps_after = "", "", 0

        def send(where: str) -> None:
            nonlocal sent_in
            sent_in = FINAL if phase else where
            os.kill(os.getpid(), number)

        def report(event: dict[str, Any]) -> None:
            nonlocal phase, steps_after
            phase = event["text"] if event["kind"] == "phase" else phase
            steps_after += bool(sent_in) and event["kind"] == "step"

        with polled_signals() as stop:
            try:
                train(send, report=report, poll=stop.poll)
            except Interrupted as stopped:
                assert stopped.exit_code == 128 + number
                assert not (cell / "result.json").exists()
            else:
                assert (cell / "result.json").exists()
        assert steps_after <= 1, "a step was begun after the signal"
        self.run.train(self.name, cell)
        assert stable_digests(cell) == self.whole
        if sent_in:
            self.seen[sent_in] += 1


@pytest.fixture
def interruptions(tmp_path) -> Interruptions:
    """A cell whose steps have two micro-batches."""
    training = {"micro_batch_tokens": 16}
    run = SmallRun(tmp_path / "run", steps=STEPS, every=4, seeds=(0,), training=training)
    return Interruptions(run, tmp_path)


NUMBERS = (signal.SIGTERM, signal.SIGINT)
NEVER = 10**9


def places(total: int, every: int) -> list[int]:
    """Return each n-th of all places, and some near the end, where the final write is."""
    return sorted({*range(1, total + 1, every), total - 9, total - 4, total - 1})


@pytest.mark.parametrize(
    "every", [pytest.param(29, id="some"), pytest.param(3, id="many", marks=pytest.mark.slow)]
)
def test_a_signal_at_a_call_costs_nothing(interruptions, injected, every):
    total = interruptions.at_call(NEVER, signal.SIGTERM)
    assert total > 100, "hardly any call was seen"
    for k in places(total, every):
        interruptions.at_call(k, NUMBERS[k % 2])
    assert interruptions.seen[FINAL] >= 3
    assert interruptions.seen[SAVING] >= 3
    assert interruptions.seen["another call"] >= 3
    injected("signals at a call", interruptions.seen.total())


@pytest.mark.parametrize(
    "every", [pytest.param(7, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_a_signal_at_a_safe_point_costs_nothing(interruptions, injected, every):
    total = interruptions.at_poll(NEVER, signal.SIGTERM)
    # A step has one of its own, and one before each of its two micro-batches.
    assert total > 3 * STEPS, "hardly any safe point was seen"
    for k in places(total, every):
        interruptions.at_poll(k, NUMBERS[k % 2])
    assert interruptions.seen[FINAL] >= 3
    assert interruptions.seen["a step or an evaluation"] >= 3
    injected("signals at a safe point", interruptions.seen.total())


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_a_signal_anywhere_in_a_long_cell_costs_nothing(long, tmp_path, injected, name):
    interruptions = Interruptions(long, tmp_path, name)
    total = interruptions.at_call(NEVER, signal.SIGTERM)
    draw = random.Random(name)
    for number in NUMBERS * 4:
        interruptions.at_call(draw.randint(1, total), number)
    injected("signals at a call", interruptions.seen.total())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has used torch")
@pytest.mark.parametrize("name", CELLS)
def test_a_second_signal_ends_a_cell_at_once_and_costs_nothing(long, tmp_path, injected, name):
    interruptions = Interruptions(long, tmp_path, name)
    total = interruptions.at_call(NEVER, signal.SIGTERM)
    saving = list(interruptions.saving)
    draw = random.Random(name)
    for number in NUMBERS * 2:
        interruptions.twice_at_call(draw.choice(saving), number)
        interruptions.twice_at_call(draw.randint(1, total), number)
    assert interruptions.seen[SAVING] >= 4
    injected("second signals", interruptions.seen.total())
