"""Defaults, derived values and documentation of the schema itself."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from tyro_cli.config import schema
from tyro_cli.config.schema import DropoutConfig, ModelConfig, Section, Settings, TokenizerConfig

SECTIONS = [
    value
    for value in vars(schema).values()
    if isinstance(value, type) and issubclass(value, Section) and value is not Section
]


def _model(**changes: Any) -> ModelConfig:
    return ModelConfig(**{"d_model": 128, "num_layers": 2, "num_heads": 4, **changes})


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_is_documented(section: type[Section]) -> None:
    assert section.__doc__
    for name, info in section.model_fields.items():
        assert info.description, f"{section.__name__}.{name} has no docstring"


@pytest.mark.parametrize(
    ("d_model", "family", "d_ff", "expected"),
    [
        (128, "llama", None, 352),  # 341.3 rounded up to a multiple of 16
        (6, "llama", None, 16),  # exactly 16
        (48, "llama", None, 128),  # exactly 128
        (128, "gpt2", None, 512),
        (128, "gpt2", 100, 100),
        (128, "llama", 100, 100),
    ],
)
def test_feed_forward_width(d_model: int, family: str, d_ff: int | None, expected: int) -> None:
    model = _model(d_model=d_model, num_heads=1, family=family, d_ff=d_ff)
    assert model.resolved_d_ff == expected


@pytest.mark.parametrize(
    ("d_model", "given", "expected"),
    [(64, None, 0.02), (125, None, 0.02), (256, None, 2.5 / 256), (256, 0.5, 0.5)],
)
def test_embedding_std(d_model: int, given: float | None, expected: float) -> None:
    model = _model(d_model=d_model, num_heads=1, embedding_std=given, family="gpt2")
    assert math.isclose(model.resolved_embedding_std, expected)


def test_one_dropout_number_means_all_three_places() -> None:
    three = DropoutConfig(embedding=0.1, residual=0.1, output=0.1)
    assert _model(dropout=0.1).dropouts == three
    assert _model(dropout=three).dropouts == three
    assert _model(dropout=0).dropouts.output == 0.0


@pytest.mark.parametrize("dropout", [True, "0.1", 1.0, -0.1, math.nan, None, {"residual": 0.1}])
def test_no_other_dropout(dropout: object) -> None:
    with pytest.raises(ValidationError):
        _model(dropout=dropout)


def test_gpt2_takes_an_odd_head_size_and_llama_does_not() -> None:
    assert _model(d_model=15, num_heads=3, family="gpt2").num_heads == 3
    with pytest.raises(ValidationError, match="must be even for llama"):
        _model(d_model=15, num_heads=3)


@pytest.mark.parametrize(
    ("kind", "vocab_size", "is_valid"),
    [
        ("bpe", None, False),
        ("bpe", 257, False),
        ("bpe", 258, True),
        ("unigram", 257, False),
        ("unigram", 258, True),
        ("word", None, True),
        ("word", 2, False),
        ("word", 3, True),
        ("byte", None, True),
        ("byte", 257, True),
        ("byte", 256, False),
    ],
)
def test_vocabulary_sizes(kind: Any, vocab_size: int | None, is_valid: bool) -> None:
    if is_valid:
        assert TokenizerConfig(kind=kind, vocab_size=vocab_size).vocab_size == vocab_size
    else:
        with pytest.raises(ValidationError):
            TokenizerConfig(kind=kind, vocab_size=vocab_size)


def test_settings_survive_json_unchanged() -> None:
    settings = Settings.model_validate(
        {
            "task": "language-modeling",
            "data": {"corpus": "kjv", "tokenizer": {"kind": "byte"}, "context_length": 8},
            "model": {
                "d_model": 16,
                "num_layers": 0,
                "num_heads": 2,
                "dropout": {"embedding": 0.1, "residual": 0, "output": 0.3},
            },
            "training": {
                "budget": {"epochs": 0.5},
                "batch_tokens": 16,
                "optimizer": {"learning_rate": 1, "roles": {"vectors": {"rate": 2}}},
            },
        }
    )
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    assert settings.training.optimizer.roles.vectors.decay == 0.0
    assert settings.training.optimizer.roles.matrices.decay == 1.0
    with pytest.raises(ValidationError):
        settings.model.d_model = 3  # type: ignore[misc]
