"""The search of `tune:`: its settings, their names, and what is wrong with a file's search.

Invariant: every arm gets the same settings in the same order, and a setting's name depends on its
values alone, so that a grid which is extended finds its old trials again. What the trials say is
left to `analysis`.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from tyro_cli.config.messages import shown, translate
from tyro_cli.config.paths import set_at, value_at, with_values
from tyro_cli.config.positions import Node, Problem, locate
from tyro_cli.config.schema import Arm, Experiment, OptimizerConfig, TuneConfig

OPTIMIZER = "training.optimizer."
OWN = "own"
"""Name of the setting that the experiment itself says."""

MOST_SETTINGS = 100
"""Settings of the largest grid: each is trained for every arm and trial seed."""


@dataclass(frozen=True)
class TuneSetting:
    """One combination of a grid's values.

    Attributes:
        name: `own`, or eight hex digits: a hash of the values that are not the experiment's own.
        values: Every key of the grid, dotted, with its value.
    """

    name: str
    values: dict[str, float]


def grid_settings(experiment: Experiment) -> tuple[TuneSetting, ...]:
    """Return every setting of an experiment's grid, the first key slowest."""
    assert experiment.tune is not None
    grid = experiment.tune.grid
    own = own_values(experiment)
    return tuple(
        named_setting(dict(zip(grid, values, strict=True)), own)
        for values in itertools.product(*grid.values())
    )


def own_values(experiment: Experiment) -> dict[str, float]:
    """Return what the experiment itself says of the keys that its grid searches."""
    assert experiment.tune is not None
    settings = {"training": experiment.training.model_dump(mode="json")}
    return {key: value_at(settings, key) for key in experiment.tune.grid}


def named_setting(values: Mapping[str, float], own: Mapping[str, float]) -> TuneSetting:
    """Return the setting of these values.

    Args:
        values: By dotted key.
        own: The experiment's values of the same keys.
    """
    changed = {key: value for key, value in values.items() if value != own[key]}
    if not changed:
        return TuneSetting(OWN, dict(values))
    text = json.dumps(changed, sort_keys=True, separators=(",", ":"))
    return TuneSetting(hashlib.sha256(text.encode()).hexdigest()[:8], dict(values))


def in_words(values: Mapping[str, float]) -> str:
    """Return a setting as `learning_rate 0.001, head.rate 0.5`."""
    return ", ".join(f"{short_key(key)} {value:g}" for key, value in values.items())


def short_key(key: str) -> str:
    """Return a searched key without the sections that all of them lie in."""
    return key.removeprefix(OPTIMIZER).removeprefix("roles.")


def tune_problems(root: Node, experiment: Experiment, arms: Mapping[str, Arm]) -> list[Problem]:
    """Return what is wrong with an experiment's search, beyond the types of its values."""
    tune = experiment.tune
    if tune is None:
        return []
    problems = _level_problems(root, experiment, tune)
    place, _ = locate(root, ("tune", "grid"), at_key=True)
    size = math.prod(len(levels) for levels in tune.grid.values())
    if size > MOST_SETTINGS:
        message = f"holds {size:,} combinations, the most is {MOST_SETTINGS}"
        problems.append(Problem(place, "tune.grid", message))
    for key in tune.grid:
        place, _ = locate(root, ("tune", "grid", key), at_key=True)
        for name, arm in arms.items():
            is_set, value = set_at(arm.overrides, key)
            if is_set:
                message = f"the arm '{name}' sets this key itself ({shown(value)}); take it out"
                problems.append(Problem(place, f"tune.grid.{key}", message))
    shared = sorted(set(tune.seeds) & set(experiment.seeds))
    if shared:
        place, _ = locate(root, ("tune", "seeds"))
        problems.append(Problem(place, "tune.seeds", seeds_message(shared)))
    return problems


def seeds_message(shared: Sequence[int]) -> str:
    """Say which seeds are those of trials and of contrasts, and must not be both."""
    listed = ", ".join(map(str, shared[:5])) + (", ..." if len(shared) > 5 else "")
    return (
        f"{listed} {'is a seed' if len(shared) == 1 else 'are seeds'} of the contrasts too; "
        "trials run at seeds that no contrast uses"
    )


def _level_problems(root: Node, experiment: Experiment, tune: TuneConfig) -> list[Problem]:
    """Return a problem for each list that is no search, and each value the schema refuses."""
    problems = []
    optimizer = experiment.training.optimizer.model_dump(mode="json")
    for key, levels in tune.grid.items():
        path = f"tune.grid.{key}"
        if len(levels) < 2:
            place, _ = locate(root, ("tune", "grid", key), at_key=True)
            held = "one value" if levels else "no value"
            message = f"holds {held}; a search needs two or more"
            problems.append(Problem(place, path, message))
        for index, level in enumerate(levels):
            place, _ = locate(root, ("tune", "grid", key, index))
            if level in levels[:index]:
                problems.append(Problem(place, f"{path}[{index}]", f"{level:g} stands twice"))
            try:
                OptimizerConfig.model_validate(
                    with_values(optimizer, {key.removeprefix(OPTIMIZER): level})
                )
            except ValidationError as error:
                problems += [
                    Problem(place, f"{path}[{index}]", message)
                    for _, message, _ in translate(error, optimizer, OptimizerConfig)
                ]
    return problems
