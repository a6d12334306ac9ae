"""Values of a YAML text with the place each of them stands at.

A `Node` knows its `Place`, a `Place` its `Source`, so a value that came through `extends` or from
the command line can still be pointed at. Nodes are immutable; merging builds new ones. Reading
YAML is left to `composing`, and deciding what is wrong to `loading`.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

# A line longer than this is shown as the part around the caret.
LONGEST_SHOWN_LINE = 100

# The keys of these sections are alternatives: a later layer's choice replaces the earlier one.
ALTERNATIVES = (("training", "budget"), ("tune", "budget"))

Scalar: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A text that values come from: a file, or one `key=value` of the command line.

    Args:
        label: The path as the user wrote it, or `command line: key=value`.
        lines: The text's lines; empty for the command line, which has no positions.
        order: Place of this source when problems are sorted.
    """

    label: str
    lines: tuple[str, ...]
    order: int


@dataclass(frozen=True, slots=True)
class Place:
    """A span in one line of a source; line and column count from 0."""

    source: Source
    line: int
    column: int
    length: int

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """Order of places: by source, then by line and column."""
        return (self.source.order, self.line, self.column)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a map, with the place of the key, and its value."""

    place: Place
    node: "Node"


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place.

    Args:
        place: Where the value stands.
        value: A scalar, a map of entries in the order written, or a list of nodes.
        raw: The text of a scalar as written; None for maps and lists.
        size: Number of values in it, itself included, with aliases counted in full.
        height: Levels of nesting, itself included.
    """

    place: Place
    value: "Scalar | Mapping[str, Entry] | Sequence[Node]"
    raw: str | None = None
    size: int = field(default=1, compare=False)
    height: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the configuration, and where.

    Args:
        place: Where.
        path: The dotted path, or nothing where the text cannot be read at all.
        message: What is wrong.
        hides_value: The value was not read, so nothing else is to be said of it.
    """

    place: Place
    path: str
    message: str
    hides_value: bool = False

    def render(self) -> str:
        """Return `file:line:column: path: message`, the line, and a caret under the place."""
        said = f"{self.path}: {self.message}" if self.path else self.message
        source = self.place.source
        if not source.lines:
            return f"{source.label}: {said}"
        number = self.place.line + 1
        head = f"{source.label}:{number}:{self.place.column + 1}: {said}"
        shown, caret = _shown_line(self.place)
        gutter = f"{number:>5} | "
        return f"{head}\n{gutter}{shown}\n{' ' * (len(gutter) - 2)}| {caret}"


def _shown_line(place: Place) -> tuple[str, str]:
    """Return the line, cut and without control characters, and carets under the place."""
    lines = place.source.lines
    line = lines[place.line] if place.line < len(lines) else ""
    column = min(place.column, len(line))
    first = max(0, column - LONGEST_SHOWN_LINE // 2) if len(line) > LONGEST_SHOWN_LINE else 0
    shown = line[first : first + LONGEST_SHOWN_LINE]
    length = max(1, min(place.length, len(shown) - (column - first)))
    before, marked = shown[: column - first], shown[column - first : column - first + length]
    prefix, suffix = "..." if first else "", "..." if first + len(shown) < len(line) else ""
    carets = "^" * max(1, sum(map(_columns, marked)))
    return (
        prefix + "".join(c if c.isprintable() else " " for c in shown) + suffix,
        " " * (len(prefix) + sum(map(_columns, before))) + carets,
    )


def _columns(character: str) -> int:
    """Return how many terminal columns a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def plain(node: Node) -> Any:
    """Return the value without places: scalars, dicts and lists."""
    if isinstance(node.value, Mapping):
        return {key: plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, list | tuple):
        return [plain(item) for item in node.value]
    return node.value


def merge(base: Node, over: Node, path: tuple[str, ...] = ()) -> Node:
    """Lay one node over another: maps merge key by key, everything else is replaced."""
    if (
        not isinstance(base.value, Mapping)
        or not isinstance(over.value, Mapping)
        or path[-2:] in ALTERNATIVES
    ):
        return over
    entries = dict(base.value)
    for key, entry in over.value.items():
        if key in entries:
            entry = Entry(entry.place, merge(entries[key].node, entry.node, (*path, key)))
        entries[key] = entry
    return Node(over.place, entries)


def locate(root: Node, path: Sequence[str | int], *, at_key: bool = False) -> tuple[Place, int]:
    """Find the place of a path, or of the nearest part above it that exists.

    Args:
        root: Where the path starts.
        path: Keys and list indices.
        at_key: Point at the key rather than at its value.

    Returns:
        The place (a scalar's value, else the key of the section) and how many parts of the path
        exist.
    """
    node, place = root, root.place
    for depth, part in enumerate(path):
        if isinstance(node.value, Mapping) and part in node.value:
            entry = node.value[str(part)]
            node = entry.node
            is_last = depth + 1 == len(path)
            place = node.place if node.raw and not (is_last and at_key) else entry.place
        elif (
            isinstance(node.value, list | tuple)
            and isinstance(part, int)
            and 0 <= part < len(node.value)
        ):
            node = node.value[part]
            place = node.place
        else:
            return place, depth
    return place, len(path)


def join_path(path: Sequence[str | int]) -> str:
    """Write a path: keys joined by dots, list positions in brackets."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def split_path(root: Node, dotted: str) -> list[str]:
    """Split a dotted path at the keys that exist, which may hold dots themselves (arm names)."""
    parts = dotted.split(".")
    path: list[str] = []
    node: Node | None = root
    while parts:
        entries = node.value if node is not None and isinstance(node.value, Mapping) else {}
        counts = range(len(parts), 0, -1)
        taken = next((count for count in counts if ".".join(parts[:count]) in entries), 1)
        key = ".".join(parts[:taken])
        path.append(key)
        parts = parts[taken:]
        node = entries[key].node if key in entries else None
    return path
