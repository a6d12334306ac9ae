"""Study files: the points of a grid, and every file that is refused, at the place to blame."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.config.conftest import VALID
from tyro_cli.config.grid import MOST_POINTS
from tyro_cli.config.studies import LoadedStudy, load_study
from tyro_cli.errors import ConfigurationError

Load = Callable[..., LoadedStudy]
Refused = Callable[..., str]

HEAD = "name: sizes\nexperiment: tiny.yaml\nfactors:\n"
WIDTH = "  width: {model.d_model: [8, 16]}\n"
VOCABULARY = "  vocabulary: {data.tokenizer.vocab_size: [512, 1024]}\n"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a text as `study.yaml`, beside the experiment `tiny.yaml`."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str, overrides: Sequence[str] = (), experiment: str = VALID) -> LoadedStudy:
        Path("tiny.yaml").write_text(experiment)
        Path("study.yaml").write_text(text)
        return load_study(Path("study.yaml"), overrides)

    return load_text


@pytest.fixture
def refused(load: Load) -> Refused:
    """Load a study that must be refused, and return the message."""

    def message(text: str, overrides: Sequence[str] = (), experiment: str = VALID) -> str:
        with pytest.raises(ConfigurationError) as caught:
            load(text, overrides, experiment)
        assert caught.value.exit_code == 2
        assert caught.value.remedy
        return caught.value.message

    return message


def levels(study: LoadedStudy) -> list[tuple[object, ...]]:
    return [tuple(point.levels.values()) for point in study.points]


# the grid


def test_one_factor_is_one_point_for_each_level(load: Load) -> None:
    study = load(HEAD + VOCABULARY)
    assert levels(study) == [(512,), (1024,)]
    sizes = [p.loaded.experiment.data.tokenizer.vocab_size for p in study.points]
    assert sizes == [512, 1024]
    assert study.points[1].values == {"data.tokenizer.vocab_size": 1024}
    assert study.points[1].loaded.arms["tied"].settings.data.tokenizer.vocab_size == 1024
    assert (study.study.name, study.study.family) == ("sizes", "all")
    assert study.experiment_path == Path("tiny.yaml")
    assert study.text == HEAD + VOCABULARY


def test_two_factors_are_every_combination_the_first_slowest(load: Load) -> None:
    study = load(HEAD + WIDTH + VOCABULARY)
    assert levels(study) == [(8, 512), (8, 1024), (16, 512), (16, 1024)]
    assert [point.label for point in study.points] == ["8,512", "8,1024", "16,512", "16,1024"]
    for point in study.points:
        experiment = point.loaded.experiment
        assert experiment.model.d_model == point.levels["width"]
        assert experiment.data.tokenizer.vocab_size == point.levels["vocabulary"]


def test_keys_of_one_factor_move_together_and_the_first_names_the_level(load: Load) -> None:
    study = load(HEAD + "  width: {model.d_model: [8, 24], model.num_heads: [2, 3]}\n")
    assert levels(study) == [(8,), (24,)]
    assert study.points[1].values == {"model.d_model": 24, "model.num_heads": 3}
    assert study.points[1].loaded.experiment.model.num_heads == 3


def test_levels_may_be_sections_words_and_nothing(load: Load) -> None:
    study = load(
        HEAD + "  budget: {training.budget: [{tokens: 640}, {epochs: 2}]}\n"
        "  inner: {model.d_ff: [null, 32]}\n"
    )
    assert study.points[0].label == '{"tokens": 640},null'
    budgets = [point.loaded.experiment.training.budget for point in study.points]
    assert [(budget.tokens, budget.epochs) for budget in budgets[1:3]] == [(640, None), (None, 2.0)]
    assert [point.loaded.experiment.model.d_ff for point in study.points] == [None, 32] * 2


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ("[{width: 8, vocabulary: 512}]", [(8, 1024), (16, 512), (16, 1024)]),
        ("[{width: 8}]", [(16, 512), (16, 1024)]),
        ("[{width: [8, 16], vocabulary: 512}]", [(8, 1024), (16, 1024)]),
        ("[{width: 8, vocabulary: 512}, {width: 16, vocabulary: 1024}]", [(8, 1024), (16, 512)]),
        ("[]", [(8, 512), (8, 1024), (16, 512), (16, 1024)]),
    ],
)
def test_exclusions_take_points_out(load: Load, exclude: str, left: list[object]) -> None:
    assert levels(load(HEAD + WIDTH + VOCABULARY + f"exclude: {exclude}\n")) == left


def test_only_the_points_that_are_left_must_be_valid(load: Load) -> None:
    # 3 heads do not divide 16, and 18 in 2 heads makes heads of odd size.
    study = load(
        HEAD + "  width: {model.d_model: [16, 18]}\n  heads: {model.num_heads: [2, 3]}\n"
        "exclude: [{width: 16, heads: 3}, {width: 18, heads: 2}]\n"
    )
    assert levels(study) == [(16, 2), (18, 3)]


def test_a_family_is_all_or_a_factor(load: Load) -> None:
    assert load(HEAD + WIDTH + "family: all\n").study.family == "all"
    assert load(HEAD + WIDTH + "family: width\n").study.family == "width"


@pytest.mark.parametrize(
    ("text", "overrides", "seeds"),
    [
        ("", [], (0, 1)),
        ("", ["seeds=4-5"], (4, 5)),
        ("seeds: 0-2\n", [], (0, 1, 2)),
        ("seeds: [7]\n", [], (7,)),
        ("seeds: 0-2\n", ["seeds=4-5"], (4, 5)),
    ],
)
def test_seeds_command_line_over_study_over_experiment(
    load: Load, text: str, overrides: list[str], seeds: tuple[int, ...]
) -> None:
    assert load(HEAD + WIDTH + text, overrides).seeds == seeds


def test_overrides_are_laid_over_every_point(load: Load) -> None:
    study = load(HEAD + WIDTH, ["evaluation.stride=4"])
    assert [point.loaded.experiment.evaluation.stride for point in study.points] == [4, 4]
    assert study.overrides == ("evaluation.stride=4",)


def test_the_experiment_is_found_from_the_studys_folder(load: Load, tmp_path: Path) -> None:
    load(HEAD + WIDTH)
    folder = tmp_path / "studies"
    folder.mkdir()
    path = folder / "study.yaml"
    path.write_text((HEAD + WIDTH).replace("tiny.yaml", "../tiny.yaml"))
    assert len(load_study(path).points) == 2


def test_an_alias_is_a_copy_and_a_tag_runs_nothing(load: Load, refused: Refused) -> None:
    study = load(HEAD + "  window: {data.context_length: &w [16, 32], training.batch_tokens: *w}\n")
    assert study.points[0].values == {"data.context_length": 16, "training.batch_tokens": 16}
    message = refused(HEAD + "  width: {model.d_model: !!python/object:os.system [8]}\n")
    assert message.startswith("study.yaml:4:26: factors.width.model.d_model: the tag !!python/")
    bomb = "  a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"  {new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
        for old, new in zip("abcdef", "bcdefg", strict=True)
    )
    assert "more than 5000 values" in refused(HEAD + bomb)


# what is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "  width: {model.d_modle: [8, 16]}\n",
            "4:11: factors.width.model.d_modle: there is no key 'model.d_modle'; "
            "did you mean 'model.d_model'?",
        ),
        ("  width: {seeds: [[0]]}\n", "4:11: factors.width.seeds: a factor sets a dotted key of"),
        ("  width: {name: [a]}\n", "4:11: factors.width.name: a factor sets a dotted key of data"),
        ("  width: {model: [{}]}\n", "4:11: factors.width.model: a factor sets a dotted key of"),
        ("  width: {task: [x]}\n", "4:11: factors.width.task: a factor sets a dotted key of data"),
        (
            "  width: {arms.tied.model.d_ff: [8]}\n",
            "4:11: factors.width.arms.tied.model.d_ff: a factor sets a dotted key of data, model, "
            "training or evaluation",
        ),
        (
            "  tie: {model.tying: [none, in-out]}\n",
            "4:9: factors.tie.model.tying: the arm 'tied' sets this key itself (the text 'in-out')",
        ),
        ("  width: {model.d_model: []}\n", "4:11: factors.width.model.d_model: holds no level"),
        ("  width: {model.d_model: 8}\n", "4:26: factors.width.model.d_model: must be a list, not"),
        ("  width: {}\n", "4:3: factors.width: is empty; it needs at least one entry"),
        ("  width:\n", "4:3: factors.width: is an empty section"),
        (
            "  width: {model.d_model: [8, 16, 8]}\n",
            "4:34: factors.width: the level 8 stands twice",
        ),
        (
            "  rate: {training.optimizer.learning_rate: [1e-3, 0.001]}\n",
            "4:51: factors.rate: the level 0.001 stands twice",
        ),
        (
            "  width: {model.d_model: [8, 16], model.num_heads: [2]}\n",
            "4:35: factors.width.model.num_heads: holds 1 levels, the factor's first key 2",
        ),
        (
            WIDTH + "  more: {model.d_model: [32]}\n",
            "5:10: factors.more.model.d_model: model.d_model of the factor 'width' sets this",
        ),
        (
            "  budget: {training.budget.tokens: [640]}\n  steps: {training.budget.steps: [5]}\n",
            "5:11: factors.steps.training.budget.steps: training.budget.tokens of the factor",
        ),
        (
            "  part: {model.dropout: [0.1]}\n  other: {model.dropout.residual: [0.2]}\n",
            "5:11: factors.other.model.dropout.residual: model.dropout of the factor 'part' sets",
        ),
        (
            WIDTH + "exclude: [{width: 8}, {widht: 8}]\n",
            "5:23: exclude[1]: there is no factor 'widht'; did you mean 'width'?",
        ),
        (WIDTH + "exclude: [{width: 9}]\n", "5:11: exclude[0]: width has no level 9"),
        (WIDTH + "exclude: [{width: [8, 9]}]\n", "5:11: exclude[0]: width has no level 9"),
        (WIDTH + "exclude: [{}]\n", "5:11: exclude[0]: names no factor, so it would exclude every"),
        (WIDTH + "exclude: {width: 8}\n", "5:1: exclude: must be a list, not a section of keys"),
        (WIDTH + "exclude: [8]\n", "5:11: exclude[0]: must be a section of keys, not 8"),
        (
            WIDTH + "exclude: [{width: 8}, {width: 16}]\n",
            "3:1: factors: the grid is empty: every point is excluded",
        ),
        (
            WIDTH + "family: widht\n",
            "5:9: family: must be one of all, width, not 'widht'; did you mean 'width'?",
        ),
        (WIDTH + "seeds: 3\n", "5:8: seeds: must be a list: [3] for that seed alone"),
        (WIDTH + "seeds: [0, 0]\n", "5:1: seeds: the seed 0 stands twice"),
        (WIDTH + "sedes: 0-2\n", "5:1: sedes: unknown key; did you mean 'seeds'?"),
        ("  a b: {model.d_model: [8]}\n", "4:3: factors.a b: the name 'a b' has a character that"),
    ],
)
def test_bad_studies_are_pointed_at(refused: Refused, text: str, expected: str) -> None:
    message = refused(HEAD + text)
    assert message.startswith(f"study.yaml:{expected}")
    assert message.count("study.yaml:") == 1, "one problem, said once"
    assert " | " in message and "^" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "study.yaml: is empty: it holds no key"),
        ("- a\n", "study.yaml:1:1: the file must hold keys (name: and others), not a list"),
        ("name: a\nexperiment: tiny.yaml\n", "study.yaml:1:1: factors: is missing"),
        (HEAD, "study.yaml:3:1: factors: is an empty section"),
        (HEAD[:-1] + " {}\n", "study.yaml:3:1: factors: is empty; it needs at least one entry"),
        (
            HEAD.replace("tiny", "gone") + WIDTH,
            "study.yaml:2:13: experiment: there is no file gone.yaml",
        ),
        (HEAD.replace("tiny.yaml", ".") + WIDTH, "study.yaml:2:13: experiment: there is no file ."),
        (HEAD.replace("tiny", "x" * 5000) + WIDTH, "study.yaml:2:13: experiment: there is no file"),
        (HEAD.replace("sizes", "../x") + WIDTH, "study.yaml:1:7: name: the name '../x' has a char"),
    ],
)
def test_studies_without_a_grid_or_a_base(refused: Refused, text: str, expected: str) -> None:
    message = refused(text)
    assert message.startswith(expected)
    assert "Errno" not in message


def test_an_experiment_in_a_studys_place_gets_one_error_with_its_command(load: Load) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(VALID)
    assert caught.value.message == (
        "study.yaml:3:1: task: the file is an experiment, not a study\n"
        "    3 | task: language-modeling\n"
        "      | ^^^^"
    )
    assert caught.value.remedy == "`wtie train --config study.yaml` runs it"
    assert caught.value.exit_code == 2


def test_an_experiment_is_known_by_what_it_extends_alone(refused: Refused) -> None:
    message = refused("name: more\nextends: tiny.yaml\nseeds: 0-4\n")
    assert message.startswith("study.yaml:2:1: extends: the file is an experiment, not a study\n")


@pytest.mark.parametrize("key", ["factors", "experiment"])
def test_a_study_with_keys_of_an_experiment_is_still_a_study(refused: Refused, key: str) -> None:
    lines = {"experiment": "experiment: tiny.yaml\n", "factors": "factors:\n" + WIDTH}
    message = refused("name: a\n" + lines[key] + "arms: {tied: {}}\n")
    assert "arms: unknown key" in message
    assert "not a study" not in message


def test_a_study_of_a_study_is_refused_where_it_is_named(refused: Refused) -> None:
    study = HEAD + WIDTH
    assert refused(study, experiment=study).startswith(
        "study.yaml:2:13: experiment: tiny.yaml is a study itself; name an experiment\n"
    )
    assert refused(study.replace("tiny", "study")).startswith(
        "study.yaml:2:13: experiment: study.yaml is a study itself; name an experiment\n"
    )


def test_a_study_file_that_is_not_there(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yaml: there is no such file"):
        load_study(tmp_path / "gone.yaml")


def test_the_base_experiments_own_problems_are_its_own(refused: Refused) -> None:
    message = refused(HEAD + WIDTH, experiment=VALID.replace("num_layers: 1", "num_layers: x"))
    assert message.startswith("tiny.yaml:10:15: model.num_layers: must be a whole number")
    assert "level" not in message and "point" not in message


def test_a_level_that_the_schema_refuses_is_shown_where_it_stands(refused: Refused) -> None:
    assert refused(HEAD + WIDTH + VOCABULARY.replace("1024", "100")) == (
        "study.yaml:5:49: data.tokenizer.vocab_size: must be at least 258 for bpe (256 bytes, "
        "<eos> and what is learned), not 100\n"
        "    5 |   vocabulary: {data.tokenizer.vocab_size: [512, 100]}\n"
        "      |                                                 ^^^\n"
        "      (the level 100 of vocabulary, study.yaml:5:49)"
    )


def test_refused_levels_are_all_said_and_each_once(refused: Refused) -> None:
    message = refused(HEAD + "  width: {model.d_model: [8, x]}\n" + VOCABULARY.replace("512", "7"))
    heads = [line for line in message.split("\n") if line.startswith("study.yaml:")]
    assert [head.split(": must")[0] for head in heads] == [
        "study.yaml:4:30: model.d_model",
        "study.yaml:5:44: data.tokenizer.vocab_size",
    ]


def test_a_level_that_does_not_fit_the_base_is_placed_in_both_files(refused: Refused) -> None:
    message = refused(HEAD + "  width: {model.d_model: [16, 15]}\n")
    assert message.startswith("tiny.yaml:11:14: model.num_heads: 2 heads do not divide d_model 15")
    assert message.endswith("(the level 15 of width, study.yaml:4:31)")


def test_a_point_is_named_where_no_level_alone_is_to_blame(refused: Refused) -> None:
    # Either key is fine beside the base's other one, but 24 in 4 heads and 8 in 8 are not.
    text = HEAD + "  width: {model.d_model: [16, 40]}\n  heads: {model.num_heads: [2, 4, 8]}\n"
    message = refused(text)
    assert message.startswith("study.yaml:5:35: model.num_heads: the head size d_model / num_heads")
    assert message.endswith("(the point width 40, heads 8)")


def test_a_level_that_fits_somewhere_is_not_to_blame(refused: Refused) -> None:
    # 18 goes with 3 heads, though not with the 2 of the base.
    message = refused(
        HEAD + "  width: {model.d_model: [16, 18]}\n  heads: {model.num_heads: [2, 3]}\n"
        "exclude: [{width: 16, heads: 3}]\n"
    )
    assert message.endswith("(the point width 18, heads 2)")


def test_very_many_refused_levels_do_not_fill_the_screen(refused: Refused) -> None:
    odd = ", ".join(str(number) for number in range(1, 201, 2))
    message = refused(HEAD + f"  width: {{model.d_model: [{odd}]}}\n")
    assert message.endswith("... and 80 more levels")
    assert len(message) < 20_000


def test_too_many_points_are_refused_before_any_is_loaded(refused: Refused) -> None:
    levels = math.isqrt(MOST_POINTS) + 1
    many = ", ".join(map(str, range(1, levels + 1)))
    factors = f"  width: {{model.d_model: [{many}]}}\n  depth: {{model.num_layers: [{many}]}}\n"
    message = refused(HEAD + factors)
    assert message.startswith("study.yaml:3:1: factors: the grid has 10,201 points, the most is")


@pytest.mark.parametrize(
    ("arm", "key", "what"),
    [
        ("{model: {dropout: 0.3}}", "model.dropout.residual", "0.3"),
        ("{model: {d_ff: null}}", "model.d_ff", "nothing"),
        ("{training: {budget: {tokens: 640}}}", "training.budget.steps", "a section of keys"),
        ("{training: {budget: {tokens: 640}}}", "training.budget", "a section of keys"),
    ],
)
def test_a_key_that_an_arm_sets_in_another_way_is_refused(
    refused: Refused, arm: str, key: str, what: str
) -> None:
    """The arm would win, and its levels be all the same."""
    experiment = VALID.replace("untied: {}", f"untied: {arm}")
    message = refused(HEAD + f"  some: {{{key}: [5]}}\n", experiment=experiment)
    assert message.startswith(
        f"study.yaml:4:10: factors.some.{key}: the arm 'untied' sets this key itself ({what})"
    )


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("model.d_model", "model.d_model=32"),
        ("training.budget.tokens", "training.budget.steps=5"),
        ("model.dropout.residual", "model.dropout=0.1"),
        ("model.d_model", "model={d_model: 32, num_layers: 1, num_heads: 2}"),
    ],
)
def test_an_override_that_levels_would_lie_over_is_refused(
    refused: Refused, key: str, override: str
) -> None:
    message = refused(HEAD + f"  some: {{{key}: [640, 1280]}}\n", ["evaluation.stride=4", override])
    path = override.split("=")[0]
    assert f"command line: {override}: {path}: the factor 'some' sets this key" in message
    assert "stride" not in message


def test_every_problem_of_the_study_is_said_at_once(refused: Refused) -> None:
    message = refused(
        HEAD + "  width: {model.d_modle: [8]}\n  heads: {model.num_heads: []}\n"
        "exclude: [{depth: 1}, {heads: 2}]\n"
    )
    heads = [line for line in message.split("\n") if line.startswith("study.yaml:")]
    assert [head.split(": ")[0] for head in heads] == [
        "study.yaml:4:11",
        "study.yaml:5:11",
        "study.yaml:6:11",
    ]
