"""Learning curves: the losses that the cells wrote down while they trained, thinned for a chart.

Invariant: `metrics.jsonl` is untrusted, so a line whose numbers are missing or of another kind is a
`DamagedRecord` that names file and line. Train losses are averaged over equal windows of steps, the
same for every cell; valid losses are shown as measured. A cell without the file has no curve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tyro_cli.analysis.records import CellRecord, RunRecords
from tyro_cli.errors import DamagedRecord
from tyro_cli.storage.records import read_records

MOST_POINTS = 60
"""Points of one curve: more cannot be told apart in a chart of 340 pixels."""

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """The losses of one cell by step, in nats per token.

    Attributes:
        arm: The arm.
        seed: The seed.
        finished: Whether the cell is done, so that it counts in its arm's mean.
        train: (last step of a window, mean train loss in it).
        valid: (step, valid loss).
    """

    arm: str
    seed: int
    finished: bool
    train: Points
    valid: Points


def read_curves(run: RunRecords, most_points: int = MOST_POINTS) -> tuple[Curve, ...]:
    """Read the curve of every planned cell that has one, in the order of arms and seeds.

    Args:
        run: The run.
        most_points: About how many points a curve is thinned to.

    Raises:
        DamagedRecord: A line does not say what it must.
        StorageError: A file cannot be read.
    """
    raw = [
        (cell, *_losses(cell))
        for arm in run.arms
        for cell in run.cells_of(arm)
        if (cell.folder / "metrics.jsonl").is_file()
    ]
    last = max((step for _, train, _ in raw for step, _ in train), default=0)
    window = max(1, math.ceil(last / most_points))
    return tuple(
        Curve(
            arm=cell.arm,
            seed=cell.seed,
            finished=cell.status == "done",
            train=_windowed(train, window),
            valid=_thinned(valid, most_points),
        )
        for cell, train, valid in raw
        if train or valid
    )


def mean_curve(curves: Sequence[Points]) -> Points:
    """Return the mean over curves at every step that all of them have."""
    by_step: list[Mapping[float, float]] = [dict(points) for points in curves]
    if not by_step:
        return ()
    shared = set(by_step[0]).intersection(*by_step[1:])
    return tuple((step, fmean(one[step] for one in by_step)) for step in sorted(shared))


def _losses(cell: CellRecord) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    path = cell.folder / "metrics.jsonl"
    train: list[tuple[int, float]] = []
    valid: list[tuple[int, float]] = []
    names = {"train": ("loss_nats", train), "evaluation": ("valid_nats_per_token", valid)}
    for number, record in enumerate(read_records(path), start=1):
        kind = record.get("kind")
        if not isinstance(kind, str) or kind not in names:
            continue
        name, points = names[kind]
        step: Any = record.get("step")
        loss: Any = record.get(name)
        # A bool is an int to Python, but no step or loss of ours.
        sound_step = type(step) is int and step >= 0
        if not sound_step or type(loss) not in (int, float) or not math.isfinite(loss):
            wrong = f"{name}: {loss!r}" if sound_step else f"step: {step!r}"
            raise DamagedRecord(
                f"{path}: line {number}: {wrong[:80]} is not what it must be",
                "Restore the file from a copy, or move the cell's folder aside and train the cell "
                "again with the same command.",
            )
        points.append((step, float(loss)))
    return train, valid


def _windowed(points: Sequence[tuple[int, float]], window: int) -> Points:
    """Average over windows that end at multiples of `window`, so that all cells share them."""
    windows: dict[int, list[float]] = {}
    for step, loss in points:
        windows.setdefault(math.ceil(step / window) * window, []).append(loss)
    return tuple((step, fmean(losses)) for step, losses in sorted(windows.items()))


def _thinned(points: Sequence[tuple[int, float]], most_points: int) -> Points:
    """Keep every k-th evaluation, counted from the last, which stays."""
    stride = max(1, math.ceil(len(points) / most_points))
    return tuple(sorted(points)[::-1][::stride][::-1])
