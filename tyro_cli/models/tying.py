"""What is shared between the input embedding and the output softmax.

The one place that knows it. A tied model owns no head: `softmax_matrix` returns the matrix that
the softmax uses, which is the embedding's own parameter. No alias stands in the state dict, so the
tie survives `.to`, deepcopy, load and compile by construction; `verify_tie` proves it by storage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tyro_cli.errors import BrokenArm

if TYPE_CHECKING:
    from tyro_cli.models.language_model import LanguageModel


class VocabularyMatrix(nn.Module):
    """A matrix `[V, D]` (float32) with one row a token: an input embedding or a head."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))


def make_head(tying: str, vocab_size: int, d_model: int) -> VocabularyMatrix | None:
    """Return the head's own matrix, or None where the embedding serves as head."""
    return VocabularyMatrix(vocab_size, d_model) if tying == "none" else None


def softmax_matrix(model: LanguageModel) -> nn.Parameter:
    """Return the matrix `[V, D]` whose rows the softmax compares the hidden state with."""
    return model.embedding.weight if model.head is None else model.head.weight


def unique_parameters(model: nn.Module) -> int:
    """Count the parameters in distinct storages: a shared matrix counts once."""
    storages = {
        parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes()
        // parameter.element_size()
        for parameter in model.parameters()
    }
    return sum(storages.values())


def tie_metadata(model: LanguageModel) -> dict[str, Any]:
    """Return what a checkpoint keeps about the tie, read from the tensors and not from a flag."""
    shared = softmax_matrix(model).data_ptr() == model.embedding.weight.data_ptr()
    return {
        "tying": "in-out" if shared else "none",
        "softmax_matrix": "embedding.weight" if shared else "head.weight",
        "unique_parameters": unique_parameters(model),
    }


def verify_tie(model: LanguageModel) -> None:
    """Check by storage identity that the model shares exactly what its configuration says.

    Raises:
        BrokenArm: If a tied model has a second matrix or an untied model has only one.
    """
    tying = model.config.tying
    embedding, softmax = model.embedding.weight, softmax_matrix(model)
    shared = embedding.untyped_storage().data_ptr() == softmax.untyped_storage().data_ptr()
    names = [name for name, _ in model.named_parameters() if name.startswith("head.")]
    if tying == "none" and (shared or not names):
        raise BrokenArm("the arm is untied, yet embedding and softmax use one matrix")
    if tying != "none" and (not shared or names):
        raise BrokenArm("the arm is tied, yet embedding and softmax use two matrices")
