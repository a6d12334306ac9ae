"""The generalisation gap of every cell, at the best and at the last checkpoint.

Invariant: one mark pair a cell that is done; both losses were measured in evaluation mode, valid on
the whole split and train on a part of its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.formats import CellResult
from tyro_cli.reporting.palette import MUTED, RULE, Colour
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

LABEL_COLUMNS = (120, 215)
"""Room for the labels beside the plot: for names of arms, and for those with levels."""

SHORT_LABEL = 16
LABEL_HEIGHT = 22
SEED_HEIGHT = 16


@dataclass(frozen=True)
class GapRow:
    """One arm, at one point of a study or in a run, with the results of its cells."""

    label: str
    colour: Colour
    results: tuple[CellResult, ...]

    def gaps(self) -> list[tuple[int, float, float]]:
        """Return (seed, gap at the best step, gap at the last) of every cell."""
        return [
            (
                one.seed,
                one.evaluation("best").generalisation_gap_nats,
                one.evaluation("last").generalisation_gap_nats,
            )
            for one in self.results
        ]


def gap_chart(rows: Sequence[GapRow]) -> Chart | None:
    """Draw the gaps of every row, or return None where no cell is done."""
    present = [row for row in rows if row.results]
    if not present:
        return None
    means = [
        f"{row.label} {fmean(best for _, best, _ in row.gaps()):+.4f} at the best step, "
        f"{fmean(last for _, _, last in row.gaps()):+.4f} at the last"
        for row in present
    ]
    data: list[Row] = [
        {"arm": row.label, "seed": str(seed), "best": best, "last": last}
        for row in present
        for seed, best, last in row.gaps()
    ]
    return Chart(
        name="gap",
        title="Generalisation gap",
        caption="One line a seed: the full mark is the best-valid checkpoint, the open one the "
        "last. Right of zero, the text trained on is easier than text that was not.",
        description=f"Gap in nats per token, means over seeds: {'; '.join(means)}.",
        narrow=_draw(present, NARROW),
        wide=_draw(present, WIDE),
        data=Table(
            "gap-data",
            "Generalisation gap: valid minus a part of train, nats per token",
            (
                Column("arm", "arm"),
                Column("seed", "seed"),
                Column("best", "at best step", "signed"),
                Column("last", "at last step", "signed"),
            ),
            tuple(data),
        ),
    )


def _draw(rows: Sequence[GapRow], width: int) -> Specification:
    """Place rows in pixels from the top, since each is as tall as it has seeds."""
    beside = width == WIDE
    heights = [
        SEED_HEIGHT * len(row.results) + (14 if beside else LABEL_HEIGHT + 12) for row in rows
    ]
    total = sum(heights)
    everything = [gap for row in rows for _, *gaps in row.gaps() for gap in gaps]
    low, high = domain([*everything, 0.0])
    short = all(len(row.label) <= SHORT_LABEL for row in rows)
    left = (LABEL_COLUMNS[0] if short else LABEL_COLUMNS[1]) if beside else 8
    plot = Plot(
        Frame(width, total + 62, left=left, right=16, top=16, bottom=46),
        Scale(low, high, "valid - train, nats per token", ticks=4, grid=True),
        Scale(total, 0),
    )
    plot.rules([{"x": 0, "x2": 0, "y": 0, "y2": total}], MUTED)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        if top:
            plot.rules([{"x": low, "x2": high, "y": top, "y2": top}], RULE, opacity=0.5)
        first = top + (7 if beside else LABEL_HEIGHT) + SEED_HEIGHT / 2
        label_y = top + height / 2 if beside else top + LABEL_HEIGHT / 2 + 2
        label = {"x": low, "y": label_y, "text": shortened(row.label, 34 if beside else 46)}
        plot.text([label], row.colour, dx=2 - left if beside else 0, bold=True)
        placed = [
            (seed, best, last, first + SEED_HEIGHT * index)
            for index, (seed, best, last) in enumerate(row.gaps())
        ]
        plot.rules(
            [{"x": best, "x2": last, "y": y, "y2": y} for _, best, last, y in placed],
            row.colour,
            width=1.5,
            opacity=0.6,
        )
        lasts = [
            {
                "x": last,
                "y": y,
                "tip": f"{row.label}, seed {seed}, last step: {last:+.4f} nats per token",
            }
            for seed, _, last, y in placed
        ]
        plot.points(lasts, row.colour, size=70, hollow=True)
        bests = [
            {
                "x": best,
                "y": y,
                "tip": f"{row.label}, seed {seed}, best step: {best:+.4f} nats per token",
            }
            for seed, best, _, y in placed
        ]
        plot.points(bests, row.colour, size=60)
        top += height
    return plot.build()
