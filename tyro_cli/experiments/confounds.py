"""The confound guard: arms may differ from the baseline in the tie and in what is declared.

Invariant: an experiment that passes compares arms that are equal in every setting but
`model.tying`, the keys under `allow_differences`, and the key that a `match` solves. A default
written out is no difference, and neither is one that merely follows another key (the default d_ff
of another d_model). What differs is returned, because every table prints it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tyro_cli.config.loading import LoadedExperiment
from tyro_cli.config.schema import Settings
from tyro_cli.experiments.identity import resolved_record

TYING = "model.tying"


def check_confounds(loaded: LoadedExperiment) -> dict[str, dict[str, list[Any]]]:
    """Refuse arms that differ from the baseline in an undeclared key.

    Returns:
        For each arm what `differences_between` the baseline and it says, matches not solved.

    Raises:
        ConfigurationError: At the arm's own line, naming every undeclared key of that arm.
    """
    baseline = loaded.arms[loaded.experiment.baseline]
    found = {}
    for name, arm in loaded.arms.items():
        found[name] = differences_between(baseline.settings, arm.settings)
        allowed = [TYING, *loaded.experiment.allow_differences]
        # The key that a match solves may differ, whichever of the two arms asks for it.
        allowed += [f"model.{one.match.by}" for one in (arm, baseline) if one.match is not None]
        undeclared = [
            path
            for path in found[name]
            if not _is_allowed(path, allowed) and _is_written(path, baseline.settings, arm.settings)
        ]
        if undeclared:
            raise loaded.error(
                f"arms.{name}.{undeclared[0]}",
                _sentence(name, undeclared, found[name], loaded.experiment.baseline),
                f"make the arms equal, or list the {'key' if len(undeclared) == 1 else 'keys'} "
                f"under allow_differences: [{', '.join(undeclared)}]",
            )
    return found


def differences_between(baseline: Settings, arm: Settings) -> dict[str, list[Any]]:
    """Return the dotted keys in which two settings differ, each with `[baseline's, arm's]`.

    Values are those in use: a default that follows another key is filled in.
    """
    first, second = _flat(resolved_record(baseline)), _flat(resolved_record(arm))
    # A section that is null in one arm has no keys there; each side shows what it has.
    return {
        path: [first.get(path), second.get(path)]
        for path in dict.fromkeys([*first, *second])
        if first.get(path) != second.get(path)
    }


def _is_allowed(path: str, allowed: Sequence[str]) -> bool:
    """Say whether a path is declared, itself or as part of a section."""
    return any(path == one or path.startswith(f"{one}.") for one in allowed)


def _is_written(path: str, baseline: Settings, arm: Settings) -> bool:
    """Say whether the arms differ in what was written, and not only in what follows from it."""
    values = []
    for settings in (baseline, arm):
        value: Any = settings.model_dump(mode="json")
        for key in path.split("."):
            # Dropout may be one number for all places; a section that is null has no keys.
            value = value.get(key) if isinstance(value, Mapping) else value
        values.append(value)
    return bool(values[0] != values[1])


def _sentence(
    name: str, paths: Sequence[str], differences: Mapping[str, Sequence[Any]], baseline: str
) -> str:
    parts = [f"{path} ({differences[path][0]} and {differences[path][1]})" for path in paths]
    return (
        f"the arms '{baseline}' and '{name}' differ in {', '.join(parts)}: "
        "a contrast could not tell that from the tie"
    )


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_leaves(record, ""))


def _leaves(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
