"""Tiny translation settings, models and batches for tests: d = 16, V = 61, at most 8 tokens a side."""  # noqa: E501

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.tiny import D, T, V
from tyro_cli.config.schema import Settings
from tyro_cli.models.head_loss import IGNORED
from tyro_cli.models.translation_model import TranslationModel, build_translation_model

SOURCE_V = 47  # where the vocabularies are separate

TIES = ("none", "in-out", "three-way")
FAMILIES = ("llama", "gpt2")

SHAPES: tuple[dict[str, Any], ...] = (
    {"family": "llama"},
    {"family": "gpt2"},
    {"family": "llama", "positions": "sinusoidal", "norm_place": "post"},
    {"family": "gpt2", "positions": "rotary", "norm_place": "post"},
    {"family": "llama", "positions": "learned", "num_layers": 1, "num_encoder_layers": 3},
)
"""Families, positions and norm places, each at least once."""


def settings(sharing: str = "joint", batch_tokens: int = 64, **model: Any) -> Settings:
    """Return settings of a tiny experiment; keyword arguments go to the model section."""
    return Settings.model_validate(
        {
            "task": "translation",
            "data": {
                "corpus": "kjv-web",
                "tokenizer": {"kind": "word", "sharing": sharing},
                "context_length": T,
            },
            "model": {"d_model": D, "num_layers": 2, "num_heads": 2} | model,
            "training": {
                "budget": {"steps": 12},
                "batch_tokens": batch_tokens,
                "optimizer": {"learning_rate": 1e-2},
                "precision": "fp32",
            },
        }
    )


def tiny_model(seed: int = 0, source_vocab_size: int = V, **model: Any) -> TranslationModel:
    """Return a tiny initialised model."""
    return build_translation_model(settings(**model).model, source_vocab_size, V, T, seed)


class Batch(NamedTuple):
    """Padded pairs, in the order of the model's arguments."""

    source_BS: Tensor
    source_lengths_B: Tensor
    target_in_BT: Tensor
    target_out_BT: Tensor


def batch_of(sources: list[list[int]], targets: list[list[int]]) -> Batch:
    """Pad pairs of sentences; each target begins with `<eos>` (0) and ends with it."""
    longest_source, longest_target = max(map(len, sources)), 1 + max(map(len, targets))
    padded = [one + [0] * (longest_source - len(one)) for one in sources]
    fill = [longest_target - 1 - len(one) for one in targets]
    return Batch(
        torch.tensor(padded),
        torch.tensor([len(one) for one in sources]),
        torch.tensor([[0, *one, *[0] * rest] for one, rest in zip(targets, fill, strict=True)]),
        torch.tensor(
            [[*one, 0] + [IGNORED] * rest for one, rest in zip(targets, fill, strict=True)]
        ),
    )


SOURCES = [[5, 9, 40, 3, 11, 22, 1, 0], [7, 0], [8, 8, 30, 2, 0], [0]]
TARGETS = [[4, 6], [12, 13, 14, 15, 16, 17, 18], [], [33]]
BATCH = batch_of(SOURCES, TARGETS)
