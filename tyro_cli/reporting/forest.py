"""The forest plot: contrasts as points with their intervals, around zero and the margin.

Invariant: all rows of one plot are differences of arm - baseline in one unit, so that their lengths
compare and zero means the same in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.statistics import Interval
from tyro_cli.reporting.palette import BAND, MUTED, RULE, Colour
from tyro_cli.reporting.plots import (
    NARROW,
    WIDE,
    Align,
    Chart,
    Frame,
    Plot,
    Scale,
    Specification,
    domain,
    shortened_within,
)

MARGIN = 12
ZERO_LABEL = 90
"""Room for the words above zero, in pixels."""


@dataclass(frozen=True)
class Layout:
    """Where label, interval and numbers of a row stand.

    Attributes:
        left: Room left of the plot, for the labels where they stand beside it.
        right: Room right of the plot, for the numbers where they are shown.
        row_height: Height of a row in pixels.
        label: Place of the label in its row, from its top, as a fraction of its height.
        interval: Place of the interval.
        most: Characters of a label.
    """

    left: int
    right: int
    row_height: int
    label: float
    interval: float
    most: int


LAYOUTS = {
    WIDE: Layout(left=206, right=190, row_height=34, label=0.5, interval=0.5, most=34),
    NARROW: Layout(left=MARGIN, right=MARGIN, row_height=52, label=0.3, interval=0.7, most=38),
}


class Differences(Protocol):
    """What the plot asks of a contrast: its values over seeds, their mean and interval."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with a value."""

    @property
    def differences(self) -> tuple[float, ...]:
        """Arm - baseline for each of them."""

    @property
    def mean(self) -> float | None:
        """Their mean, or None without one."""

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Return the interval of the mean, or None where there is none."""


@dataclass(frozen=True)
class ForestRow:
    """One contrast of the plot.

    Attributes:
        label: Its name.
        contrast: The contrast.
        colour: The colour of its arm.
        shape: The mark of its arm.
        verdict: What it allows one to say, in a few words.
    """

    label: str
    contrast: Differences
    colour: Colour
    shape: str
    verdict: str


ARM_MINUS_BASELINE = (
    "Arm - baseline in test nats at the best-valid checkpoint unless the row says otherwise: left "
    "of zero the arm is better."
)
PAIRED = "Bars are 95 % paired t intervals over seeds, faint marks are seeds"


def forest_chart(
    rows: Sequence[ForestRow],
    unit: str,
    margin: tuple[float, str] | None,
    *,
    name: str,
    reading: str = ARM_MINUS_BASELINE,
    bars: str = PAIRED,
) -> Chart | None:
    """Draw contrasts as a forest plot, or return None where no contrast has a value.

    Args:
        rows: The contrasts, from top to bottom, all in one unit.
        unit: The unit, in words.
        margin: Half the width of the equivalence margin, and the margin in words; None for none.
        name: The chart's name.
        reading: The sentence that says what a difference is, and what it means.
        bars: What bars and faint marks are, where there are several seeds; without a full stop.
    """
    values = [difference for row in rows for difference in row.contrast.differences]
    if not values:
        return None
    bounds = [0.0] if margin is None else [0.0, margin[0], -margin[0]]
    for row in rows:
        interval = row.contrast.interval(0.95)
        if interval is not None:
            bounds += [interval.low, interval.high]
    several = any(len(row.contrast.seeds) > 1 for row in rows)

    def draw(width: int) -> Specification:
        layout = LAYOUTS[width]
        frame = Frame(
            width,
            64 + layout.row_height * len(rows),
            left=layout.left,
            right=layout.right,
            top=20,
            bottom=44,
        )
        low, high = domain([*values, *bounds], 0.04)
        plot = Plot(
            frame,
            Scale(low, high, f"difference in {unit}", "+~g", 4 if width == NARROW else 5),
            Scale(len(rows), 0),
        )
        # Zero and margin stop where a label is written, which stays readable.
        tall = [
            {"y": place + 2 * layout.interval - 1, "y2": place + 1} for place in range(len(rows))
        ]
        if margin is not None:
            plot.boxes([{"x": -margin[0], "x2": margin[0], **one} for one in tall], BAND)
        plot.rules([{"x": 0, "x2": 0, **one} for one in tall], MUTED)
        zero = [{"x": 0, "y": 0, "text": "no difference"}]
        plot.text(zero, MUTED, align=_side(plot), dy=-9)
        for place, row in enumerate(rows):
            _draw_row(plot, place, row, layout)
        return plot.build()

    return Chart(
        name=name,
        title="Differences and their intervals",
        caption=f"{reading} "
        + (bars if several else "Marks are single pairs, which have no interval over seeds")
        + ("." if margin is None else f"; the grey band is the margin of {margin[1]}."),
        description="Forest plot. " + " ".join(_in_words(row) for row in rows),
        narrow=draw(NARROW),
        wide=draw(WIDE),
        data=Table(
            f"{name}-data",
            f"Contrasts, {unit}",
            (
                Column("contrast", "contrast"),
                Column("differences", "difference by seed", "signed_numbers"),
                Column("mean", "mean", "signed"),
                Column("interval", "95 % interval", "interval"),
                Column("verdict", "verdict"),
            ),
            tuple(_data_row(row) for row in rows),
        ),
    )


def _side(plot: Plot) -> Align:
    """Return how to align the label of zero so that it stays in the picture."""
    zero = plot.pixels_x(0) + plot.frame.left
    if zero < ZERO_LABEL / 2:
        return "left"
    return "right" if plot.frame.width - zero < ZERO_LABEL / 2 else "center"


def _draw_row(plot: Plot, place: int, row: ForestRow, layout: Layout) -> None:
    contrast = row.contrast
    y = place + layout.interval
    label = {
        "x": plot.x.low,
        "y": place + layout.label,
        "text": shortened_within(row.label, layout.most),
    }
    plot.text([label], dx=-layout.left + 2)
    if layout.right > MARGIN:
        plot.text([{"x": plot.x.high, "y": y, "text": _numbers(contrast)}], MUTED, dx=14)
    elif contrast.mean is not None:
        mean = {"x": plot.x.high, "y": place + layout.label, "text": f"{contrast.mean:+.4f}"}
        plot.text([mean], MUTED, align="right")
    if place:
        line = {"x": plot.x.low, "x2": plot.x.high, "y": place, "y2": place}
        plot.rules([line], RULE, opacity=0.4)
    if contrast.mean is None:
        return
    interval = contrast.interval(0.95)
    thin = [
        {"x": value, "y": y, "tip": f"{row.label}, seed {seed}: {value:+.4f}"}
        for seed, value in zip(contrast.seeds, contrast.differences, strict=True)
    ]
    if interval is None:
        plot.points(thin, row.colour, shape=row.shape, size=110)
        return
    ends = {"x": interval.low, "x2": interval.high, "y": y, "y2": y}
    plot.rules([ends], row.colour, width=3)
    plot.points(thin, row.colour, shape=row.shape, size=36, opacity=0.45)
    middle = {"x": contrast.mean, "y": y, "tip": _in_words(row)}
    plot.points([middle], row.colour, shape=row.shape, size=130)


def _numbers(contrast: Differences) -> str:
    if contrast.mean is None:
        return "no pair"
    interval = contrast.interval(0.95)
    if interval is None:
        return f"{contrast.mean:+.4f}"
    return f"{contrast.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _in_words(row: ForestRow) -> str:
    verdict = f", {row.verdict}" if row.verdict else ""
    return f"{row.label}: {_numbers(row.contrast)}{verdict}."


def _data_row(row: ForestRow) -> Row:
    contrast = row.contrast
    if contrast.mean is None:
        return {"contrast": row.label, "verdict": row.verdict}
    interval = contrast.interval(0.95)
    return {
        "contrast": row.label,
        "differences": contrast.differences,
        "mean": contrast.mean,
        "interval": None if interval is None else (interval.low, interval.high),
        "verdict": row.verdict,
    }
