"""Bars of parameters: what each arm is made of, component by component.

Invariant: segments are the rows of the ledger, so that a bar ends at the arm's unique parameters;
a matrix that is shared stands in it once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.formats import LedgerRecord
from tyro_cli.reporting.palette import COMPONENTS, INK, ON_COMPONENT, OTHER_COMPONENT, Colour
from tyro_cli.reporting.plots import (
    NARROW,
    TEXT_SIZE,
    WIDE,
    Chart,
    Frame,
    Plot,
    Scale,
    Specification,
    Values,
    shortened,
)

CHARACTER_WIDTH = 0.56 * TEXT_SIZE
"""About the width of a character of a label, in pixels, with some to spare."""

DARK_COMPONENTS = ("token embedding", "positions", "attention")
"""Components whose colour asks for light text."""

BAR_HEIGHT = 52


@dataclass(frozen=True)
class Bar:
    """One bar: its name and the ledger that it shows."""

    label: str
    ledger: LedgerRecord

    def counts(self) -> dict[str, int]:
        """Return the parameters of each component."""
        counts: dict[str, int] = {}
        for row in self.ledger.rows:
            counts[row.component] = counts.get(row.component, 0) + row.parameters
        return counts


def parameter_chart(bars: Sequence[Bar]) -> Chart:
    """Draw the unique parameters of each arm as one bar of components."""
    every = dict.fromkeys(name for bar in bars for name, count in bar.counts().items() if count)
    components = tuple(every)
    return Chart(
        name="parameters",
        title="Where the parameters are",
        caption="One bar an arm, one segment a component; a shared matrix counts once.",
        description="Stacked bars of unique parameters by component. Totals: "
        + ", ".join(f"{bar.label} {bar.ledger.total:,}" for bar in bars)
        + ".",
        narrow=_draw(bars, components, NARROW),
        wide=_draw(bars, components, WIDE),
        data=_table(bars, components),
        key=tuple((name, component_colour(name)) for name in components),
    )


def component_colour(name: str) -> Colour:
    """Return the colour of a component of the ledger."""
    return COMPONENTS.get(name, OTHER_COMPONENT)


def _draw(bars: Sequence[Bar], components: Sequence[str], width: int) -> Specification:
    most = max(bar.ledger.total for bar in bars) or 1
    plot = Plot(
        Frame(width, 54 + BAR_HEIGHT * len(bars), left=2, right=10, top=4, bottom=46),
        Scale(0, most, "unique parameters", "~s", 4 if width == NARROW else 6, flush=True),
        Scale(len(bars), 0),
    )
    boxes: dict[str, Values] = {name: [] for name in components}
    labels: dict[bool, Values] = {True: [], False: []}
    for place, bar in enumerate(bars):
        start, total = 0, bar.ledger.total
        for name in components:
            count = bar.counts().get(name, 0)
            if not count:
                continue
            share = f"{count / total:.1%}".replace("%", " %")
            boxes[name].append(
                {
                    "x": start,
                    "x2": start + count,
                    "y": place + 0.38,
                    "y2": place + 0.88,
                    "tip": f"{bar.label}, {name}: {count:,} parameters, {share}",
                }
            )
            room = plot.pixels_x(count) - 12
            texts = (f"{name} {share}", name, share)
            text = next((one for one in texts if len(one) * CHARACTER_WIDTH < room), None)
            if text:
                labels[name in DARK_COMPONENTS].append(
                    {"x": start + count / 2, "y": place + 0.635, "text": text}
                )
            start += count
    for name in components:
        plot.boxes(boxes[name], component_colour(name))
    names = [
        {"x": 0, "y": place + 0.2, "text": f"{shortened(bar.label, 34)}: {bar.ledger.total:,}"}
        for place, bar in enumerate(bars)
    ]
    plot.text(names, bold=True)
    plot.text(labels[True], ON_COMPONENT, align="center")
    plot.text(labels[False], INK, align="center")
    return plot.build()


def _table(bars: Sequence[Bar], components: Sequence[str]) -> Table:
    rows: list[Row] = [
        {
            "arm": bar.label,
            **{f"count {name}": bar.counts().get(name, 0) for name in components},
            "total": bar.ledger.total,
        }
        for bar in bars
    ]
    return Table(
        "parameters-data",
        "Unique parameters by component",
        (
            Column("arm", "arm"),
            *(Column(f"count {name}", name, "integer") for name in components),
            Column("total", "total", "integer"),
        ),
        tuple(rows),
    )
