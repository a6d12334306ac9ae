"""Kills and losses of power at every call: the next start goes on from the old or the new step.

Every cell is trained by the real worker. What each state of the disk leads to is looked at without
training on; from a sample of the states, a denser one in the final write, the cell is
trained to its end and compared byte by byte with one that was never stopped.
"""

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cells import SmallRun, stable_digests
from tests.faults.crashes import (
    POLICIES,
    PageCache,
    Policy,
    Recovery,
    killed_copy,
    reference_of,
    tear,
    watched_training,
)

CELLS = ("untied/seed-0", "tied/seed-0", "untied/seed-1", "tied/seed-1")
FINAL = "final evaluation"
LOSSES_AFTER_THE_END = 20


class Deaths:
    """Lets a cell die in every way at every call while it is trained once."""

    def __init__(
        self, run: SmallRun, name: str, place: Path, one_in: int, one_in_final: int
    ) -> None:
        self.run, self.name, self.place = run, name, place
        self.one_in, self.one_in_final = one_in, one_in_final
        self.folder = place / "arm" / "seed"
        self.folder.parent.mkdir()
        self.reference = reference_of(run, name, place / "reference" / "seed")
        self.recovery = Recovery(run, name, self.reference, place / "scratch")
        self.cache = PageCache(self.folder.parent)
        self.draw = random.Random(name)
        self.phase = ""
        self.counts: Counter[str] = Counter()
        self.killed_step = self.lost_step = 0
        self.finished: Counter[str] = Counter()

    def die(self) -> None:
        def report(event: dict[str, Any]) -> None:
            self.phase = event.get("text", "")

        try:
            watched_training(self.run, self.name, self.folder, self.visit, self.cache.note, report)
            for _ in range(LOSSES_AFTER_THE_END):
                for policy in POLICIES:
                    self.lose_power(policy)
        finally:
            self.cache.close()
        assert stable_digests(self.folder) == self.reference.files

    def visit(self, number: int, call: str, arguments: tuple) -> None:
        copy = killed_copy(self.folder, self.place / "killed" / "seed")
        if call == "write" and number % 3 == 0 and tear(self.folder, copy, *arguments):
            self.counts["torn writes"] += 1
            self.recovery.step_of(copy)
            copy = killed_copy(self.folder, self.place / "killed" / "seed")
        step = self.recovery.step_of(copy)
        assert step >= self.killed_step, f"a kill at call {number} ({call}) lost a checkpoint"
        self.killed_step = step
        self.counts["kills at a call"] += 1
        self.finish(copy, "killed")
        for policy in self.policies(number):
            self.lose_power(policy)

    def policies(self, number: int) -> tuple[Policy, ...]:
        """Return which losses to look at: one in turn, and all of them in the final write."""
        return POLICIES if self.phase == FINAL else (POLICIES[number % len(POLICIES)],)

    def lose_power(self, policy: Policy) -> None:
        lost = self.place / "lost"
        if lost.exists():
            shutil.rmtree(lost)
        self.cache.materialize(lost, policy, self.draw)
        cell = lost / "seed"
        cell.mkdir(exist_ok=True)
        step = self.recovery.step_of(cell, may_be_damaged=policy == "random")
        if policy == "lost":
            assert step >= self.lost_step, "what was synced is gone"
            self.lost_step = step
            assert step >= self.killed_step - self.run.every, "more than one checkpoint is lost"
        assert self.lost_step <= step <= self.killed_step
        self.assert_done_is_tidy(cell)
        self.counts["losses of power"] += 1
        self.finish(cell, policy)

    def assert_done_is_tidy(self, cell: Path) -> None:
        """Check that a cell with a result has no more than its files: nothing opens it again."""
        if (cell / "result.json").exists():
            assert stable_digests(cell) == self.reference.files
            self.counts["losses of power after the result was there"] += 1

    def finish(self, folder: Path, kind: str) -> None:
        """Train to the end from here, in a sample; the bytes must be those of the reference."""
        one_in = self.one_in_final if self.phase == FINAL else self.one_in
        if self.draw.randrange(one_in):
            return
        self.run.train(self.name, folder)
        files, expected = stable_digests(folder), self.reference.files
        # What was removed may be back after a loss of power, and goes; what was damaged is kept.
        extra = files.keys() - expected.keys()
        assert all(kind == "random" and ".corrupt" in name for name in extra), extra
        assert {name: files[name] for name in expected} == expected, kind
        self.finished[kind] += 1


def test_a_cell_that_dies_at_any_call_goes_on(short, tmp_path, injected):
    deaths = Deaths(short, CELLS[1], tmp_path, one_in=40, one_in_final=12)
    deaths.die()
    for kind, number in deaths.counts.items():
        injected(kind, number)
    injected("cells trained to the end after a death", sum(deaths.finished.values()))
    assert sum(deaths.finished.values()) > 5
    assert deaths.killed_step == deaths.lost_step == short.steps


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_of_a_run_dies_at_every_call_and_goes_on(long, tmp_path, injected, name):
    deaths = Deaths(long, name, tmp_path, one_in=200, one_in_final=6)
    deaths.die()
    for kind, number in deaths.counts.items():
        injected(kind, number)
    injected("cells trained to the end after a death", sum(deaths.finished.values()))
    assert len(deaths.reference.checkpoints) >= 9
    assert deaths.killed_step == deaths.lost_step == long.steps


def test_a_finished_cell_clears_what_a_loss_of_power_brought_back(short, tmp_path):
    cell = short.train(CELLS[1], tmp_path / "cell")
    before = stable_digests(cell)
    for name in (".result.json.tmp-0123abcd", "checkpoints/.last-00000008.tmp-0123abcd/state.json"):
        (cell / name).parent.mkdir(exist_ok=True)
        (cell / name).write_text("{}")
    short.train(CELLS[1], cell)  # nothing is trained
    assert stable_digests(cell) == before
