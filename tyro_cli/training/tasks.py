"""What the two tasks do differently in training: model, batches, losses and scores.

The loop, the worker and everything around them know a task by these functions alone. A task holds
no state: what a step reads is a pure function of (seed, step), and scoring draws nothing.

Shapes: B windows or pairs of a batch, T context_length.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tyro_cli.config.schema import Settings
from tyro_cli.data.batches import TrainingBatches, chain_sha256
from tyro_cli.data.pair_batches import PairBatch, PairBatches
from tyro_cli.data.prepared import PreparedData
from tyro_cli.data.prepared_pairs import PreparedPairs
from tyro_cli.data.preparing import Prepared
from tyro_cli.data.tokenizers import load_tokenizer
from tyro_cli.evaluation.perplexity import SplitScores, document_scores, split_scores, sweep_nats
from tyro_cli.evaluation.training_part import part_of_pairs, training_part
from tyro_cli.evaluation.translation import (
    arrays_of,
    pair_nats,
    search_of,
    sentence_scores,
    sources_of,
    translations_of,
)
from tyro_cli.models.language_model import LanguageModel, build_model
from tyro_cli.models.layers import Dropout
from tyro_cli.models.translation_model import TranslationModel, build_translation_model
from tyro_cli.training.processes import Processes

Model = LanguageModel | TranslationModel
Poll = Callable[[], None]


@dataclass(frozen=True)
class MicroBatch:
    """A part of a batch that goes through the model at once.

    Attributes:
        share: Its targets over those of the whole batch, 0 to 1.
        loss: From the dtype of products and the dropout of this pass to what to minimise, which
            has a gradient, and the mean nats per target token: two float32 scalars.
    """

    share: float
    loss: Callable[[torch.dtype, Dropout | None], tuple[Tensor, Tensor]]


@dataclass
class FinalScores:
    """The scores of one checkpoint, in float32.

    Attributes:
        splits: Sums of each split asked for, and of `train_part`, a part of train of valid's size.
        documents: Sums by document, or sentence, of each split: what `documents.npz` keeps.
    """

    splits: dict[str, SplitScores] = field(default_factory=dict)
    documents: dict[str, np.ndarray] = field(default_factory=dict)


class Task(Protocol):
    """What training and evaluation ask of a task."""

    def build_model(self) -> Model:
        """Return the model with the initial values of the cell's seed."""

    def batch(self, step: int) -> Any:
        """Return the batch of a step, counted from 0."""

    def chain_sha256(self, previous_hex: str, batch: Any) -> str:
        """Return the running hash of the consumed batches after one more."""

    def tokens_until(self, step: int) -> int:
        """Return the tokens that the first `step` batches hold, padding not counted."""

    def micro_batches(self, model: Any, batch: Any, processes: Processes) -> Iterator[MicroBatch]:
        """Yield our part of a batch, as much at a time as goes through the model at once."""

    def initial_nats(self, model: Any, dtype: torch.dtype) -> float:
        """Return the mean nats per target token of the first micro-batch."""

    def valid_nats(self, model: Any, dtype: torch.dtype, poll: Poll, processes: Processes) -> float:
        """Return the mean nats per token of valid, as training evaluates it."""

    def final_scores(
        self, model: Any, poll: Poll, processes: Processes, splits: Sequence[str]
    ) -> FinalScores:
        """Score splits as the tables report them, and the part of train."""


def task_of(settings: Settings, data: Prepared, seed: int) -> Task:
    """Return the task of a cell.

    Raises:
        DataError: The training split holds less than one batch.
    """
    if isinstance(data, PreparedPairs):
        return Translation(settings, data, seed)
    return LanguageModeling(settings, data, seed)


class LanguageModeling:
    """A decoder that continues a text."""

    def __init__(self, settings: Settings, data: PreparedData, seed: int) -> None:
        self.settings, self.data, self.seed = settings, data, seed
        training, context_length = settings.training, settings.data.context_length
        self.batches = TrainingBatches(
            data.splits["train"].tokens,
            context_length,
            training.batch_tokens // context_length,
            seed,
        )
        micro_tokens = training.resolved_micro_batch_tokens
        self.micro_windows = micro_tokens // context_length

    def build_model(self) -> LanguageModel:
        """Return the model with the initial values of the cell's seed."""
        context_length = self.settings.data.context_length
        return build_model(self.settings.model, self.data.vocab_size, context_length, self.seed)

    def batch(self, step: int) -> np.ndarray:
        """Return the int64 batch `[B, T + 1]` of a step."""
        return self.batches.batch(step)

    def chain_sha256(self, previous_hex: str, batch: np.ndarray) -> str:
        """Return the running hash of the consumed batches after one more."""
        return chain_sha256(previous_hex, batch)

    def tokens_until(self, step: int) -> int:
        """Return the tokens that the first `step` batches hold."""
        return step * self.settings.training.batch_tokens

    def micro_batches(
        self, model: LanguageModel, batch: np.ndarray, processes: Processes
    ) -> Iterator[MicroBatch]:
        """Yield our windows of a batch, as many at a time as go through the model at once."""
        tokens = torch.from_numpy(processes.share_of(batch)).to(model.embedding.weight.device)
        for micro in tokens.split(self.micro_windows):

            def loss(
                dtype: torch.dtype, dropout: Dropout | None, micro: Tensor = micro
            ) -> tuple[Tensor, Tensor]:
                nats = model.loss(micro[:, :-1], micro[:, 1:], dtype, dropout)
                return nats, nats.detach()

            yield MicroBatch(len(micro) / len(batch), loss)

    def initial_nats(self, model: LanguageModel, dtype: torch.dtype) -> float:
        """Return the mean nats per token of the first micro-batch."""
        batch = torch.from_numpy(self.batch(0)[: self.micro_windows])
        batch = batch.to(model.embedding.weight.device)
        return float(model.nats(batch[:, :-1], batch[:, 1:], dtype).mean())

    def valid_nats(
        self, model: LanguageModel, dtype: torch.dtype, poll: Poll, processes: Processes
    ) -> float:
        """Return the mean nats per token of valid in disjoint windows."""
        nats = sweep_nats(
            model,
            self.data.splits["valid"].tokens,
            stride=self.settings.data.context_length,
            dtype=dtype,
            poll=poll,
            part=(processes.rank, processes.count),
        )
        return float(processes.add(nats).mean(dtype=np.float64))

    def final_scores(
        self, model: LanguageModel, poll: Poll, processes: Processes, splits: Sequence[str]
    ) -> FinalScores:
        """Sweep splits and the part of train in float32; several processes share the sweeps."""
        stride = self.settings.resolved_stride
        part = (processes.rank, processes.count)
        final = FinalScores()
        scored = {name: self.data.splits[name] for name in splits}
        for name, split in {**scored, "train_part": training_part(self.data)}.items():
            nats = sweep_nats(model, split.tokens, stride=stride, poll=poll, part=part)
            nats = processes.add(nats)
            final.splits[name] = split_scores(nats, split)
            if name != "train_part":
                for key, values in document_scores(nats, split).items():
                    final.documents[f"{name}_{key}"] = values
        return final


class Translation:
    """An encoder that reads a sentence, and a decoder that writes its translation."""

    def __init__(self, settings: Settings, data: PreparedPairs, seed: int) -> None:
        self.settings, self.data, self.seed = settings, data, seed
        training = settings.training
        self.batches = PairBatches(data.splits["train"], training.batch_tokens, seed)
        self.micro_tokens = training.resolved_micro_batch_tokens

    def build_model(self) -> TranslationModel:
        """Return the model with the initial values of the cell's seed."""
        return build_translation_model(
            self.settings.model,
            self.data.source_vocab_size,
            self.data.vocab_size,
            self.settings.data.context_length,
            self.seed,
        )

    def batch(self, step: int) -> PairBatch:
        """Return the pairs of a step."""
        return self.batches.batch(step)

    def chain_sha256(self, previous_hex: str, batch: PairBatch) -> str:
        """Return the running hash of the consumed batches after one more."""
        return chain_sha256(previous_hex, *batch.arrays())

    def tokens_until(self, step: int) -> int:
        """Return the tokens of both sides that the first `step` batches hold."""
        return self.batches.tokens_until(step)

    def micro_batches(
        self, model: TranslationModel, batch: PairBatch, processes: Processes
    ) -> Iterator[MicroBatch]:
        """Yield the pairs of a batch, as many at a time as go through the model at once."""
        assert processes.count == 1, "refused before training"
        for micro in batch.split(self.micro_tokens):
            arrays = arrays_of(micro, model.embedding.weight.device)

            def loss(
                dtype: torch.dtype,
                dropout: Dropout | None,
                arrays: tuple[Tensor, Tensor, Tensor, Tensor] = arrays,
            ) -> tuple[Tensor, Tensor]:
                smoothing = self.settings.training.label_smoothing or 0.0
                return model.loss(*arrays, dtype, dropout, smoothing)

            yield MicroBatch(micro.num_targets / batch.num_targets, loss)

    def initial_nats(self, model: TranslationModel, dtype: torch.dtype) -> float:
        """Return the mean nats per target token of the first micro-batch."""
        first = next(iter(self.batch(0).split(self.micro_tokens)))
        arrays = arrays_of(first, model.embedding.weight.device)
        return float(model.nats(*arrays, dtype).sum()) / first.num_targets

    def valid_nats(
        self, model: TranslationModel, dtype: torch.dtype, poll: Poll, processes: Processes
    ) -> float:
        """Return the mean nats per target token of valid."""
        nats = pair_nats(model, self.data.splits["valid"], dtype=dtype, poll=poll)
        return float(nats.mean(dtype=np.float64))

    def final_scores(
        self, model: TranslationModel, poll: Poll, processes: Processes, splits: Sequence[str]
    ) -> FinalScores:
        """Score every target token of splits and of the part of train in float32."""
        final = FinalScores()
        scored = {name: self.data.splits[name] for name in splits}
        for name, split in {**scored, "train_part": part_of_pairs(self.data)}.items():
            nats = pair_nats(model, split, poll=poll)
            final.splits[name] = split_scores(nats, split)
            if name != "train_part":
                for key, values in sentence_scores(nats, split).items():
                    final.documents[f"{name}_{key}"] = values
        return final

    def translations(self, model: TranslationModel, poll: Poll) -> dict[str, list[str]]:
        """Translate the sources of valid and test, in float32, as `evaluation` says how."""
        tokenizer = load_tokenizer(self.data.tokenizer_path)
        return {
            name: translations_of(
                model,
                sources_of(self.data.splits[name]),
                tokenizer,
                search_of(self.settings),
                has_own_script=self.settings.data.disjoint_fraction > 0,
                poll=poll,
            )
            for name in ("valid", "test")
        }
