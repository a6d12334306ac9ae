"""The points of a study's grid: the base experiment with one level of every factor laid over it.

Invariant: every point is validated as a whole, and what cannot be is blamed on the level that
breaks it, at its own line in the study. Which levels there are is left to `studies`.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro_cli.config.loading import LoadedExperiment, load_experiment, refusal
from tyro_cli.config.positions import Node, Place, Problem, locate, plain
from tyro_cli.errors import ConfigurationError

MOST_POINTS = 10_000
_MOST_SHOWN_LEVELS = 20


@dataclass(frozen=True)
class Point:
    """One experiment of the grid.

    Args:
        levels: The level of each factor, by the factor's name.
        values: What the levels set, by dotted key.
        loaded: The experiment with these values.
    """

    levels: dict[str, Any]
    values: dict[str, Any]
    loaded: LoadedExperiment = field(repr=False)

    @property
    def label(self) -> str:
        """The levels in one word, `1024,0.1`, for names of cells on the screen."""
        return ",".join(level_text(level) for level in self.levels.values())


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a factor: its label, and each key that it sets with value and place."""

    label: Any
    values: tuple[tuple[str, Node, Place], ...]

    def in_words(self, factor: str) -> str:
        """Return which level this is and where it stands in the study."""
        place = self.values[0][2]
        where = f"{place.source.label}:{place.line + 1}:{place.column + 1}"
        return f"the level {level_text(self.label)[:60]} of {factor}, {where}"


def level_text(level: Any) -> str:
    """Write a level on one line, as YAML reads it."""
    return level if isinstance(level, str) else json.dumps(level, ensure_ascii=False)


def levels_in_words(levels: Mapping[str, Any], *without: str) -> str:
    """Return a point in words, `vocabulary 512, data 0.1`, leaving out some factors."""
    return ", ".join(
        f"{name} {level_text(level)}" for name, level in levels.items() if name not in without
    )


def grid_points(
    root: Node,
    base_path: Path,
    overrides: Sequence[str],
    levels: Mapping[str, list[Level]],
    excluded: Sequence[Mapping[str, list[Any]]],
) -> tuple[Point, ...]:
    """Return every point of a grid that is not excluded, the first factor slowest.

    Args:
        root: The study, for the places of its keys.
        base_path: The base experiment's file.
        overrides: `key=value` texts of the command line.
        levels: The levels of each factor.
        excluded: For each exclusion the levels that it names, by factor.

    Raises:
        ConfigurationError: The grid is empty or too large, or an experiment of it is not valid.
    """
    place, _ = locate(root, ("factors",), at_key=True)
    size = math.prod(map(len, levels.values()))
    if size > MOST_POINTS:
        message = f"the grid has {size:,} points, the most is {MOST_POINTS:,}"
        raise refusal([Problem(place, "factors", message)])
    points: list[Point] = []
    refused: list[tuple[tuple[Level, ...], ConfigurationError]] = []
    fit: set[Level] = set()
    for labels, combination in _combinations(levels, excluded):
        values = [value for one in combination for value in one.values]
        try:
            loaded = load_experiment(base_path, overrides, values)
        except ConfigurationError as error:
            refused.append((combination, error))
            continue
        fit.update(combination)
        points.append(Point(labels, {key: plain(node) for key, node, _ in values}, loaded))
    if refused:
        raise _refused_points(base_path, overrides, levels, refused, fit)
    if not points:
        message = "the grid is empty: every point is excluded"
        raise refusal([Problem(place, "factors", message)])
    return tuple(points)


def labels_of_points(
    levels: Mapping[str, list[Level]], excluded: Sequence[Mapping[str, list[Any]]]
) -> list[dict[str, Any]] | None:
    """Return the levels of every point that `grid_points` makes; None where they are too many."""
    if math.prod(map(len, levels.values())) > MOST_POINTS:
        return None
    return [labels for labels, _ in _combinations(levels, excluded)]


def _combinations(
    levels: Mapping[str, list[Level]], excluded: Sequence[Mapping[str, list[Any]]]
) -> Iterator[tuple[dict[str, Any], tuple[Level, ...]]]:
    """Yield labels and levels of every combination that is not excluded."""
    for combination in itertools.product(*levels.values()):
        labels = {name: one.label for name, one in zip(levels, combination, strict=True)}
        if not any(all(labels[name] in some for name, some in one.items()) for one in excluded):
            yield labels, combination


def _refused_points(
    base_path: Path,
    overrides: Sequence[str],
    levels: Mapping[str, list[Level]],
    refused: Sequence[tuple[tuple[Level, ...], ConfigurationError]],
    fit: set[Level],
) -> ConfigurationError:
    """Say what the experiment cannot take: single levels where they are to blame, else a point.

    A level is to blame where no point takes it and the experiment refuses it on its own.
    """
    tried = {level for combination, _ in refused for level in combination}
    told: dict[str, str] = {}
    for name, some in levels.items():
        for level in some:
            if level in tried - fit:
                try:
                    load_experiment(base_path, overrides, level.values)
                except ConfigurationError as error:
                    told.setdefault(error.message, level.in_words(name))
    blocks = [f"{message}\n      ({where})" for message, where in told.items()]
    if len(blocks) > _MOST_SHOWN_LEVELS:
        more = len(blocks) - _MOST_SHOWN_LEVELS
        blocks[_MOST_SHOWN_LEVELS:] = [f"... and {more} more levels"]
    if blocks:
        return ConfigurationError("\n".join(blocks), "mend the level, or take it out of the study")
    combination, first = refused[0]
    labels = [level_text(level.label) for level in combination]
    where = ", ".join(f"{name} {label}" for name, label in zip(levels, labels, strict=True))
    others = f", and {len(refused) - 1} other points are refused" if len(refused) > 1 else ""
    return ConfigurationError(
        f"{first.message}\n      (the point {where}{others})",
        "mend the levels, or leave the point out with exclude:",
    )
