"""What a page is made of, before it is HTML: verdicts, sections, and blocks in them.

Invariant: every text here is plain text; the template escapes it, and nothing but the drawn charts
goes into a page as markup.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tyro_cli.analysis.columns import Table
from tyro_cli.reporting.plots import Chart


@dataclass(frozen=True)
class Fact:
    """One number of a verdict: its name, its value, and what stands below it."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class VerdictCard:
    """The verdict on one arm: in a few words, in a sentence, and its numbers.

    Attributes:
        title: The two arms.
        text: The verdict in a few words.
        sentence: The verdict with its interval and all that belongs to it; of a claim, what it has
            no numbers of.
        swatch: Number of the winner's colour, or None where no arm won.
        facts: The numbers to see first.
        points: Of a study, (point, its verdict in a sentence) for every point; of a claim, (open
            finding, what would settle it).
    """

    title: str
    text: str
    sentence: str
    swatch: int | None
    facts: tuple[Fact, ...]
    points: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ChartBlock:
    """Charts that stand beside each other where the page is wide enough."""

    charts: tuple[Chart, ...]
    kind: Literal["charts"] = "charts"


@dataclass(frozen=True)
class TableBlock:
    """A table, with the rows that are set off from the others, open or folded away."""

    table: Table
    marked: frozenset[int] = frozenset()
    folded: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class TextBlock:
    """Paragraphs."""

    paragraphs: tuple[str, ...]
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class CodeBlock:
    """Text to copy, such as commands or a configuration."""

    title: str
    text: str
    folded: bool = False
    kind: Literal["code"] = "code"


@dataclass(frozen=True)
class GroupBlock:
    """Blocks that are folded away together under one title."""

    title: str
    blocks: tuple["Block", ...]
    kind: Literal["group"] = "group"


Block = ChartBlock | TableBlock | TextBlock | CodeBlock | GroupBlock


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an anchor."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        kind: Of what.
        title: Name of the run or study.
        subtitle: What was trained, in one line.
        cards: The verdicts; a study that has many lists them in its first section instead.
        notices: What the reader must know before reading on: what is missing or failed.
        arms: (name, number of its colour) of every arm, the baseline first.
        sections: The parts, in order.
    """

    kind: Literal["run", "study", "claims"]
    title: str
    subtitle: str
    cards: tuple[VerdictCard, ...]
    notices: tuple[str, ...]
    arms: tuple[tuple[str, int], ...]
    sections: tuple[Section, ...] = field(default=())

    def charts(self) -> tuple[Chart, ...]:
        """Return every chart of the page, in order."""
        return tuple(chart for section in self.sections for chart in _charts_in(section.blocks))


def _charts_in(blocks: tuple[Block, ...]) -> Iterator[Chart]:
    for block in blocks:
        if isinstance(block, ChartBlock):
            yield from block.charts
        elif isinstance(block, GroupBlock):
            yield from _charts_in(block.blocks)
