"""What a case is, and how it is measured: A B A B, each time in fresh processes.

Invariant: a measurement is a cost (lower is better) and nothing of it outlives its processes, so
allocator, threads and caches start clean. A ratio is the peer's cost over ours, taken between
neighbours in time: above 1 we are ahead. What costs are made of is left to the groups of cases.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from tyro_cli.experiments.limits import available_cores, available_memory_bytes

Start = Callable[[], None]  # what a measurement calls when it is warm

REPOSITORY = Path(__file__).resolve().parent.parent
READY, COST = "::ready", "::cost "
OUR_THREADS = max(1, available_cores() // 2)  # of each of the two workers of a pair
ALL_THREADS = available_cores()


@dataclass(frozen=True)
class Call:
    """One process of a measurement.

    Attributes:
        function: `MODULE:NAME` in this package; takes `start`, `seconds` and `arguments`, calls
            `start()` when it is warm, and returns a cost.
        arguments: JSON values.
        threads: Threads of the process.
    """

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    threads: int = 1

    def resolve(self) -> Callable[..., float]:
        """Return the function."""
        module, name = self.function.split(":")
        function: Callable[..., float] = getattr(import_module(f"benchmarks.{module}"), name)
        return function


@dataclass(frozen=True)
class Side:
    """One of the two programs of a comparison.

    Attributes:
        name: As the tables call it.
        stages: Follow one another and add up; the calls of a stage run at once, and the slowest
            is the stage's cost.
        needed_bytes: Memory without which it is not started.
    """

    name: str
    stages: tuple[tuple[Call, ...], ...]
    needed_bytes: int = 0


@dataclass(frozen=True)
class Comparison:
    """Our cost against a peer's, at one size.

    Attributes:
        label: The size.
        ours: Our side.
        peer: The other.
        size: On the horizontal axis of a curve; None where there is no curve.
    """

    label: str
    ours: Side
    peer: Side
    size: int | None = None


@dataclass(frozen=True)
class Case:
    """A question, with the comparisons that answer it.

    Attributes:
        name: On the command line.
        title: In the report.
        unit: Of the costs.
        comparisons: One, or the points of a curve.
        goal: Least median ratio that was asked for; None where none was.
        work: What one cost does, and its unit: (2e6, "tokens/s") shows 2e6 / cost beside it.
        note: What a reader must know to read the figures.
        repeats: Fixed where repeating changes nothing; None leaves it to the command line.
    """

    name: str
    title: str
    unit: str
    comparisons: tuple[Comparison, ...]
    goal: float | None = None
    work: tuple[float, str] | None = None
    note: str = ""
    repeats: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The costs of one comparison, in the order in which they were measured.

    Attributes:
        comparison: What was measured.
        our_costs: Ours; empty where the machine could not carry a side.
        peer_costs: The peer's.
        why_not: Why nothing was measured, if so.
    """

    comparison: Comparison
    our_costs: tuple[float, ...] = ()
    peer_costs: tuple[float, ...] = ()
    why_not: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Peer's cost over ours, of each pair of neighbours."""
        pairs = zip(self.our_costs, self.peer_costs, strict=True)
        return tuple(peer / ours for ours, peer in pairs)


class MeasurementFailed(Exception):
    """A process of a measurement ended without a cost."""


def run_case(case: Case, seconds: float, repeats: int) -> Iterator[Outcome]:
    """Measure a case, one comparison after the other, each in the order A B A B.

    Args:
        case: What to measure.
        seconds: Of each process, after its warm-up.
        repeats: Times each side is measured, unless the case fixes it.

    Raises:
        MeasurementFailed: If a process died; the message ends with what it said.
    """
    for comparison in case.comparisons:
        needed = max(comparison.ours.needed_bytes, comparison.peer.needed_bytes)
        free = available_memory_bytes()
        if free is not None and free < needed:
            why = f"needs {needed / 2**30:.0f} GiB of memory, {free / 2**30:.0f} GiB are free"
            yield Outcome(comparison, why_not=why)
            continue
        ours, peers = [], []
        for _ in range(case.repeats or repeats):
            ours.append(cost_of_side(comparison.ours, seconds))
            peers.append(cost_of_side(comparison.peer, seconds))
        yield Outcome(comparison, tuple(ours), tuple(peers))


def cost_of_side(side: Side, seconds: float) -> float:
    """Return the summed cost of a side's stages."""
    return sum(max(_run_at_once(calls, seconds)) for calls in side.stages)


def _run_at_once(calls: Sequence[Call], seconds: float) -> list[float]:
    """Start a process a call, let all begin when all are warm, and return their costs."""
    with tempfile.TemporaryFile("w+") as errors:
        processes = [_start(call, seconds, errors) for call in calls]
        try:
            for process in processes:
                _line_that_starts_with(READY, process, errors)
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            costs = [_line_that_starts_with(COST, process, errors) for process in processes]
            return [float(line.removeprefix(COST)) for line in costs]
        finally:
            for process in processes:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    assert stream is not None
                    stream.close()


def _start(call: Call, seconds: float, errors: IO[str]) -> "subprocess.Popen[str]":
    environment = os.environ | {
        "OMP_NUM_THREADS": str(call.threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.process"],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    assert process.stdin is not None
    order = {"function": call.function, "arguments": call.arguments}
    process.stdin.write(json.dumps(order | {"seconds": seconds, "threads": call.threads}) + "\n")
    process.stdin.flush()
    return process


def _line_that_starts_with(prefix: str, process: "subprocess.Popen[str]", errors: IO[str]) -> str:
    """Return the next line of ours; what libraries print in between is dropped."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(prefix):
            return line
    errors.seek(0)
    raise MeasurementFailed(f"a measurement died:\n{errors.read()[-2000:]}")


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return b of the least-squares fit cost = a * size ** b, on logarithms."""
    fit = statistics.linear_regression([math.log(x) for x in sizes], [math.log(c) for c in costs])
    return fit.slope
