"""The JSON Schema and the reference say what the loader does."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tyro_cli.config.composing import Composer, read_source
from tyro_cli.config.json_schema import experiment_json_schema
from tyro_cli.config.messages import known_paths
from tyro_cli.config.positions import plain
from tyro_cli.config.reference import config_reference_markdown
from tyro_cli.config.schema import Experiment

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def _read(path: Path) -> dict[str, Any]:
    """Read a file the way editors do, which follow YAML 1.2, as we do."""
    source, text = read_source(path, 0)
    root = Composer(source).compose(text)
    assert root is not None
    value = plain(root)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = experiment_json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _valid() -> dict[str, Any]:
    return _read(QUICKSTART)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_fits_the_schema(
    validator: Draft202012Validator, path: Path
) -> None:
    validator.validate(_read(path))


def _set(path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(_valid())
    *parents, last = path.split(".")
    place = changed
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("nmae", "x"),
        ("name", "../x"),
        ("model.d_model", "128"),
        ("model.d_model", 0),
        ("model.dropout", 1.0),
        ("model.tying", "inout"),
        ("data.context_length", 1),
        ("arms.tied.modle", {}),
        ("arms.tied.model.tyin", "none"),
        ("arms.tied.match", {"by": "d_ff"}),
        ("arms.a/b", {}),
        ("arms", {}),
        ("seeds", [-1]),
        ("seeds", "a"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(
    validator: Draft202012Validator, path: str, value: object
) -> None:
    assert not validator.is_valid(_set(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seeds", "0-4,7"),
        ("arms.wide", {"match": {"parameters_of": "untied", "by": "d_ff"}}),
        ("arms.tied.training", {"optimizer": {"learning_rate": 0.1}}),
        ("model.dropout", {"embedding": 0, "residual": 0, "output": 0}),
        ("training.gradient_clip", None),
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(
    validator: Draft202012Validator, path: str, value: object
) -> None:
    validator.validate(_set(path, value))


def test_a_file_may_be_partial_only_where_it_extends_another(
    validator: Draft202012Validator,
) -> None:
    assert validator.is_valid({"extends": "base.yaml", "model": {"d_model": 8}})
    assert not validator.is_valid({"extends": "base.yaml", "model": {"d_modle": 8}})
    assert not validator.is_valid({"model": {"d_model": 8}})


def test_the_schema_is_plain_json_with_a_hover_text_for_every_key() -> None:
    schema = experiment_json_schema()
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    for name, definition in schema["$defs"].items():
        for key, value in definition["properties"].items():
            described = "description" in value or "$ref" in value
            assert described, f"{name}.{key}"


def test_the_reference_names_every_key_with_range_and_default() -> None:
    text = config_reference_markdown()
    for path in known_paths(Experiment):
        parent, _, key = path.rpartition(".")
        heading = f"## `{parent}`\n" if parent else "## Top level\n"
        section = text[text.index(heading) :].split("\n## ")[0]
        assert f"\n| `{key}` | " in section, path
    assert "| `d_model` | whole number, ≥ 1, ≤ 65536 | required |" in text
    assert "| `margin` | number, > 0, ≤ 1 | `0.01` |" in text
    assert config_reference_markdown() == text
