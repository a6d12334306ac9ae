"""An experiment file into validated objects, with every problem found at once and in its place.

Layers, the later over the earlier: schema defaults, the files named by `extends`, the file, the
command line. Arms are overrides onto the result, and each is validated as a whole. Nothing is
written and nothing outside the named files is read. What the values mean is left to other rooms;
they report their own findings through `LoadedExperiment.error`, at the line that caused them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tyro_cli.config.composing import Composer, FatalProblem, read_source
from tyro_cli.config.kinds import refuse_study
from tyro_cli.config.messages import known_paths, nearest, shown, translate, unknown_key
from tyro_cli.config.overrides import apply_overrides, place_value
from tyro_cli.config.positions import (
    Entry,
    Node,
    Place,
    Problem,
    Source,
    join_path,
    locate,
    merge,
    plain,
    split_path,
)
from tyro_cli.config.schema import (
    SECTIONS_OF_AN_ARM,
    Arm,
    Experiment,
    Match,
    Settings,
    problems_between_sections,
)
from tyro_cli.config.tuning import tune_problems
from tyro_cli.errors import ConfigurationError

_MOST_SHOWN_PROBLEMS = 50
_MOST_FILES = 16
_UNREADABLE = "mend it at the place shown; how files and key=value are written: docs/CONFIG.md"
_REMEDY = "every key with its type and range: docs/CONFIG.md, or `wtie schema`"


@dataclass(frozen=True)
class LoadedExperiment:
    """A valid experiment, and where everything in it stands.

    Args:
        experiment: The file's content.
        arms: Each arm resolved, in the order written.
        path: The file.
        text: The file as read (without what it extends, and without the command line).
    """

    experiment: Experiment
    arms: dict[str, Arm]
    path: Path
    text: str
    _root: Node = field(repr=False)

    def error(self, dotted_path: str, message: str, remedy: str = "") -> ConfigurationError:
        """Make the error for a value that another room cannot accept.

        Args:
            dotted_path: For example `data.corpus` or `arms.tied.match`; where it does not stand
                in the file, the nearest section above it is pointed at.
            message: What is wrong, completing `path: ...`.
            remedy: What the user can do.
        """
        place, _ = locate(self._root, split_path(self._root, dotted_path))
        return ConfigurationError(Problem(place, dotted_path, message).render(), remedy)


def load_experiment(
    path: Path,
    overrides: Sequence[str] = (),
    levels: Sequence[tuple[str, Node, Place]] = (),
) -> LoadedExperiment:
    """Load an experiment file.

    Args:
        path: The YAML file.
        overrides: `key=value` texts of the command line, the later winning.
        levels: Values that a study puts at dotted paths, over everything else; each with the value
            and the place that it stands at in the study.

    Raises:
        ConfigurationError: With every problem found, one block each; `OtherKind` for a study.
    """
    problems: list[Problem] = []
    try:
        root, text = _read_layers(path, problems)
    except FatalProblem as error:
        raise refusal([error.problem]) from None
    refuse_study(root)
    root, more = apply_overrides(root, overrides)
    problems += more
    try:
        for dotted, value, place in levels:
            root = place_value(root, dotted, value, place)
    except FatalProblem as error:
        problems.append(error.problem)
    data = plain(root)
    experiment, base_problems = _validate_experiment(root, data)
    problems += base_problems
    arms, arm_problems = _resolve_arms(root, base_problems)
    problems += arm_problems
    problems += _check_references(root, data)
    if experiment is not None:
        problems += tune_problems(root, experiment, arms)
    if problems or experiment is None:
        raise refusal(problems)
    return LoadedExperiment(experiment, arms, path, text, root)


def refusal(problems: Sequence[Problem]) -> ConfigurationError:
    """Make one error of all problems, in the order of the text, each place and path once."""
    hidden = {problem.place for problem in problems if problem.hides_value}
    kept: dict[tuple[object, str], Problem] = {}
    for problem in problems:
        if problem.place in hidden and not problem.hides_value:
            continue
        kept.setdefault((problem.place, problem.path), problem)
    ordered = sorted(kept.values(), key=lambda problem: problem.place.sort_key)
    blocks = [problem.render() for problem in ordered[:_MOST_SHOWN_PROBLEMS]]
    if len(ordered) > _MOST_SHOWN_PROBLEMS:
        blocks.append(f"... and {len(ordered) - _MOST_SHOWN_PROBLEMS} more problems")
    is_about_keys = any(problem.path for problem in ordered)
    return ConfigurationError("\n".join(blocks), _REMEDY if is_about_keys else _UNREADABLE)


def _read_layers(path: Path, problems: list[Problem]) -> tuple[Node, str]:
    """Read a file and what it extends, and merge them."""
    layers: list[Node] = []
    seen: list[Path] = []
    first_text = ""
    link: tuple[Node, str] | None = None
    current = path
    while True:
        if link is not None:
            _check_link(link[0], current, seen)
        source, text = read_source(current, len(seen))
        seen.append(current)
        if len(seen) == 1:
            first_text = text
        root = compose_file(source, text, problems)
        entries = dict(root.value) if isinstance(root.value, Mapping) else {}
        extends = entries.pop("extends", None)
        layers.append(Node(root.place, entries))
        if extends is None:
            break
        target = extends.node.value
        if not isinstance(target, str) or not target.strip() or not target.isprintable():
            message = f"must be the path of a file, not {shown(plain(extends.node))}"
            raise FatalProblem(Problem(_value_place(extends), "extends", message))
        link = (extends.node, target)
        current = current.parent / target
    merged = layers.pop()
    while layers:
        merged = merge(merged, layers.pop())
    return merged, first_text


def _value_place(entry: Entry) -> Any:
    return entry.node.place if entry.node.raw else entry.place


def _check_link(node: Node, target: Path, seen: Sequence[Path]) -> None:
    """Refuse a base file that is not there, that is already in the chain, or one too many."""
    try:
        is_there = target.exists()
    except OSError:  # a name longer than the file system takes
        is_there = False
    if not is_there:
        raise FatalProblem(Problem(node.place, "extends", f"there is no file {target}"))
    if any(target.samefile(earlier) for earlier in seen):
        chain = " -> ".join(str(file) for file in [*seen, target])
        raise FatalProblem(Problem(node.place, "extends", f"runs in a circle: {chain}"))
    if len(seen) >= _MOST_FILES:
        message = f"more than {_MOST_FILES} files extend each other"
        raise FatalProblem(Problem(node.place, "extends", message))


def compose_file(source: Source, text: str, problems: list[Problem]) -> Node:
    """Return a file's tree, which must be a map; add what is wrong with single values.

    Raises:
        ConfigurationError: It is empty or cannot be read.
        FatalProblem: It is something else than a map.
    """
    composer = Composer(source)
    root = composer.compose(text)
    problems += composer.problems
    if root is None or (root.value is None and not composer.problems):
        raise ConfigurationError(
            f"{source.label}: is empty: it holds no key",
            "`wtie init` writes an experiment file to start from",
        )
    if not isinstance(root.value, Mapping):
        if composer.problems:
            raise refusal(composer.problems)
        message = f"the file must hold keys (name: and others), not {shown(plain(root))}"
        raise FatalProblem(Problem(root.place, "", message))
    return root


def _validate_experiment(
    root: Node, data: Mapping[str, Any]
) -> tuple[Experiment | None, list[Problem]]:
    """Validate the whole, and the base on its own for what concerns several sections."""
    problems: list[Problem] = []
    experiment = None
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        problems += problems_at(root, translate(error, data, Experiment))
    settings_data = _settings_data(data)
    try:
        Settings.model_validate(settings_data)
    except ValidationError as error:
        problems += problems_at(root, translate(error, settings_data, Settings))
        # Pydantic asks whether sections fit only where each of them is right.
        task = settings_data.get("task")
        for keys, message in problems_between_sections(
            task if isinstance(task, str) else None,
            _whole_number(root, "data", "context_length"),
            _whole_number(root, "training", "batch_tokens"),
            _whole_number(root, "training", "micro_batch_tokens"),
            _whole_number(root, "evaluation", "stride"),
        ):
            problems += problems_at(root, [([tuple(keys[0].split("."))], message, False)])
    return experiment, problems


def _whole_number(root: Node, *path: str) -> int | None:
    """Return the positive whole number at a path, or None where there is no such thing."""
    node = root
    for key in path:
        if not isinstance(node.value, Mapping) or key not in node.value:
            return None
        node = node.value[key].node
    value = node.value
    return value if isinstance(value, int) and value is not True and value > 0 else None


def _settings_data(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key in Settings.model_fields}


def problems_at(
    root: Node, found: Sequence[tuple[list[tuple[str | int, ...]], str, bool]]
) -> list[Problem]:
    """Give each of what `messages.translate` found its place in the tree."""
    problems = []
    for paths, message, at_key in found:
        place, _ = locate(root, paths[0], at_key=at_key)
        problems.append(Problem(place, join_path(paths[0]), message))
    return problems


def _resolve_arms(
    root: Node, base_problems: Sequence[Problem]
) -> tuple[dict[str, Arm], list[Problem]]:
    """Merge and validate every arm; what is wrong in the base already is not said again."""
    arms: dict[str, Arm] = {}
    problems: list[Problem] = []
    layers = root.value if isinstance(root.value, Mapping) else {}
    arms_entry = layers.get("arms")
    if arms_entry is None or not isinstance(arms_entry.node.value, Mapping):
        return arms, problems
    base_entries = {key: entry for key, entry in layers.items() if key in Settings.model_fields}
    base = Node(root.place, base_entries)
    known_problems = {(problem.path, problem.message) for problem in base_problems}
    for name, entry in arms_entry.node.value.items():
        if not isinstance(entry.node.value, Mapping):
            continue
        arm, found = _resolve_arm(root, base, name, entry, known_problems)
        problems += found
        if arm is not None:
            arms[name] = arm
    return arms, problems


def _resolve_arm(
    root: Node, base: Node, name: str, entry: Entry, known_problems: set[tuple[str, str]]
) -> tuple[Arm | None, list[Problem]]:
    problems: list[Problem] = []
    assert isinstance(entry.node.value, Mapping)
    entries = dict(entry.node.value)
    match_entry = entries.pop("match", None)
    for key in [key for key in entries if key not in SECTIONS_OF_AN_ARM]:
        message = unknown_key(key, (*SECTIONS_OF_AN_ARM, "match"))
        if key == "task":
            message = "an arm cannot change the task"
        problems.append(Problem(entries.pop(key).place, f"arms.{name}.{key}", message))
    override = Node(entry.place, entries)
    merged_data = plain(merge(base, override))
    settings = None
    try:
        settings = Settings.model_validate(merged_data)
    except ValidationError as error:
        for paths, message, at_key in translate(error, merged_data, Settings):
            if (join_path(paths[0]), message) in known_problems:
                continue
            if message == "is missing" and not _has_section(base, paths[0][0]):
                continue  # The base lacks the whole section, which has been said there.
            path = _own_path(override, paths)
            place, _ = locate(root, ("arms", name, *path), at_key=at_key)
            problems.append(Problem(place, join_path(("arms", name, *paths[0])), message))
    match, match_problems = _read_match(root, name, match_entry, override)
    problems += match_problems
    if settings is None or problems:
        return None, problems
    try:
        return Arm(name=name, settings=settings, overrides=plain(override), match=match), []
    except ValidationError:
        return None, []  # The name is wrong, which the experiment's own validation has said.


def _has_section(base: Node, name: str | int) -> bool:
    return isinstance(plain(base).get(name), Mapping)


def _own_path(override: Node, paths: Sequence[tuple[str | int, ...]]) -> tuple[str | int, ...]:
    """Return the path among those concerned that the arm itself writes, else the nearest one."""
    for path in paths:
        if locate(override, path)[1] == len(path):
            return path
    return max(paths, key=lambda path: locate(override, path)[1])


def _read_match(
    root: Node, name: str, entry: Entry | None, override: Node
) -> tuple[Match | None, list[Problem]]:
    if entry is None:
        return None, []
    data = plain(entry.node)
    where = ("arms", name, "match")
    match = None
    try:
        match = Match.model_validate(data)
    except ValidationError as error:
        found = [
            ([(*where, *path) for path in paths], message, at_key)
            for paths, message, at_key in translate(error, data, Match)
        ]
        return None, problems_at(root, found)
    if locate(override, ("model", match.by))[1] == 2:
        place, _ = locate(root, ("arms", name, "model", match.by), at_key=True)
        message = f"is what match solves for (by: {match.by}); take it out"
        return None, [Problem(place, f"arms.{name}.model.{match.by}", message)]
    return match, []


def _check_references(root: Node, data: Mapping[str, Any]) -> list[Problem]:
    """Check the names of arms and keys that the file mentions."""
    found: list[tuple[list[tuple[str | int, ...]], str, bool]] = []
    arms = data.get("arms")
    if isinstance(arms, Mapping) and arms:
        baseline = data.get("baseline")
        if isinstance(baseline, str) and baseline.strip() and baseline not in arms:
            found.append(([("baseline",)], _no_arm(baseline, arms), False))
        for name, overrides in arms.items():
            match = overrides.get("match") if isinstance(overrides, Mapping) else None
            target = match.get("parameters_of") if isinstance(match, Mapping) else None
            path = ("arms", name, "match", "parameters_of")
            if not isinstance(target, str) or not target.strip():
                continue
            if target == name:
                found.append(([path], "must be another arm", False))
            elif target not in arms:
                found.append(([path], _no_arm(target, arms), False))
            elif isinstance(arms[target], Mapping) and arms[target].get("match") is not None:
                message = f"the arm '{target}' has a match of its own; name one without"
                found.append(([path], message, False))
    allowed = data.get("allow_differences")
    known = [path for path in known_paths(Settings) if path != "task"]
    for index, path_text in enumerate(allowed if isinstance(allowed, list) else []):
        if isinstance(path_text, str) and path_text.strip() and path_text not in known:
            guess = nearest(path_text, known)
            message = f"there is no key {path_text[:60]!r}{guess}"
            found.append(([("allow_differences", index)], message, False))
    return problems_at(root, found)


def _no_arm(name: str, arms: Mapping[str, Any]) -> str:
    guess = nearest(name, arms)
    listed = ", ".join(list(arms)[:10]) + (", ..." if len(arms) > 10 else "")
    return f"there is no arm {name[:60]!r}{guess or f'; the arms are: {listed}'}"
