"""Layers, overrides and arms: what wins over what, and where a problem is shown."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tyro_cli.config.loading import LoadedExperiment, load_experiment
from tyro_cli.errors import ConfigurationError

Load = Callable[..., LoadedExperiment]
Problems = Callable[..., str]

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))


def test_a_valid_file_becomes_an_experiment(load: Load, valid: str) -> None:
    loaded = load()
    experiment = loaded.experiment
    assert experiment.name == "tiny"
    assert experiment.seeds == (0, 1)
    assert experiment.arms == {"untied": {}, "tied": {"model": {"tying": "in-out"}}}
    assert experiment.training.optimizer.learning_rate == 3e-4
    assert experiment.allow_differences == ()
    assert list(loaded.arms) == ["untied", "tied"]
    assert loaded.arms["untied"].settings.model == experiment.model
    assert loaded.arms["tied"].settings.model.tying == "in-out"
    assert loaded.arms["tied"].overrides == {"model": {"tying": "in-out"}}
    assert loaded.arms["tied"].match is None
    assert loaded.path == Path("tiny.yaml")
    assert loaded.text == valid


@pytest.mark.parametrize(
    ("written", "read"),
    [("3e-4", 3e-4), ("1.5E-3", 1.5e-3), (".5", 0.5), ("1.", 1.0), ("+1e-2", 0.01), ("1", 1.0)],
)
def test_every_way_to_write_a_number_is_a_number(
    load: Load, valid: str, written: str, read: float
) -> None:
    rate = load(valid.replace("3e-4", written)).experiment.training.optimizer.learning_rate
    assert isinstance(rate, float)
    assert rate == read


@pytest.mark.parametrize("written", ["800000", "8e5", "800_000", "+800000", "8.0e5"])
def test_whole_numbers_may_have_exponents_and_underscores(
    load: Load, valid: str, written: str
) -> None:
    budget = load(valid.replace("steps: 10", f"tokens: {written}")).experiment.training.budget
    assert budget.tokens == 800_000
    assert isinstance(budget.tokens, int)


@pytest.mark.parametrize("written", ["010", "1:30", "0x10", "1e-1", "2.5"])
def test_what_only_old_yaml_takes_for_a_whole_number_is_refused(
    problems: Problems, valid: str, written: str
) -> None:
    assert "must be a whole number" in problems(valid.replace("steps: 10", f"steps: {written}"))


@pytest.mark.parametrize("word", ["on", "no", "yes", "2024-01-01", "1:30", "12e", "007"])
def test_words_that_old_yaml_turns_into_something_else_stay_text(load: Load, word: str) -> None:
    assert load(overrides=[f"data.corpus={word}"]).experiment.data.corpus == word


def test_an_alias_is_a_copy_of_its_value(load: Load, valid: str) -> None:
    text = valid.replace("untied: {}", "untied: &base {model: {tying: none}}\n  other: *base")
    assert load(text).arms["other"].overrides == {"model": {"tying": "none"}}


# extends


def _write_base(valid: str, name: str = "base.yaml") -> None:
    Path(name).write_text(valid)


def test_extends_merges_maps_and_replaces_lists(load: Load, valid: str, tmp_path: Path) -> None:
    _write_base(valid)
    loaded = load(
        "extends: base.yaml\n"
        "name: child\n"
        "model: {num_layers: 3}\n"
        "training: {budget: {epochs: 2}}\n"
        "arms: {scaled: {model: {embedding_scale: sqrt_d}}}\n"
        "seeds: [7]\n"
    )
    experiment = loaded.experiment
    assert experiment.name == "child"
    assert (experiment.model.num_layers, experiment.model.d_model) == (3, 16)
    assert experiment.seeds == (7,)
    assert list(loaded.arms) == ["untied", "tied", "scaled"]
    # Budget keys exclude each other, so the child's choice replaces the base's.
    assert experiment.training.budget.epochs == 2.0
    assert experiment.training.budget.steps is None
    assert experiment.training.batch_tokens == 64
    assert loaded.text.startswith("extends: base.yaml\n")


def test_extends_is_relative_to_the_file_that_says_so(load: Load, valid: str) -> None:
    Path("sub/deep").mkdir(parents=True)
    Path("sub/deep/base.yaml").write_text(valid)
    Path("sub/middle.yaml").write_text("extends: deep/base.yaml\nname: middle\n")
    assert load("extends: sub/middle.yaml\n").experiment.name == "middle"


def test_a_problem_is_shown_in_the_file_that_wrote_it(problems: Problems, valid: str) -> None:
    Path("base.yaml").write_text(valid.replace("d_model: 16", "d_model: 0"))
    message = problems("extends: base.yaml\nmodel: {num_layers: x}\n")
    assert [line for line in message.split("\n") if ".yaml" in line] == [
        "tiny.yaml:2:21: model.num_layers: must be a whole number, not the text 'x'",
        "base.yaml:9:12: model.d_model: must be at least 1, not 0",
    ]


def test_a_cycle_of_extends_names_the_chain(problems: Problems) -> None:
    Path("a.yaml").write_text("extends: tiny.yaml\n")
    assert problems("extends: a.yaml\n").startswith(
        "a.yaml:1:10: extends: runs in a circle: tiny.yaml -> a.yaml -> tiny.yaml\n"
    )
    assert "tiny.yaml:1:10: extends: runs in a circle" in problems("extends: ./tiny.yaml\n")


def test_a_long_chain_of_extends_ends(problems: Problems) -> None:
    for number in range(40):
        Path(f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    assert "more than 16 files extend each other" in problems("extends: 0.yaml\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("none.yaml", "tiny.yaml:1:10: extends: there is no file none.yaml"),
        ("[a, b]", "extends: must be the path of a file, not a list"),
        ("", "extends: must be the path of a file, not nothing"),
        ("x" * 5000, "extends: there is no file"),
        ('"a\\eb"', "extends: must be the path of a file"),
        (".", "is a folder, not a file"),
    ],
)
def test_extends_must_name_a_file(problems: Problems, value: str, expected: str) -> None:
    assert expected in problems(f"extends: {value}\nname: x\n")


def test_extends_in_a_section_is_an_unknown_key(problems: Problems, valid: str) -> None:
    message = problems(valid.replace("  d_model: 16", "  d_model: 16\n  extends: x.yaml"))
    assert "model.extends: unknown key" in message


# key=value


def test_the_command_line_wins_over_file_and_base(load: Load, valid: str) -> None:
    _write_base(valid)
    text = "extends: base.yaml\nmodel: {num_layers: 3, num_heads: 4}\n"
    loaded = load(text, ["model.num_layers=5", "evaluation.stride=8", "model.num_layers=6"])
    model = loaded.experiment.model
    assert (model.num_layers, model.num_heads, model.d_model) == (6, 4, 16)
    assert loaded.experiment.evaluation.stride == 8
    assert loaded.arms["tied"].settings.model.num_layers == 6


@pytest.mark.parametrize("text", ["seeds=0-4", "seeds=[0,1,2,3,4]", "seeds=0-2,3,4"])
def test_seeds_on_the_command_line(load: Load, text: str) -> None:
    assert load(overrides=[text]).experiment.seeds == (0, 1, 2, 3, 4)


def test_values_are_read_as_yaml(load: Load) -> None:
    experiment = load(
        overrides=[
            "training.gradient_clip=null",
            "training.deterministic=false",
            "training.budget={tokens: 1e6}",
            "model.dropout={embedding: 0, residual: 0.1, output: 0.2}",
            "data.corpus=hf:OWNER/NAME:config@main",
            "model.d_ff=",
        ]
    ).experiment
    assert experiment.training.gradient_clip is None
    assert experiment.training.deterministic is False
    assert experiment.training.budget.tokens == 1_000_000
    assert experiment.model.dropouts.output == 0.2
    assert experiment.data.corpus == "hf:OWNER/NAME:config@main"
    assert experiment.model.d_ff is None


def test_a_budget_on_the_command_line_replaces_the_files(load: Load) -> None:
    budget = load(overrides=["training.budget.tokens=640"]).experiment.training.budget
    assert (budget.tokens, budget.steps) == (640, None)


def test_an_arm_can_be_changed_and_added(load: Load) -> None:
    loaded = load(
        overrides=[
            "arms.tied.model.tied_role=embedding",
            "arms.v1.5={model: {tying: in-out}}",
            "arms.v1.5.model.embedding_scale=sqrt_d",
        ]
    )
    assert loaded.arms["tied"].overrides["model"] == {"tying": "in-out", "tied_role": "embedding"}
    assert list(loaded.arms) == ["untied", "tied", "v1.5"]
    assert loaded.arms["v1.5"].settings.model.embedding_scale == "sqrt_d"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "model.d_modle=3",
            "command line: model.d_modle=3: model.d_modle: unknown key; did you mean 'd_model'?",
        ),
        (
            "modle.d_model=3",
            "command line: modle.d_model=3: modle: unknown key; did you mean 'model'?",
        ),
        (
            "model.num_heads=5",
            "command line: model.num_heads=5: model.num_heads: 5 heads do not divide d_model 16; "
            "4 would",
        ),
        (
            "model.d_model=a b",
            "command line: model.d_model=a b: model.d_model: must be a whole number, "
            "not the text 'a b'",
        ),
        ("model=", "command line: model=: model: is an empty section"),
        ("d_model=3", "unknown key here; did you mean 'model.d_model'?"),
        ("model.d_model", "command line: model.d_model: must be written key=value"),
        ("=3", "command line: =3: must be written key=value"),
        ("model..d_model=3", "'model..d_model' is not a path of keys"),
        ("model.d_model=[", "command line: model.d_model=[: not YAML"),
        ("model.d_model=!!python/none x", "the tag !!python/none is not allowed"),
        ("name=" + "[" * 5000, "nested deeper than 100 levels"),
        ("name.x=3", "name is the text 'tiny' and has no keys; replace the whole of it"),
        ("model" + ".x" * 5000 + "=3", "the path has too many parts"),
        ("x" + ".x" * 90 + "=3", "unknown key; known here: name, task"),
        ("extends=x.yaml", "extends can stand in a file only"),
        ("arms.tide.model.d_model=8", "there is no arm 'tide'; did you mean 'tied'?"),
        ("arms.x/y={}", "arms.x/y: the name 'x/y' has a character that is not allowed"),
        ("arms.tied.model.num_heads=3", "arms.tied.model.num_heads: 3 heads do not divide"),
        ("seeds=9-1", "command line: seeds=9-1: seeds: the range 9-1 of seeds runs backwards"),
        ("\x1b[31m=3", "must be written key=value"),
        ("nam\u202ee=3", "must be written key=value"),
    ],
)
def test_a_bad_override_is_shown_as_it_was_typed(
    problems: Problems, override: str, expected: str
) -> None:
    message = problems(overrides=[override])
    assert expected in message
    assert "\x1b" not in message
    assert len(message) < 500


def test_problems_of_file_and_command_line_come_together(problems: Problems, valid: str) -> None:
    message = problems(valid.replace("num_layers: 1", "num_layers: x"), ["nme=a", "nonsense"])
    assert [line.split(": ")[0] for line in message.split("\n") if "|" not in line] == [
        "tiny.yaml:10:15",
        "command line",
        "command line",
    ]


# arms


def test_a_problem_of_an_arm_is_shown_at_the_arms_own_line(problems: Problems, valid: str) -> None:
    text = valid.replace("tied: {model: {tying: in-out}}", "tied: {model: {d_model: 15}}")
    # The rule is about num_heads and d_model; the arm wrote d_model.
    assert problems(text).startswith(
        "tiny.yaml:18:27: arms.tied.model.num_heads: 2 heads do not divide d_model 15"
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("{modle: {tying: none}}", "18:10: arms.tied.modle: unknown key; did you mean 'model'?"),
        (
            "{tying: in-out}",
            "18:10: arms.tied.tying: unknown key here; did you mean 'model.tying'?",
        ),
        ("{model: {tyin: none}}", "18:18: arms.tied.model.tyin: unknown key; did you mean 'tying"),
        ("{model: {dropout: 2}}", "18:27: arms.tied.model.dropout: must be less than 1, not 2"),
        ("{model:}", "18:10: arms.tied.model: is an empty section"),
        ("{task: language-modeling}", "arms.tied.task: an arm cannot change the task"),
        ("{seeds: [1]}", "18:10: arms.tied.seeds: unknown key; known here: data, model"),
        ("5", "18:9: arms.tied: must be a section of keys, not 5"),
        (
            "{data: {context_length: 48}}",
            "18:33: arms.tied.training.batch_tokens: 64 is not a multiple of data.context_length",
        ),
        (
            "{model: {dropout: {residual: 0.1}}}",
            "18:18: arms.tied.model.dropout.embedding: is missing",
        ),
    ],
)
def test_bad_arms(problems: Problems, valid: str, overrides: str, expected: str) -> None:
    message = problems(valid.replace("{model: {tying: in-out}}", overrides))
    assert expected in message


def test_a_problem_of_the_base_is_said_once(problems: Problems, valid: str) -> None:
    message = problems(valid.replace("num_heads: 2", "num_heads: 3"))
    assert message.count("heads do not divide") == 1


def test_an_arm_may_choose_another_budget(load: Load, valid: str) -> None:
    text = valid.replace("untied: {}", "untied: {training: {budget: {epochs: 1.5}}}")
    budget = load(text).arms["untied"].settings.training.budget
    assert (budget.epochs, budget.steps) == (1.5, None)


def _with_match(valid: str, match: str, model: str = "{tying: in-out}") -> str:
    return valid.replace("baseline:", f"  wide: {{model: {model}, match: {match}}}\nbaseline:")


def test_match_is_taken_out_of_the_overrides(load: Load, valid: str) -> None:
    arm = load(_with_match(valid, "{parameters_of: untied, by: d_ff}")).arms["wide"]
    assert arm.match is not None
    assert (arm.match.parameters_of, arm.match.by) == ("untied", "d_ff")
    assert arm.overrides == {"model": {"tying": "in-out"}}
    assert arm.settings.model.d_ff is None


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("{parameters_of: wide, by: d_ff}", "19:57: arms.wide.match.parameters_of: must be anoth"),
        ("{parameters_of: untide, by: d_ff}", "there is no arm 'untide'; did you mean 'untied'?"),
        ("{parameters_of: untied, by: depth}", "19:69: arms.wide.match.by: must be one of d_ff"),
        ("{parameters_of: untied}", "19:34: arms.wide.match.by: is missing"),
        ("{parameters_of: untied, by: d_ff, to: 3}", "arms.wide.match.to: unknown key"),
        ("untied", "19:41: arms.wide.match: must be a section of keys, not the text 'untied'"),
        ("", "19:34: arms.wide.match: is an empty section"),
    ],
)
def test_bad_matches(problems: Problems, valid: str, match: str, expected: str) -> None:
    assert expected in problems(_with_match(valid, match))


def test_a_matched_arm_cannot_be_matched_again(problems: Problems, valid: str) -> None:
    text = _with_match(valid, "{parameters_of: untied, by: d_ff}").replace(
        "  tied: {model: {tying: in-out}}",
        "  tied: {model: {tying: in-out}, match: {parameters_of: wide, by: d_ff}}",
    )
    assert "the arm 'wide' has a match of its own" in problems(text)


def test_an_arm_cannot_write_what_its_match_solves(problems: Problems, valid: str) -> None:
    text = _with_match(valid, "{parameters_of: untied, by: d_ff}", "{tying: in-out, d_ff: 64}")
    assert "arms.wide.model.d_ff: is what match solves for (by: d_ff)" in problems(text)


# the error of other rooms


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("arms.tied.model.tying", "tiny.yaml:18:25: arms.tied.model.tying: no"),
        ("arms.tied", "tiny.yaml:18:3: arms.tied: no"),
        ("arms.tied.model.num_layers", "tiny.yaml:18:10: arms.tied.model.num_layers: no"),
        ("data.corpus", "tiny.yaml:5:11: data.corpus: no"),
        ("data.splits.train", "tiny.yaml:4:1: data.splits.train: no"),
        ("analysis.margin", "tiny.yaml:2:1: analysis.margin: no"),
        ("model.num_layers", "command line: model.num_layers=3: model.num_layers: no"),
    ],
)
def test_another_room_can_point_at_a_line(load: Load, path: str, expected: str) -> None:
    error = load(overrides=["model.num_layers=3"]).error(path, "no", "do this")
    assert error.message.split("\n")[0] == expected
    assert error.remedy == "do this"
    assert error.exit_code == 2


def test_an_arm_with_dots_in_its_name_can_be_pointed_at(load: Load, valid: str) -> None:
    loaded = load(valid.replace("  tied:", "  a.b:"))
    assert loaded.error("arms.a.b.model.tying", "no").message.startswith("tiny.yaml:18:24: ")


def test_a_loaded_experiment_is_frozen(load: Load) -> None:
    loaded = load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.text = ""  # type: ignore[misc]
    with pytest.raises(ValidationError):
        loaded.experiment.name = ""  # type: ignore[misc]


# shipped configurations


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    loaded = load_experiment(path)
    is_translation = loaded.experiment.task == "translation"
    arms = {"none", "in-out", "three-way"} if is_translation else {"untied", "tied"}
    assert arms <= set(loaded.arms)
    assert loaded.experiment.name == path.stem
    lines = loaded.text.split("\n")
    assert lines[0] == "# yaml-language-server: $schema=../docs/wtie.schema.json"
    for word in ("# Question: ", "Cost: ", "# Expected: "):
        assert word in loaded.text


def test_the_two_wikitext_configurations_train_alike_but_for_tokenizer_and_budget() -> None:
    word = load_experiment(CONFIGS / "wikitext2.yaml").experiment.model_dump(exclude_none=True)
    bpe = load_experiment(CONFIGS / "wikitext2-bpe.yaml").experiment.model_dump(exclude_none=True)
    assert word["data"].pop("tokenizer") == {"kind": "word", "vocab_size": 33_278}
    assert bpe["data"].pop("tokenizer") == {"kind": "bpe", "vocab_size": 8192}
    assert word["training"].pop("budget")["epochs"] == 2
    assert bpe["training"].pop("budget")["epochs"] == 4
    for experiment in (word, bpe):
        experiment["evaluation"].pop("every_steps")  # an epoch has more steps in one than the other
    assert (word.pop("name"), bpe.pop("name")) == ("wikitext2", "wikitext2-bpe")
    assert word == bpe


def test_our_reading_agrees_with_the_yaml_library_on_shipped_files() -> None:
    for path in SHIPPED:
        text = path.read_text()
        if "extends:" in text:
            continue
        ours = load_experiment(path).experiment
        theirs = yaml.safe_load(text)
        assert ours.arms == theirs["arms"]
        assert ours.model.d_model == theirs["model"]["d_model"]


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys, tyro_cli.config.loading\n"
        "heavy = {'torch', 'datasets', 'tokenizers', 'scipy', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x")

    def refuse(*args: object, **kwargs: object) -> Sequence[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match=r"x\.yaml: cannot be read: Permission denied"):
        load_experiment(path)
