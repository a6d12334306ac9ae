"""What is shared between the input embeddings and the output softmax.

The one place that knows it. A tied model owns no head: `softmax_matrix` returns the matrix that
the softmax uses, which is the embedding's own parameter. With three-way tying an encoder owns no
embedding either: `source_matrix` returns the one it reads with. No alias stands in the state dict,
so the tie survives `.to`, deepcopy, load and compile by construction; `verify_tie` proves it by
storage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import nn

from tyro_cli.errors import BrokenArm

if TYPE_CHECKING:
    from tyro_cli.models.language_model import LanguageModel
    from tyro_cli.models.translation_model import TranslationModel


class VocabularyMatrix(nn.Module):
    """A matrix `[V, D]` (float32) with one row a token: an input embedding or a head."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))


def make_head(tying: str, vocab_size: int, d_model: int) -> VocabularyMatrix | None:
    """Return the head's own matrix, or None where the embedding serves as head."""
    return VocabularyMatrix(vocab_size, d_model) if tying == "none" else None


def make_source_embedding(tying: str, vocab_size: int, d_model: int) -> VocabularyMatrix | None:
    """Return the encoder's own embedding, or None where the decoder's serves it too."""
    return None if tying == "three-way" else VocabularyMatrix(vocab_size, d_model)


def softmax_matrix(model: LanguageModel | TranslationModel) -> nn.Parameter:
    """Return the matrix `[V, D]` whose rows the softmax compares the hidden state with."""
    return model.embedding.weight if model.head is None else model.head.weight


def source_matrix(model: TranslationModel) -> nn.Parameter:
    """Return the matrix `[V, D]` whose rows the encoder reads source tokens as."""
    own = model.source_embedding
    return model.embedding.weight if own is None else own.weight


def vocabulary_matrices(model: LanguageModel | TranslationModel) -> dict[str, nn.Parameter]:
    """Return each distinct matrix `[V, D]` by what it serves as.

    `tied` is the one that is input embedding (of the decoder) and softmax matrix at once, and with
    three-way tying the encoder's too; untied they are `input` and `output`. `source` is an
    encoder's own. Read from the tensors and not from a flag.
    """
    softmax = softmax_matrix(model)
    if _is_embedding(model, softmax):
        found = {"tied": softmax}
    else:
        found = {"input": model.embedding.weight, "output": softmax}
    if _has_encoder(model) and not _is_embedding(model, source_matrix(model)):
        found["source"] = source_matrix(model)
    return found


def _has_encoder(model: LanguageModel | TranslationModel) -> TypeGuard[TranslationModel]:
    return hasattr(model, "encoder")


def unique_parameters(model: nn.Module) -> int:
    """Count the parameters in distinct storages: a shared matrix counts once."""
    storages = {
        parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes()
        // parameter.element_size()
        for parameter in model.parameters()
    }
    return sum(storages.values())


def tie_metadata(model: LanguageModel | TranslationModel) -> dict[str, Any]:
    """Return what a checkpoint keeps about the tie, read from the tensors and not from a flag.

    `source_matrix` stands in it for a model with an encoder alone.
    """
    shared = _is_embedding(model, softmax_matrix(model))
    record: dict[str, Any] = {
        "tying": "in-out" if shared else "none",
        "softmax_matrix": "embedding.weight" if shared else "head.weight",
        "unique_parameters": unique_parameters(model),
    }
    if _has_encoder(model):
        source_shared = _is_embedding(model, source_matrix(model))
        if shared and source_shared:
            record["tying"] = "three-way"
        record["source_matrix"] = "embedding.weight" if source_shared else "source_embedding.weight"
    return record


def verify_tie(model: LanguageModel | TranslationModel) -> None:
    """Check by storage identity that the model shares exactly what its configuration says.

    Raises:
        BrokenArm: If a tied model has a second matrix or an untied model has only one.
    """
    tying = model.config.tying
    shared = _is_embedding(model, softmax_matrix(model))
    if tying == "none" and (shared or not _owns(model, "head.")):
        raise BrokenArm("the arm is untied, yet embedding and softmax use one matrix")
    if tying != "none" and (not shared or _owns(model, "head.")):
        raise BrokenArm("the arm is tied, yet embedding and softmax use two matrices")
    if not _has_encoder(model):
        return
    shared = _is_embedding(model, source_matrix(model))
    if tying != "three-way" and (shared or not _owns(model, "source_embedding.")):
        raise BrokenArm(
            "the arm is not tied three-way, yet encoder and decoder read with one matrix"
        )
    if tying == "three-way" and (not shared or _owns(model, "source_embedding.")):
        raise BrokenArm("the arm is tied three-way, yet encoder and decoder read with two matrices")


def _is_embedding(model: LanguageModel | TranslationModel, matrix: nn.Parameter) -> bool:
    """Say whether a matrix lies where the (decoder's) input embedding lies."""
    own = model.embedding.weight.untyped_storage()
    return matrix.untyped_storage().data_ptr() == own.data_ptr()


def _owns(model: nn.Module, prefix: str) -> bool:
    return any(name.startswith(prefix) for name, _ in model.named_parameters())
