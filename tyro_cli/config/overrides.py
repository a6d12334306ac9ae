"""`key=value` of the command line, laid over the tree of the file.

A value is read as YAML by the same bounded reader as a file, and replaces what stands at its path.
Whether the key exists and the value fits is found by validation like everything else; what is
refused here is only what has no place in a tree.
"""

from collections.abc import Mapping, Sequence

from tyro_cli.config.composing import DEEPEST_NESTING, Composer, FatalProblem
from tyro_cli.config.messages import nearest, shown
from tyro_cli.config.positions import (
    ALTERNATIVES,
    Entry,
    Node,
    Place,
    Problem,
    Source,
    locate,
    plain,
    split_path,
)
from tyro_cli.config.schema import SECTIONS_OF_AN_ARM

# Sources of the command line sort behind every file.
_FIRST_ORDER = 1_000_000
_LONGEST_SHOWN = 80


def apply_overrides(root: Node, overrides: Sequence[str]) -> tuple[Node, list[Problem]]:
    """Lay `key=value` texts over a tree, the later over the earlier.

    Returns:
        The new tree, and what is wrong with the texts themselves.
    """
    problems: list[Problem] = []
    for number, text in enumerate(overrides):
        try:
            root = _apply(root, text, place_of(text, number), problems)
        except FatalProblem as error:
            problems.append(error.problem)
    return root, problems


def place_of(text: str, number: int) -> Place:
    """Return the place of the command line's `key=value` of that number, from 0."""
    short = text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
    label = "command line: " + "".join(c if c.isprintable() else " " for c in short)
    return Place(Source(label, (), _FIRST_ORDER + number), 0, 0, 1)


def key_of(text: str) -> str:
    """Return the dotted key of a `key=value`."""
    return text.partition("=")[0].strip()


def _apply(root: Node, text: str, place: Place, problems: list[Problem]) -> Node:
    dotted, equals, value_text = text.partition("=")
    dotted = dotted.strip()
    if not equals or not dotted or not dotted.isprintable():
        raise FatalProblem(Problem(place, "", "must be written key=value, without spaces around ="))
    composer = Composer(place.source)
    node = composer.compose(value_text)
    problems.extend(composer.problems)
    if node is None:
        node = Node(place, None)
    return place_value(root, dotted, node, place)


def place_value(root: Node, dotted: str, value: Node, place: Place) -> Node:
    """Return the tree with `value` at a dotted path, in place of what stands there.

    Args:
        root: The tree.
        dotted: The path.
        value: What to put there; it keeps its own place, which messages point at.
        place: Where the path was written.

    Raises:
        FatalProblem: The path has no place in a tree.
    """
    if dotted.count(".") > DEEPEST_NESTING:
        raise FatalProblem(Problem(place, "", "the path has too many parts"))
    path = split_path(root, dotted)
    if path[0] == "extends":
        raise FatalProblem(Problem(place, "", "extends can stand in a file only"))
    if "" in path:
        raise FatalProblem(Problem(place, "", f"{dotted!r} is not a path of keys"))
    return _replaced(root, _new_arm(root, path, place), value, place, 0)


def _new_arm(root: Node, path: list[str], place: Place) -> list[str]:
    """Let a whole arm be new, but no key of an arm that does not exist: that is a slip."""
    if path[0] != "arms" or len(path) < 2 or locate(root, path[:2])[1] == 2:
        return path
    name = path[1]
    if {*SECTIONS_OF_AN_ARM, "match"} & set(path[2:]):
        arms = plain(root).get("arms")
        guess = nearest(name, arms) if isinstance(arms, Mapping) else ""
        guess = guess or f"; a new arm is written arms.{name}={{...}}"
        raise FatalProblem(Problem(place, "", f"there is no arm '{name}'{guess}"))
    return ["arms", ".".join(path[1:])]


def _replaced(node: Node, path: Sequence[str], value: Node, place: Place, depth: int) -> Node:
    if depth == len(path):
        return value
    if isinstance(node.value, Mapping):
        entries = dict(node.value)
    elif node.value is None:
        entries = {}
    else:
        where = ".".join(path[:depth])
        message = f"{where} is {shown(plain(node))} and has no keys; replace the whole of it"
        raise FatalProblem(Problem(place, "", message))
    key = path[depth]
    if tuple(path[max(0, depth - 2) : depth]) in ALTERNATIVES:
        entries = {}
    below = entries[key].node if key in entries else Node(place, {})
    entries[key] = Entry(place, _replaced(below, path, value, place, depth + 1))
    return Node(node.place, entries)
