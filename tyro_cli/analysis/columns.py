"""What a table is: typed columns, rows of plain values, and notes.

Invariant: a row holds values, never formatted text, so that every rendering starts from the same
numbers. None means not applicable (`n/a`); a key that is absent means there is nothing to show yet.
How a value looks is left to `rendering`, and on a terminal to the command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ColumnKind = Literal[
    "text",  # str
    "integer",  # int
    "signed_integer",  # int, shown with its sign
    "number",  # float
    "shortest",  # float, shown with as many digits as it needs
    "signed",  # float, shown with its sign
    "interval",  # (low, high), shown with signs
    "numbers",  # a tuple of floats
    "signed_numbers",  # a tuple of floats, shown with their signs
    "p",  # a p value or a tuple of them, shown as a bound where it would round to 0 or 1
    "percent",  # float, a fraction shown as a percentage
    "bytes",  # int, shown in binary units
]

CellValue = str | int | float | tuple[float, ...] | None
Row = Mapping[str, CellValue]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: Name in the rows, and in csv and json.
        header: Name for readers.
        kind: Type of its values.
        digits: Digits after the point, where the kind has any.
        on_screen: Whether it is shown on a terminal; files always hold every column.
    """

    key: str
    header: str
    kind: ColumnKind = "text"
    digits: int = 4
    on_screen: bool = True


@dataclass(frozen=True)
class Table:
    """A table that every format is rendered from.

    Notes are sentences; what stands between `backticks` in them is code, as in Markdown.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
