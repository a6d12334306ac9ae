"""A study file: a grid of experiments over factors, loaded with every point of the grid validated.

Each point is the base experiment with one level of every factor laid over it, so whatever a level
breaks is pointed at in the study's own line. Running the points is left to other rooms.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from tyro_cli.config.claims import Claim, claim_problems
from tyro_cli.config.composing import FatalProblem, read_source
from tyro_cli.config.grid import Level, Point, grid_points, labels_of_points, level_text
from tyro_cli.config.kinds import OtherKind, refuse_experiment
from tyro_cli.config.loading import (
    LoadedExperiment,
    compose_file,
    load_experiment,
    problems_at,
    refusal,
)
from tyro_cli.config.messages import known_paths, nearest, shown, translate
from tyro_cli.config.overrides import key_of, place_of
from tyro_cli.config.paths import overlaps, set_at
from tyro_cli.config.positions import (
    ALTERNATIVES,
    Node,
    Place,
    Problem,
    join_path,
    locate,
    plain,
)
from tyro_cli.config.schema import SECTIONS_OF_AN_ARM, Section, Settings
from tyro_cli.config.values import FolderName, Name, Seeds, Text, tuple_from_list
from tyro_cli.errors import ConfigurationError

WHOLE_STUDY = "all"


class Study(Section):
    """One study file: a base experiment, the factors that are varied, and the seeds."""

    name: FolderName
    """Name of the study, the first half of its folder's name: letters, digits, `.`, `_` and `-`."""

    experiment: Text
    """Path of the base experiment, relative to the study file."""

    factors: Annotated[
        dict[Name, Annotated[dict[Text, list[Any]], Field(min_length=1)]], Field(min_length=1)
    ]
    """What is varied: for each factor a name and the key that it sets, with a list of levels:
    `vocabulary: {data.tokenizer.vocab_size: [1024, 2048]}`. Several keys with lists of one length
    move together, and the first of them names the levels. The grid is every combination."""

    exclude: Annotated[tuple[dict[str, Any], ...], BeforeValidator(tuple_from_list)] = ()
    """Combinations to leave out, as maps of factor to level (or a list of levels):
    `[{vocabulary: 8192, data: 0.1}]`."""

    family: Text = WHOLE_STUDY
    """Which contrasts are tested as one family (Holm): `all` of the study, or the name of a factor,
    for one family at each of its levels."""

    seeds: Seeds | None = None
    """Seeds of every cell, instead of the experiment's own; the command line's come first."""

    claim: Claim | None = None
    """What the study is to decide: a sentence, and the findings that would support it."""

    smoke: Annotated[dict[Text, Any], Field(default_factory=dict)]
    """Dotted key to value, laid over the experiment by `wtie sweep --smoke`: a budget on which the
    study is tried in seconds a cell."""


@dataclass(frozen=True)
class LoadedStudy:
    """A valid study, and where everything in it stands.

    Args:
        study: The file's content.
        points: Every point of the grid that is not excluded, the first factor slowest.
        seeds: Of every cell.
        path: The file.
        text: The file as read.
        overrides: `key=value` of the command line, laid over every point.
    """

    study: Study
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    path: Path
    text: str
    overrides: tuple[str, ...]
    _root: Node = field(repr=False)

    @property
    def experiment_path(self) -> Path:
        """The base experiment's file."""
        return self.path.parent / self.study.experiment

    def error(
        self, path: Sequence[str | int], message: str, remedy: str = ""
    ) -> ConfigurationError:
        """Make the error for a value that another room cannot accept.

        Args:
            path: Keys and list indices, for example `("claim", "ledger", "shapes", 0)`.
            message: What is wrong, completing `path: ...`.
            remedy: What the user can do.
        """
        place, _ = locate(self._root, path)
        return ConfigurationError(Problem(place, join_path(path), message).render(), remedy)


def load_study(path: Path, overrides: Sequence[str] = (), *, smoke: bool = False) -> LoadedStudy:
    """Load a study file and every experiment of its grid.

    Args:
        path: The YAML file.
        overrides: `key=value` texts of the command line, laid over the base experiment.
        smoke: Lay what `smoke:` of the study says over it as well, below the command line.

    Raises:
        ConfigurationError: With every problem of the study itself; or, where it is right, with
            what each level breaks in the experiment; `OtherKind` for an experiment.
    """
    problems: list[Problem] = []
    source, text = read_source(path, 0)
    try:
        root = compose_file(source, text, problems)
    except FatalProblem as error:
        raise refusal([error.problem]) from None
    refuse_experiment(root)
    study = _validate(root, problems)
    assert study is not None
    if smoke:
        overrides = (*_smoke_overrides(root, study), *overrides)
    base_path = path.parent / study.experiment
    base = _load_base(root, base_path, overrides)
    problems += _overridden(study, overrides)
    levels = {name: _levels_of(root, name, study, base, problems) for name in study.factors}
    excluded = _exclusions(root, study, levels, problems)
    problems += _set_twice(root, study)
    seeds = None if "seeds" in map(key_of, overrides) else study.seeds
    seeds = seeds or base.experiment.seeds
    problems += _claim_problems(root, study, base, levels, excluded, seeds)
    if problems:
        raise refusal(problems)
    return LoadedStudy(
        study=study,
        points=grid_points(root, base_path, overrides, levels, excluded),
        seeds=seeds,
        path=path,
        text=text,
        overrides=tuple(overrides),
        _root=root,
    )


def _load_base(root: Node, path: Path, overrides: Sequence[str]) -> LoadedExperiment:
    if _is_file(path):
        try:
            return load_experiment(path, overrides)
        except OtherKind:
            message = f"{str(path)[:200]} is a study itself; name an experiment"
    else:
        message = f"there is no file {str(path)[:200]}"
    place, _ = locate(root, ("experiment",))
    raise refusal([Problem(place, "experiment", message)])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system takes
        return False


def _validate(root: Node, problems: list[Problem]) -> Study | None:
    data = plain(root)
    study = None
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        problems += problems_at(root, translate(error, data, Study))
    if study is not None and study.family not in (WHOLE_STUDY, *study.factors):
        place, _ = locate(root, ("family",))
        guess = nearest(study.family, [WHOLE_STUDY, *study.factors])
        known = ", ".join([WHOLE_STUDY, *study.factors])
        message = f"must be one of {known}, not {study.family[:60]!r}{guess}"
        problems.append(Problem(place, "family", message))
    if problems:
        raise refusal(problems)
    return study


def _levels_of(
    root: Node, name: str, study: Study, base: LoadedExperiment, problems: list[Problem]
) -> list[Level]:
    """Return the levels of a factor; add what is wrong with its keys and lists."""
    keys = study.factors[name]
    num_levels = len(next(iter(keys.values())))
    columns: list[list[tuple[str, Node, Place]]] = []
    for key, values in keys.items():
        path = ("factors", name, key)
        place, _ = locate(root, path, at_key=True)
        message = _why_not(key, values, num_levels, base)
        if message:
            problems.append(Problem(place, f"factors.{name}.{key}", message))
            continue
        entry: Any = root
        for part in path:
            entry = entry.value[part].node
        columns.append([(key, node, node.place) for node in entry.value])
    if len(columns) < len(keys):
        return []
    levels = [Level(plain(row[0][1]), row) for row in zip(*columns, strict=True)]
    for index, level in enumerate(levels):
        if any(level.label == other.label for other in levels[:index]):
            message = f"the level {level_text(level.label)} stands twice"
            problems.append(Problem(level.values[0][2], f"factors.{name}", message))
    return levels


def _why_not(key: str, values: Sequence[Any], num_levels: int, base: LoadedExperiment) -> str:
    """Return why a key cannot be varied so, or "" where it can."""
    parts = key.split(".")
    if parts[0] not in SECTIONS_OF_AN_ARM or len(parts) < 2:
        *others, last = SECTIONS_OF_AN_ARM
        return f"a factor sets a dotted key of {', '.join(others)} or {last}"
    known = known_paths(Settings)
    if key not in known:
        return f"there is no key {key[:60]!r}{nearest(key, known)}"
    if not values:
        return "holds no level"
    if len(values) != num_levels:
        return f"holds {len(values)} levels, the factor's first key {num_levels}"
    for name, arm in base.arms.items():
        is_set, value = set_at(arm.overrides, _territory(key))
        if is_set:
            return f"the arm '{name}' sets this key itself ({shown(value)})"
    tune = base.experiment.tune
    for searched in tune.grid if tune is not None else ():
        if overlaps(key, searched):
            return f"tune: of the experiment searches {searched}"
    return ""


def _territory(key: str) -> str:
    """Return what setting a key replaces: the whole section where its keys exclude each other."""
    sections = (".".join(section) for section in ALTERNATIVES)
    return next((section for section in sections if key.startswith(f"{section}.")), key)


def _overlap(one: str, other: str) -> bool:
    """Say whether a value at one key would replace one at the other, or a part of it."""
    return overlaps(_territory(one), _territory(other))


def _smoke_overrides(root: Node, study: Study) -> list[str]:
    """Return what `smoke:` says as the command line would say it."""
    if not study.smoke:
        message = "has no `smoke:`, so there is no small budget to try it on"
        raise refusal([Problem(root.place, "smoke", message)])
    return [f"{key}={json.dumps(value)}" for key, value in study.smoke.items()]


def _claim_problems(
    root: Node,
    study: Study,
    base: LoadedExperiment,
    levels: Mapping[str, list[Level]],
    excluded: Sequence[Mapping[str, list[Any]]],
    seeds: Sequence[int],
) -> list[Problem]:
    """Return what the claim names and the study does not have."""
    if study.claim is None:
        return []
    found = claim_problems(
        study.claim,
        {name: [level.label for level in some] for name, some in levels.items()},
        labels_of_points(levels, excluded) if excluded and all(levels.values()) else None,
        base.arms,
        base.experiment,
        len(seeds),
    )
    return [
        Problem(locate(root, ("claim", *path))[0], join_path(("claim", *path)), message)
        for path, message in found
    ]


def _set_twice(root: Node, study: Study) -> list[Problem]:
    """Return a problem for each key whose levels would lie over those of an earlier one."""
    problems: list[Problem] = []
    earlier: list[tuple[str, str]] = []
    for name, keys in study.factors.items():
        for key in keys:
            for other, other_key in earlier:
                if _overlap(key, other_key):
                    place, _ = locate(root, ("factors", name, key), at_key=True)
                    message = f"{other_key} of the factor '{other}' sets this already"
                    problems.append(Problem(place, f"factors.{name}.{key}", message))
            earlier.append((name, key))
    return problems


def _overridden(study: Study, overrides: Sequence[str]) -> list[Problem]:
    """Return a problem for each `key=value` that the levels of a factor would lie over."""
    return [
        Problem(place_of(text, number), key_of(text), f"the factor '{name}' sets this key")
        for number, text in enumerate(overrides)
        for name, keys in study.factors.items()
        if any(_overlap(key_of(text), key) for key in keys)
    ]


def _exclusions(
    root: Node, study: Study, levels: Mapping[str, list[Level]], problems: list[Problem]
) -> list[dict[str, list[Any]]]:
    """Return for each exclusion the levels that it names; add what does not exist."""
    found = []
    for index, combination in enumerate(study.exclude):
        place, _ = locate(root, ("exclude", index))
        path = f"exclude[{index}]"
        named: dict[str, list[Any]] = {}
        for factor, wanted in combination.items():
            if factor not in levels:
                guess = nearest(factor, levels)
                problems.append(Problem(place, path, f"there is no factor {factor!r}{guess}"))
                continue
            if not levels[factor]:
                continue  # What is wrong with the factor has been said.
            named[factor] = wanted if isinstance(wanted, list) else [wanted]
            known = [level.label for level in levels[factor]]
            problems += [
                Problem(place, path, f"{factor} has no level {level_text(one)[:60]}")
                for one in named[factor]
                if one not in known
            ]
        if not combination:
            problems.append(Problem(place, path, "names no factor, so it would exclude everything"))
        found.append(named)
    return found
