"""YAML text into nodes with places, from text that nobody has to trust.

Only the events of PyYAML's safe parser are used, so nothing is ever constructed: no tags, no
objects. Depth, size and the expansion of aliases are bounded before any recursion. Scalars follow
YAML 1.2, not 1.1: `3e-4` is a number, `on` and `no` are text, `010` and `1:30` are text.
"""

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tyro_cli.config.positions import Entry, Node, Place, Problem, Scalar, Source
from tyro_cli.errors import ConfigurationError

LARGEST_FILE_BYTES = 1024 * 1024
DEEPEST_NESTING = 100
MOST_VALUES = 5_000

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_REAL = re.compile(r"[-+]?(?:[0-9]+(?:_[0-9]+)*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]")
_LONGEST_NUMBER = 64
_LARGEST_EXACT = 2.0**53
_TEXT_TAGS = frozenset({None, "!", "tag:yaml.org,2002:str"})


class FatalProblem(Exception):
    """A text that cannot be read further."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read_scalar(text: str) -> Scalar:
    """Return what a plain scalar means."""
    if text in _NULLS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    if not _REAL.fullmatch(text) or _LEADING_ZERO.match(text):
        return text
    real = float(text)
    if "e" in text.lower() and real.is_integer() and abs(real) < _LARGEST_EXACT:
        return int(real)  # 8e5 tokens are a whole number; where a real one is wanted, it fits too
    return real


def read_source(path: Path, order: int) -> tuple[Source, str]:
    """Read a configuration file.

    Returns:
        The source and its text.

    Raises:
        ConfigurationError: The file cannot be read, is too large, or is not UTF-8 text.
    """
    remedy = "give the path of an experiment file; `wtie init` writes one to start from"
    try:
        # Opening a pipe would wait for a writer, and a device has no end.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file"
            raise ConfigurationError(f"{path}: is {kind}", remedy)
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file", remedy) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{path}: cannot be read: {reason}", remedy) from None
    if len(data) > LARGEST_FILE_BYTES:
        raise ConfigurationError(
            f"{path}: is larger than {LARGEST_FILE_BYTES // 1024} KiB, "
            "which no experiment file needs to be",
            remedy,
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}:{line}: is not UTF-8 text: byte {data[error.start]:#04x} "
            f"at byte offset {error.start}",
            "save the file as UTF-8",
        ) from None
    lines = tuple(line.rstrip("\r") for line in text.split("\n"))
    return Source(str(path), lines, order), text


@dataclass(slots=True)
class _Open:
    """A map or list whose end has not been read."""

    place: Place
    anchor: str | None
    tag: str | None
    entries: dict[str, Entry] | None
    items: list[Node] = field(default_factory=list)
    key: tuple[str | None, Place] | None = None
    size: int = 1
    height: int = 1


class Composer:
    """Builds the tree of one text; `problems` are those that do not stop the reading."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._num_values = 0

    def compose(self, text: str) -> Node | None:
        """Return the tree, or None where the text holds no value.

        Raises:
            FatalProblem: Not YAML, several documents, or beyond the bounds.
        """
        num_documents = 0
        for event in self._events(text):
            if isinstance(event, yaml.DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    raise self._fatal(event, "a second document starts here; write only one")
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._start(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        return self._root

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            position = error.position
            before = text[:position]
            line = before.count("\n")
            place = Place(self.source, line, position - (before.rfind("\n") + 1), 1)
            code = error.character if isinstance(error.character, int) else ord(error.character)
            message = f"the character U+{code:04X} is not allowed in YAML"
            raise FatalProblem(Problem(place, "", message)) from None
        except yaml.MarkedYAMLError as error:
            raise FatalProblem(self._syntax_problem(error)) from None
        except (ValueError, OverflowError):  # of `chr`: an escape like \UFFFFFFFF
            place = Place(self.source, 0, 0, 1)
            message = "a \\U escape names a character beyond Unicode"
            raise FatalProblem(Problem(place, "", message)) from None

    def _syntax_problem(self, error: yaml.MarkedYAMLError) -> Problem:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        said = error.problem or error.context or "cannot be read"
        lines = self.source.lines
        shown = lines[line] if line < len(lines) else ""
        indent = shown[: len(shown) - len(shown.lstrip())]
        if "\\t" in said or "\t" in indent:
            column = shown.find("\t") if "\t" in indent else column
            message = "a tab stands here; YAML is indented with spaces"
        elif "cannot start any token" in said:
            message = f"not YAML: {said}; put the value in quotes"
        elif error.context and error.context_mark and error.context_mark.line != line:
            message = f"not YAML: {said} ({error.context} in line {error.context_mark.line + 1})"
        else:
            message = f"not YAML: {said}"
        return Problem(Place(self.source, line, column, 1), "", message)

    def _path(self, *last: str) -> str:
        """Return the dotted path of the value that is being read."""
        keys = [parent.key[0] for parent in self._open if parent.key is not None]
        return ".".join([key for key in (*keys, *last) if key])

    def _place(self, event: Any) -> Place:
        start, end = event.start_mark, event.end_mark
        length = end.column - start.column if end.line == start.line else 1
        return Place(self.source, start.line, start.column, max(1, length))

    def _fatal(self, event: Any, message: str) -> FatalProblem:
        return FatalProblem(Problem(self._place(event), "", message))

    def _count(self, event: Any, size: int) -> None:
        self._num_values += size
        if self._num_values > MOST_VALUES:
            raise self._fatal(event, f"more than {MOST_VALUES} values (aliases counted in full)")

    def _check_depth(self, event: Any, height: int) -> None:
        if len(self._open) + height > DEEPEST_NESTING:
            raise self._fatal(event, f"nested deeper than {DEEPEST_NESTING} levels")

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            raise self._fatal(event, f"there is no anchor &{event.anchor} above this alias")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._fatal(event, f"the value of &{event.anchor} holds itself")
        self._count(event, node.size)
        self._check_depth(event, node.height)
        self._attach(node, self._place(event))

    def _scalar(self, event: Any) -> None:
        self._count(event, 1)
        place = self._place(event)
        if event.tag not in _TEXT_TAGS:
            node = self._tagged(event.tag, place)
        elif event.tag is None and event.implicit[0]:
            node = Node(place, read_scalar(event.value), event.value)
        else:
            node = Node(place, event.value, event.value or '""')
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._attach(node, place, event.value)

    def _tagged(self, tag: str, place: Place) -> Node:
        short = tag.replace("tag:yaml.org,2002:", "!!", 1)
        message = f"the tag {short[:60]} is not allowed; write the plain value"
        self.problems.append(Problem(place, self._path(), message, hides_value=True))
        return Node(place, None, tag)

    def _start(self, event: Any) -> None:
        self._count(event, 1)
        self._check_depth(event, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        is_map = isinstance(event, yaml.MappingStartEvent)
        tag = None if event.tag in (None, "!") else event.tag
        self._open.append(_Open(self._place(event), event.anchor, tag, {} if is_map else None))

    def _end(self) -> None:
        done = self._open.pop()
        if done.tag is not None:
            node = self._tagged(done.tag, done.place)
        else:
            value = done.items if done.entries is None else done.entries
            node = Node(done.place, value, size=done.size, height=done.height)
        if done.anchor is not None:
            self._anchors[done.anchor] = node
        self._attach(node, done.place)

    def _attach(self, node: Node, place: Place, text: str | None = None) -> None:
        """Put a finished value where it belongs: the root, a list, a key, or a key's value."""
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if parent.entries is None:
            parent.items.append(node)
        elif parent.key is None:
            parent.key = (self._checked_key(node, place, text), place)
        else:
            (key, key_place), parent.key = parent.key, None
            if key is None:
                return
            if key in parent.entries:
                first = parent.entries[key].place.line + 1
                message = f"the key stands twice; the first one is in line {first}"
                self.problems.append(Problem(key_place, self._path(key), message))
                return
            parent.entries[key] = Entry(key_place, node)

    def _checked_key(self, node: Node, place: Place, text: str | None) -> str | None:
        key = node.raw if text is None else text
        if key == "<<":
            message = "merge keys are not supported; use extends, or write the values"
            self.problems.append(Problem(place, self._path(), message))
            return None
        if not key or not key.isprintable():
            self.problems.append(Problem(place, self._path(), "a key must be a word"))
            return None
        return key
