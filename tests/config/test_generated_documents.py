"""The JSON Schema and the reference say what the loader does."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tyro_cli.config.composing import Composer, read_source
from tyro_cli.config.json_schema import experiment_json_schema, study_json_schema
from tyro_cli.config.messages import known_paths
from tyro_cli.config.positions import plain
from tyro_cli.config.reference import config_reference_markdown
from tyro_cli.config.schema import Experiment
from tyro_cli.config.studies import Study, load_study
from tyro_cli.errors import ConfigurationError

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
FOLDER = Path(__file__).parents[2] / "configs"
STUDIES = sorted([*FOLDER.glob("studies/*.yaml"), *FOLDER.glob("claims/*.yaml")])


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


@pytest.fixture(scope="module")
def study_validator() -> Draft202012Validator:
    schema = study_json_schema()
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


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_shipped_study_fits_its_schema_and_not_the_experiments(
    study_validator: Draft202012Validator, validator: Draft202012Validator, path: Path
) -> None:
    study_validator.validate(_read(path))
    assert not validator.is_valid(_read(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_no_shipped_configuration_fits_the_schema_of_studies(
    study_validator: Draft202012Validator, path: Path
) -> None:
    assert not study_validator.is_valid(_read(path))


STUDY = """\
name: sizes
experiment: base.yaml
factors:
  width: {model.d_model: [64, 128], model.num_heads: [2, 4]}
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(QUICKSTART.read_text())
    return tmp_path / "study.yaml"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("factors:", "factor:"),
        ("name: sizes\n", ""),
        ("experiment: base.yaml\n", ""),
        ("sizes", "../sizes"),
        ("  width:", "  a b:"),
        ("  width: {model.d_model: [64, 128], model.num_heads: [2, 4]}", "  {}"),
        ("{model.d_model: [64, 128], model.num_heads: [2, 4]}", "{}"),
        ("model.d_model", "model.d_modle"),
        ("model.d_model: [64, 128], model.num_heads: [2, 4]", "model: [{}]"),
        ("model.d_model: [64, 128], model.num_heads: [2, 4]", "seeds: [[0], [1]]"),
        ("[64, 128]", "64"),
        ("[64, 128]", "[]"),
        ("[64, 128]", "[64, '128']"),
        ("[64, 128]", "[64, -128]"),
        ("model.num_heads: [2, 4]", "training.schedule: [{kind: constnt}, {kind: constant}]"),
        ("factors:", "exclude: [{}]\nfactors:"),
        ("factors:", "family: [width]\nfactors:"),
        ("factors:", "seeds: [-1]\nfactors:"),
        ("factors:", "arms: {tied: {}}\nfactors:"),
    ],
)
def test_the_schema_refuses_studies_that_the_loader_refuses(
    study_validator: Draft202012Validator, study_file: Path, old: str, new: str
) -> None:
    study_file.write_text(STUDY)
    assert len(load_study(study_file).points) == 2, "before it is broken"
    assert study_validator.is_valid(_read(study_file))
    study_file.write_text(STUDY.replace(old, new))
    assert not study_validator.is_valid(_read(study_file))
    with pytest.raises(ConfigurationError):
        load_study(study_file)


@pytest.mark.parametrize(
    "factor",
    [
        "{training.budget: [{tokens: 20000}, {epochs: 1}]}",
        "{model.d_ff: [null, 256]}",
        "{model.dropout: [0.1, {embedding: 0.1, residual: 0, output: 0}]}",
        "{evaluation.stride: [32, 64]}",
        "{data.tokenizer: [{kind: byte}, {kind: bpe, vocab_size: 512}]}",
        "{training.optimizer.roles.head.rate: [1, 2.5]}",
    ],
)
def test_the_schema_accepts_studies_that_the_loader_accepts(
    study_validator: Draft202012Validator, study_file: Path, factor: str
) -> None:
    head = STUDY[: STUDY.index("  width")]
    study_file.write_text(f"{head}  one: {factor}\nexclude: []\nfamily: one\nseeds: 0-2\n")
    assert len(load_study(study_file).points) == 2
    study_validator.validate(_read(study_file))


@pytest.mark.parametrize("make", [experiment_json_schema, study_json_schema])
def test_the_schema_is_plain_json_with_a_hover_text_for_every_key(
    make: Callable[[], dict[str, Any]],
) -> None:
    schema = make()
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    for name, definition in schema["$defs"].items():
        for key, value in definition["properties"].items():
            described = "description" in value or "$ref" in value
            assert described, f"{name}.{key}"


def test_a_study_has_a_hover_text_for_its_keys_and_for_what_it_varies() -> None:
    schema = study_json_schema()
    assert all(schema["properties"][key]["description"] for key in Study.model_fields)
    factor = schema["$defs"]["Factor"]["properties"]
    sections = experiment_json_schema()["$defs"]
    width = sections["ModelConfig"]["properties"]["d_model"]
    assert factor["model.d_model"]["description"] == width["description"]
    size = sections["TokenizerConfig"]["properties"]["vocab_size"]
    assert factor["data.tokenizer.vocab_size"]["description"] == size["description"]


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
