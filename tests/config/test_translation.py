"""What an experiment says of a translation: its keys, what goes with what, and what is refused."""

import pytest

from tests.config.conftest import VALID, Load, Problems

TRANSLATION = VALID.replace("language-modeling", "translation")


def test_left_out_keys_and_what_they_mean(load: Load) -> None:
    model = load(TRANSLATION).experiment.model
    assert (model.resolved_encoder_layers, model.resolved_positions) == (1, "rotary")
    model = load(TRANSLATION, ["model.num_encoder_layers=3", "model.family=gpt2"]).experiment.model
    assert (model.resolved_encoder_layers, model.resolved_positions) == (3, "learned")


def test_three_way_is_an_arm_of_a_joint_vocabulary(load: Load) -> None:
    arms = load(TRANSLATION, ["arms.three={model: {tying: three-way}}"]).arms
    assert arms["three"].settings.model.tying == "three-way"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["arms.tied.model.tying=three-way", "data.tokenizer.sharing=separate"],
            "set data.tokenizer.sharing: joint",
        ),
        (["data.languages={source: de, target: de}"], "is the source language too: de"),
        (["data.languages={source: ../de, target: en}"], "must be a name without folders"),
        (["data.languages={source: de}"], "data.languages.target: is missing"),
        (["data.target_script.disjoint_fraction=1.5"], "must be at most 1, not 1.5"),
        (["data.format=wikitext"], "data.format: translation reads lines"),
        (["evaluation.stride=4"], "evaluation.stride: translation scores every sentence"),
        (["training.batch_tokens=63"], "no room for two sentences of data.context_length (32)"),
        (["training.micro_batch_tokens=32"], "training.micro_batch_tokens: 32 has no room"),
        (["training.micro_batch_tokens=65"], "65 is more than training.batch_tokens (64)"),
        (["evaluation.beam_size=0"], "evaluation.beam_size: must be at least 1, not 0"),
        (["training.label_smoothing=1"], "training.label_smoothing: must be less than 1, not 1"),
        (["model.num_layers=0"], "a decoder without layers never looks at its source"),
        (["model.positions=rotery"], "did you mean 'rotary'?"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_problem_is_named_with_its_remedy(
    problems: Problems, overrides: list[str], expected: str
) -> None:
    assert expected in problems(TRANSLATION, overrides)


@pytest.mark.parametrize(
    "override",
    [
        "data.languages={source: de, target: en}",
        "data.tokenizer.sharing=joint",
        "data.unusable_pairs=drop",
        "data.target_script={disjoint_fraction: 0}",
        "model.num_encoder_layers=1",
        "training.label_smoothing=0",
        "evaluation.beam_size=1",
        "evaluation.length_penalty=1",
    ],
)
def test_a_key_of_translation_is_refused_in_a_language_model(
    problems: Problems, override: str
) -> None:
    key = override.split("=")[0]
    assert f"{key}: is for the task translation" in problems(VALID, [override])


def test_translation_is_not_compiled(problems: Problems) -> None:
    message = problems(TRANSLATION, ["training.compile=true"])
    assert "training.compile: batches of translation have too many shapes to compile" in message


def test_a_language_model_has_no_encoder_to_tie(problems: Problems) -> None:
    message = problems(VALID, ["arms.tied.model.tying=three-way"])
    assert "three-way ties an encoder too: the task must be translation" in message


def test_an_odd_head_size_goes_without_rotary_positions(load: Load, problems: Problems) -> None:
    odd = ["model.d_model=6", "model.positions=learned"]
    assert load(VALID, odd).experiment.model.resolved_positions == "learned"
    message = problems(VALID, ["model.d_model=6", "model.positions=rotary"])
    assert "= 3 must be even (rotary positions turn pairs of numbers)" in message
