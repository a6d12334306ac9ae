"""The grammar that every chart is written in: a frame, two scales, and layers of marks.

Invariant: a specification is a plain Vega-Lite dict, and its size and the place of every mark
follow from numbers alone. Nothing is placed by measuring text (`autosize` is `none`), so a chart is
the same on a machine with other fonts. Text from records enters as data only, never as a field
name or an expression.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tyro_cli.analysis.columns import Table
from tyro_cli.analysis.rendering import on_one_line
from tyro_cli.reporting.palette import GRID, INK, MUTED, RULE, Colour

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
FONT = "Helvetica, Arial, Liberation Sans, sans-serif"
TEXT_SIZE = 12

WIDE = 720
NARROW = 340
"""Width of a chart across the page, and of one in half the page or on a telephone, in pixels."""

Specification = dict[str, Any]
Align = Literal["left", "center", "right"]
Values = list[dict[str, Any]]

LABEL_GAP = 15
"""Least distance between two labels above each other, in pixels."""
LEAST_END_ROOM = 78
BOLD_CHARACTER_WIDTH = 0.6 * TEXT_SIZE
"""About the width of a character of a bold label, in pixels, with some to spare."""


@dataclass(frozen=True)
class Chart:
    """A chart with all that a reader needs who cannot see it.

    Attributes:
        name: Of its files and its anchor.
        title: What it shows, in a few words.
        caption: How it is read.
        description: Alternative text: what is to be seen, with the numbers that matter.
        narrow: The specification for half the page and for a telephone.
        wide: The one for the whole width of a page, or None where the narrow one serves.
        data: Every number that is drawn.
        key: Colours that are not labelled in the chart itself.
    """

    name: str
    title: str
    caption: str
    description: str
    narrow: Specification
    wide: Specification | None
    data: Table
    key: tuple[tuple[str, Colour], ...] = ()


@dataclass(frozen=True)
class EndLabel:
    """A name right of where a line ends, at the height of its last value."""

    value: float
    text: str
    colour: Colour
    bold: bool = True


@dataclass(frozen=True)
class Frame:
    """The room of a chart in pixels: all of it, and the margins around the plotted part."""

    width: int
    height: int
    left: int = 48
    right: int = 24
    top: int = 30
    bottom: int = 42

    @property
    def inner_width(self) -> int:
        """Width of the plotted part."""
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> int:
        """Height of the plotted part."""
        return self.height - self.top - self.bottom


@dataclass(frozen=True)
class Scale:
    """A linear scale; without a title it has no axis.

    Attributes:
        low: The value at the start of the axis.
        high: The value at its end.
        title: Name and unit, or "" for no axis at all.
        format: d3 format of the tick labels.
        ticks: About how many ticks.
        grid: Whether faint lines cross the plot.
        integers: Whether only whole numbers can be ticks.
        flush: Whether the first and last label of an x axis stay within its ends.
    """

    low: float
    high: float
    title: str = ""
    format: str = ""
    ticks: int = 5
    grid: bool = False
    integers: bool = False
    flush: bool = False


@dataclass
class Plot:
    """Layers of marks on two scales, turned into a specification by `build`."""

    frame: Frame
    x: Scale
    y: Scale
    layers: list[Specification] = field(default_factory=list)

    def pixels_y(self, value: float) -> float:
        """Return how far below the top of the plotted part a value lies."""
        return self.frame.inner_height * (self.y.high - value) / (self.y.high - self.y.low)

    def value_at_y(self, pixels: float) -> float:
        """Return the value that lies so far below the top."""
        return self.y.high - pixels * (self.y.high - self.y.low) / self.frame.inner_height

    def pixels_x(self, value: float) -> float:
        """Return how far right of the left edge of the plotted part a value lies."""
        return self.frame.inner_width * (value - self.x.low) / (self.x.high - self.x.low)

    def lines(
        self,
        values: Values,
        colour: Colour,
        *,
        width: float,
        opacity: float = 1.0,
        dash: Sequence[int] = (),
    ) -> None:
        """Draw one line through the rows of each `series`."""
        mark: Specification = {
            "type": "line",
            "stroke": colour.light,
            "strokeWidth": width,
            "strokeOpacity": opacity,
            "strokeJoin": "round",
            "strokeCap": "round",
        }
        if dash:
            mark["strokeDash"] = list(dash)
        self._add(mark, values, detail={"field": "series", "type": "nominal"})

    def band(self, values: Values, colour: Colour) -> None:
        """Fill what lies between `y` and `y2` along x."""
        self._add({"type": "area", "fill": colour.light, "fillOpacity": 0.16}, values)

    def rules(
        self,
        values: Values,
        colour: Colour,
        *,
        width: float = 1.0,
        opacity: float = 1.0,
    ) -> None:
        """Draw straight lines from (x, y) to (x2, y2)."""
        mark: Specification = {
            "type": "rule",
            "stroke": colour.light,
            "strokeWidth": width,
            "strokeOpacity": opacity,
        }
        self._add(mark, values)

    def boxes(self, values: Values, colour: Colour) -> None:
        """Fill rectangles from (x, y) to (x2, y2); a row with a `tip` can be pointed at."""
        self._add({"type": "rect", "fill": colour.light}, values)

    def points(
        self,
        values: Values,
        colour: Colour,
        *,
        shape: str = "circle",
        size: float = 60,
        opacity: float = 1.0,
        hollow: bool = False,
    ) -> None:
        """Draw a mark at each (x, y); a row with a `tip` can be pointed at."""
        mark: Specification = {
            "type": "point",
            "shape": shape,
            "size": size,
            "fill": None if hollow else colour.light,
            "fillOpacity": opacity,
            "stroke": colour.light if hollow else None,
            "strokeWidth": 1.75 if hollow else 0,
        }
        self._add(mark, values)

    def text(
        self,
        values: Values,
        colour: Colour = INK,
        *,
        align: Align = "left",
        baseline: Literal["top", "middle"] = "middle",
        dx: float = 0,
        dy: float = 0,
        bold: bool = False,
    ) -> None:
        """Write the `text` of each row at (x, y)."""
        mark: Specification = {
            "type": "text",
            "fill": colour.light,
            "align": align,
            "baseline": baseline,
            "dx": dx,
            "dy": dy,
            "fontSize": TEXT_SIZE,
        }
        if bold:
            mark["fontWeight"] = 600
        self._add(mark, values, text={"field": "text", "type": "nominal"})

    def end_labels(self, x: float, labels: Sequence[EndLabel], *, dx: float) -> None:
        """Write labels right of x, moved apart where they would touch."""
        wanted = [self.pixels_y(one.value) for one in labels]
        places = spread(wanted, LABEL_GAP, 0, self.frame.inner_height)
        rows: dict[tuple[Colour, bool], Values] = {}
        for one, pixels in zip(labels, places, strict=True):
            row = {"x": x, "y": self.value_at_y(pixels), "text": one.text}
            rows.setdefault((one.colour, one.bold), []).append(row)
        for (colour, bold), values in rows.items():
            self.text(values, colour, dx=dx, bold=bold)

    def name_levels(self, levels: Sequence[str], title: str) -> None:
        """Write names below x = 0, 1, ... and a title below them, where x has no axis."""
        low = self.y.low
        names: Values = [
            {"x": place, "y": low, "text": shortened(level, 34 // len(levels) + 2)}
            for place, level in enumerate(levels)
        ]
        self.text(names, MUTED, align="center", baseline="top", dy=8)
        below = {"x": (len(levels) - 1) / 2, "y": low, "text": shortened(title, 40)}
        self.text([below], MUTED, align="center", baseline="top", dy=26)

    def build(self) -> Specification:
        """Return the Vega-Lite specification."""
        frame = self.frame
        return {
            "$schema": SCHEMA,
            "autosize": {"type": "none"},
            "width": frame.inner_width,
            "height": frame.inner_height,
            "padding": {
                "left": frame.left,
                "right": frame.right,
                "top": frame.top,
                "bottom": frame.bottom,
            },
            "background": None,
            "config": {"view": {"stroke": None}, "font": FONT},
            "layer": self.layers,
        }

    def _add(self, mark: Specification, values: Values, **channels: Specification) -> None:
        if not values:
            return
        values = [
            {key: on_one_line(one) if isinstance(one, str) else one for key, one in row.items()}
            for row in values
        ]
        described = any("tip" in row for row in values)
        encoding: Specification = {
            "x": _channel("x", self.x, _x_axis(self.x)),
            "y": _channel("y", self.y, _y_axis(self.y, self.frame)),
            **channels,
        }
        for second in ("x2", "y2"):
            if second in values[0]:
                encoding[second] = {"field": second}
        if described:
            encoding["description"] = {"field": "tip", "type": "nominal"}
        self.layers.append(
            {
                "mark": {**mark, "aria": described},
                "data": {"values": values},
                "encoding": encoding,
            }
        )


def _channel(name: str, scale: Scale, axis: Specification | None) -> Specification:
    return {
        "field": name,
        "type": "quantitative",
        "scale": {"domain": [scale.low, scale.high], "nice": False, "zero": False},
        "axis": axis,
    }


def _axis(scale: Scale) -> Specification:
    axis: Specification = {
        "title": scale.title,
        "aria": False,
        "grid": scale.grid,
        "gridColor": GRID.light,
        "domainColor": RULE.light,
        "tickColor": RULE.light,
        "tickSize": 4,
        "tickCount": scale.ticks,
        "labelColor": MUTED.light,
        "labelFontSize": TEXT_SIZE,
        "labelFlush": False,
        "labelOverlap": False,
        "labelPadding": 4,
        "titleColor": MUTED.light,
        "titleFontSize": TEXT_SIZE,
        "titleFontWeight": "normal",
    }
    if scale.format:
        axis["format"] = scale.format
        # d3 writes zero as "0k" or "+0" in these formats.
        axis["labelExpr"] = "datum.value === 0 ? '0' : datum.label"
    if scale.integers:
        axis["tickMinStep"] = 1
    return axis


def _x_axis(scale: Scale) -> Specification | None:
    if not scale.title:
        return None
    return {**_axis(scale), "titleY": 26, "titleBaseline": "top", "labelFlush": scale.flush}


def _y_axis(scale: Scale, frame: Frame) -> Specification | None:
    """Write the title above the axis, where it is read without turning one's head."""
    if not scale.title:
        return None
    return {
        **_axis(scale),
        "grid": True,
        "domain": False,
        "ticks": False,
        "titleAngle": 0,
        "titleAlign": "left",
        "titleBaseline": "bottom",
        "titleAnchor": "start",
        "titleX": 2 - frame.left,
        "titleY": -14,
    }


def domain(values: Sequence[float], room: float = 0.08) -> tuple[float, float]:
    """Return a range that holds all values with some room on both sides."""
    low, high = min(values), max(values)
    margin = (high - low) * room or max(abs(high) * 0.05, 1e-6)
    return low - margin, high + margin


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart until they are `gap` from each other, as near their places as that allows.

    Args:
        places: Where each label should be.
        gap: The least distance between two.
        low: The least place there is.
        high: The greatest place there is.
    """
    order = sorted(range(len(places)), key=lambda index: (places[index], index))
    groups: list[list[int]] = []
    centres: list[float] = []
    for index in order:
        groups.append([index])
        centres.append(places[index])
        # Labels that touch become one block around their common middle.
        while len(groups) > 1:
            need = gap * (len(groups[-1]) + len(groups[-2])) / 2
            if centres[-1] - centres[-2] >= need:
                break
            merged = groups[-2] + groups[-1]
            groups[-2:] = [merged]
            centres[-2:] = [sum(places[one] for one in merged) / len(merged)]
    moved = [0.0] * len(places)
    for group, centre in zip(groups, centres, strict=True):
        half = gap * (len(group) - 1) / 2
        middle = min(max(centre, low + half), max(high - half, low + half))
        for position, index in enumerate(group):
            moved[index] = middle - half + gap * position
    return moved


def end_room(labels: Iterable[str], dx: float) -> int:
    """Return the margin, in pixels, that labels at the ends of lines take, dx right of them."""
    longest = max(map(len, labels), default=0)
    return max(LEAST_END_ROOM, math.ceil(dx + BOLD_CHARACTER_WIDTH * longest))


def shortened(text: str, most: int) -> str:
    """Return text for a label: on one line, and cut with an ellipsis past so many characters."""
    line = on_one_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def shortened_within(text: str, most: int) -> str:
    """Return text as `shortened` does, but cut in its middle: the end may tell it from others."""
    line = on_one_line(text)
    if len(line) <= most:
        return line
    end = (most - 1) // 2
    return f"{line[: most - 1 - end]}…{line[-end:]}"
