"""Which kind of file a tree is, an experiment or a study, told from its top-level keys.

A file given to the other kind's command would show every key as unknown and every section as
missing; here it gets one error, which names the command that runs it. Whether the file is right is
left to validation.
"""

from collections.abc import Mapping

from tyro_cli.config.positions import Node, Problem
from tyro_cli.errors import ConfigurationError

_KEYS_OF_A_STUDY = ("factors", "experiment")
_KEYS_OF_AN_EXPERIMENT = ("task", "arms", "data", "model", "training", "extends")


class OtherKind(ConfigurationError):
    """The file is an experiment where a study was asked for, or the other way round."""


def refuse_study(root: Node) -> None:
    """Raise `OtherKind` where the tree of an experiment is a study: it has both of its own keys."""
    keys = _keys(root)
    if all(key in keys for key in _KEYS_OF_A_STUDY):
        raise _other_kind(root, _KEYS_OF_A_STUDY[0], "a study, not an experiment", "sweep")


def refuse_experiment(root: Node) -> None:
    """Raise `OtherKind` where the tree of a study is an experiment: it has none of its own keys."""
    keys = _keys(root)
    found = [key for key in _KEYS_OF_AN_EXPERIMENT if key in keys]
    if found and not any(key in keys for key in _KEYS_OF_A_STUDY):
        raise _other_kind(root, found[0], "an experiment, not a study", "train")


def _keys(root: Node) -> Mapping[str, object]:
    return root.value if isinstance(root.value, Mapping) else {}


def _other_kind(root: Node, key: str, kind: str, command: str) -> OtherKind:
    assert isinstance(root.value, Mapping)
    place = root.value[key].place
    return OtherKind(
        Problem(place, key, f"the file is {kind}").render(),
        f"`wtie {command} --config {place.source.label}` runs it",
    )
