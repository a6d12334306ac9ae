"""The forest plot: contrasts as points with their intervals, around zero and the margin.

Invariant: all rows of one plot are of one unit, differences of arm - baseline in nats, so that their
lengths compare. A contrast without an interval shows its points only, one without a pair its name
and the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.contrasts import Contrast
from tyro_cli.reporting.palette import BAND, MUTED, RULE, Colour
from tyro_cli.reporting.plots import (
    NARROW,
    WIDE,
    Chart,
    Frame,
    Plot,
    Scale,
    Specification,
    domain,
    shortened,
)

ROW_HEIGHT = 52
LABEL_CHARACTERS = {WIDE: 100, NARROW: 50}


@dataclass(frozen=True)
class ForestRow:
    """One contrast of the plot.

    Attributes:
        label: Its name.
        contrast: The contrast, in nats.
        colour: The colour of its arm.
        shape: The mark of its arm.
        verdict: What it allows one to say, in a few words.
    """

    label: str
    contrast: Contrast
    colour: Colour
    shape: str
    verdict: str


def forest_chart(
    rows: Sequence[ForestRow], unit: str, margin_nats: float, margin_in_words: str, *, name: str
) -> Chart | None:
    """Draw contrasts as a forest plot, or return None where no contrast has a value.

    Args:
        rows: The contrasts, from top to bottom, all in one unit.
        unit: The unit, in words.
        margin_nats: Half the width of the equivalence margin, in nats.
        margin_in_words: The margin as the verdicts name it.
        name: The chart's name.
    """
    values = [difference for row in rows for difference in row.contrast.differences]
    if not values:
        return None
    bounds = [0.0, margin_nats, -margin_nats]
    for row in rows:
        interval = row.contrast.interval(0.95)
        if interval is not None:
            bounds += [interval.low, interval.high]
    several = any(len(row.contrast.seeds) > 1 for row in rows)

    def draw(width: int) -> Specification:
        frame = Frame(width, 60 + ROW_HEIGHT * len(rows), left=8, right=12, top=16, bottom=44)
        low, high = domain([*values, *bounds], 0.04)
        plot = Plot(
            frame,
            Scale(low, high, f"difference in {unit}", "+~g", 4 if width == NARROW else 7),
            Scale(len(rows), 0),
        )
        whole = {"y": 0, "y2": len(rows)}
        plot.boxes([{"x": -margin_nats, "x2": margin_nats, **whole}], BAND)
        plot.rules([{"x": 0, "x2": 0, **whole}], MUTED)
        plot.text(
            [{"x": 0, "y": 0, "text": "no difference"}],
            MUTED,
            align=_side(plot),
            dy=-8,
        )
        for place, row in enumerate(rows):
            _draw_row(plot, place, row, width)
        return plot.build()

    return Chart(
        name=name,
        title="Contrasts",
        caption="Arm - baseline in test nats at the best-valid checkpoint unless the row says "
        "otherwise: left of zero the arm is better. "
        + (
            "Bars are 95 % paired t intervals over seeds, faint marks are seeds; "
            if several
            else "Marks are single pairs, which have no interval over seeds; "
        )
        + f"the grey band is the margin of {margin_in_words}.",
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


def _side(plot: Plot) -> str:
    middle = plot.pixels_x(0) / plot.frame.inner_width
    return "left" if middle < 0.2 else "right" if middle > 0.8 else "center"


def _draw_row(plot: Plot, place: int, row: ForestRow, width: int) -> None:
    """Write label and numbers above the interval, which then has the whole width to itself."""
    contrast = row.contrast
    y = place + 0.72
    numbers = _numbers(contrast) if width == WIDE else ""
    most = LABEL_CHARACTERS[width] - len(numbers)
    plot.text(
        [{"x": plot.x.low, "y": place + 0.34, "text": shortened(row.label, most)}],
        size=12,
    )
    if numbers:
        plot.text([{"x": plot.x.high, "y": place + 0.34, "text": numbers}], MUTED, align="right")
    if contrast.mean is None:
        return
    interval = contrast.interval(0.95)
    thin = [
        {"x": value, "y": y, "tip": f"{row.label}, seed {seed}: {value:+.4f}"}
        for seed, value in zip(contrast.seeds, contrast.differences, strict=True)
    ]
    plot.rules(
        [{"x": plot.x.low, "x2": plot.x.high, "y": place + 1, "y2": place + 1}], RULE, opacity=0.4
    )
    if interval is None:
        plot.points(thin, row.colour, shape=row.shape, size=110)
        return
    ends = {"x": interval.low, "x2": interval.high, "y": y, "y2": y}
    plot.rules([ends], row.colour, width=3)
    plot.points(thin, row.colour, shape=row.shape, size=36, opacity=0.45)
    plot.points(
        [{"x": contrast.mean, "y": y, "tip": _in_words(row)}],
        row.colour,
        shape=row.shape,
        size=130,
    )


def _numbers(contrast: Contrast) -> str:
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
