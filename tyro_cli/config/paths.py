"""Dotted paths into plain settings: `training.optimizer.learning_rate`.

Nothing is changed in place; which keys there may be is left to the schema.
"""

from collections.abc import Mapping
from typing import Any


def with_values(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of plain settings with values at dotted paths.

    A section on the way that is not there, or is null, begins empty.
    """
    result = dict(settings)
    for key, value in values.items():
        first, _, rest = key.partition(".")
        below = result.get(first)
        if rest:
            value = with_values(below if isinstance(below, Mapping) else {}, {rest: value})
        result[first] = value
    return result


def value_at(settings: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None where there is none."""
    value: Any = settings
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def without(settings: Mapping[str, Any], *paths: str) -> dict[str, Any]:
    """Return a copy of plain settings without what stands at dotted paths, where it is there."""
    result = dict(settings)
    for path in paths:
        first, _, rest = path.partition(".")
        if not rest:
            result.pop(first, None)
        elif isinstance(below := result.get(first), Mapping):
            result[first] = without(below, rest)
    return result


def overlaps(one: str, other: str) -> bool:
    """Say whether a value at one dotted key would replace one at the other, or a part of it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def set_at(overrides: Mapping[str, Any], key: str) -> tuple[bool, Any]:
    """Return whether an arm's overrides set a dotted key or a section around it, and to what."""
    value: Any = overrides
    for part in key.split("."):
        if not isinstance(value, Mapping):
            break  # One value for the whole section, which this key is a part of.
        if part not in value:
            return False, None
        value = value[part]
    return True, value
