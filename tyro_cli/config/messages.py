"""What pydantic found, said in the words of the experiment file.

A message completes the sentence that the path begins (`model.num_heads: must be ...`), shows the
value it refuses, and proposes the nearest known word. Where the place is, `loading` knows.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from tyro_cli.config.schema import Experiment, Section, Settings

_LONGEST_COMPARED = 100
_UNION_TAGS = frozenset({"map", "number", "[key]"})
_COMPARISONS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}
_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "finite_number": "a finite number",
    "model_type": "a section of keys",
    "model_attributes_type": "a section of keys",
    "dict_type": "a section of keys",
    "literal_error": "",
}
_SECTION_TYPES = frozenset({"model_type", "model_attributes_type", "dict_type"})


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing where no known word is near."""
    folded = {candidate.casefold(): candidate for candidate in known}
    word = word.casefold()[:_LONGEST_COMPARED]
    found = difflib.get_close_matches(word, folded, n=5, cutoff=0.6)
    if not found:
        return ""
    # Two letters swapped are the commonest slip, and difflib does not know it.
    best = max(
        found,
        key=lambda match: (
            difflib.SequenceMatcher(None, word, match).ratio()
            + 0.25 * (sorted(word) == sorted(match))
        ),
    )
    return f"; did you mean '{folded[best]}'?"


def shown(value: object) -> str:
    """Return a value the way a message shows it: short, on one line, with its type if unclear."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_shortened(repr(value))}"
    if isinstance(value, Mapping):
        return "a section of keys"
    if isinstance(value, list | tuple):
        return "a list"
    return _shortened(str(value))


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def section_below(annotation: Any) -> type[Section] | None:
    """Return the section that a field's annotation holds, through unions and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in get_args(annotation):
        found = section_below(argument)
        if found is not None:
            return found
    return None


def section_at(path: Sequence[str | int], root: type[Section]) -> type[Section] | None:
    """Return the section that stands at a path."""
    section: type[Section] | None = root
    for part in path:
        found = section.model_fields.get(str(part)) if section is not None else None
        if found is None:
            return None
        section = section_below(found.annotation)
    return section


def known_paths(root: type[Section], prefix: str = "") -> list[str]:
    """Return every dotted path of a section, sections before what they hold."""
    paths: list[str] = []
    for name, info in root.model_fields.items():
        paths.append(prefix + name)
        below = section_below(info.annotation)
        if below is not None:
            paths.extend(known_paths(below, f"{prefix}{name}."))
    return paths


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Return the message for a key that its section does not have.

    Args:
        key: The key.
        known: The keys that the section has.
    """
    elsewhere = [path for path in known_paths(Settings) if path.rpartition(".")[2] == key]
    if len(elsewhere) == 1:
        return f"unknown key here; did you mean '{elsewhere[0]}'?"
    guess = nearest(key, known)
    return f"unknown key{guess}" if guess else f"unknown key; known here: {', '.join(known)}"


def translate(
    error: ValidationError, data: object, root: type[Section]
) -> list[tuple[list[tuple[str | int, ...]], str, bool]]:
    """Put a validation error into words.

    Args:
        error: What pydantic raised for `data`.
        data: The plain value that was validated.
        root: The section it was validated as.

    Returns:
        For each problem the paths that it concerns (the one to point at first), the message, and
        whether the key rather than the value is to be pointed at.
    """
    problems: list[tuple[list[tuple[str | int, ...]], str, bool]] = []
    for detail in error.errors(include_url=False):
        path = _without_tags(detail["loc"], data)
        kind = detail["type"]
        context = detail.get("ctx", {})
        if kind == "several_keys":
            for keys, message in context["problems"]:
                paths = [(*path, *_parts(key, path, data)) for key in keys] or [path]
                problems.append((paths, message, False))
        elif kind == "missing":
            problems.append(([path], "is missing", False))
        elif kind == "extra_forbidden":
            section = section_at(path[:-1], root)
            known = list(section.model_fields) if section is not None else []
            known += ["extends"] if section is Experiment else []
            message = unknown_key(str(path[-1]), known)
            problems.append(([path], message, True))
        else:
            at_key = detail["loc"][-1:] == ("[key]",)
            message = _value_message(kind, context, detail)
            is_arm = len(path) == 2 and path[0] == "arms"
            if kind == "dict_type" and detail["input"] is None and is_arm:
                message = "is an empty arm; write {} for the base as it stands"
            problems.append(([path], message, at_key))
    return problems


def _parts(key: str, path: tuple[str | int, ...], data: object) -> list[str]:
    """Split a dotted key, except the name of an arm, which may hold dots."""
    return [key] if path[-1:] == ("arms",) else key.split(".")


def _value_message(kind: str, context: Mapping[str, Any], detail: Mapping[str, Any]) -> str:
    value = detail["input"]
    if kind == "value":
        return str(context["message"])
    if kind in _COMPARISONS:
        return f"{_COMPARISONS[kind].format(**_short_bounds(context))}, not {shown(value)}"
    if kind in _SECTION_TYPES and value is None:
        return "is an empty section; write its keys below it, indented, or take the line out"
    if kind == "too_short":
        return "is empty; it needs at least one entry"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        wanted = f"must be {' or '.join(known)}" if len(known) < 3 else _one_of(known)
        guess = nearest(value, known) if isinstance(value, str) else ""
        if value is None:
            return f"is empty; it {wanted}"
        return f"{wanted}, not {shown(value)}{guess}"
    if kind in _WANTED:
        if value is None:
            return f"is empty; it must be {_WANTED[kind]}"
        hint = ""
        if kind == "string_type" and isinstance(value, int | float):
            hint = "; put it in quotes"
        return f"must be {_WANTED[kind]}, not {shown(value)}{hint}"
    said = str(detail["msg"])
    return f"{said[:1].lower()}{said[1:]}, not {shown(value)}"


def _short_bounds(context: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: f"{value:g}" if isinstance(value, float) else str(value)
        for key, value in context.items()
    }


def _one_of(known: Sequence[str]) -> str:
    return f"must be one of {', '.join(known)}"


def _without_tags(location: Sequence[str | int], data: object) -> tuple[str | int, ...]:
    """Drop the steps that pydantic adds for the members of a union and for the keys of a map."""
    path: list[str | int] = []
    for part in location:
        below = data.get(part) if isinstance(data, Mapping) else None
        if part in _UNION_TAGS and not (isinstance(data, Mapping) and part in data):
            continue
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            below = data[part]
        path.append(part)
        data = below
    return tuple(path)
