"""Perplexity: a deterministic sweep over a whole split, every token scored exactly once.

A sweep returns the nats of every token; everything else is derived from sums of them: divide once,
exponentiate once. Nothing here draws a random number or touches training state.

Shapes: L scored tokens of a split, B windows of a batch, T context_length, S scored positions.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.data.prepared import TokenSplit
from tyro_cli.ledger.memory import EVALUATION_TOKENS
from tyro_cli.models.language_model import LanguageModel


@dataclass(frozen=True)
class SplitScores:
    """Sums over a split, and the rates that follow from them.

    Attributes:
        nats: Sum of the negative log probabilities of all scored tokens.
        tokens: Scored tokens.
        words: Words of the original text.
        bytes: UTF-8 bytes of the original text.
        unknown_words: Words of the text that a word vocabulary maps to `<unk>`. Where there are
            any, a rate per word or byte means nothing, because part of the text was not scored.
    """

    nats: float
    tokens: int
    words: int
    bytes: int
    unknown_words: int = 0

    def as_record(self) -> dict[str, Any]:
        """Return the sums and the metrics; null where a metric does not apply.

        Perplexities are exponentiated once, and null where no float holds them.
        """
        per_token = self.nats / self.tokens
        covered = self.unknown_words == 0
        per_word = self.nats / self.words if covered and self.words else None
        per_byte = self.nats / self.bytes if covered and self.bytes else None
        return asdict(self) | {
            "nats_per_token": per_token,
            "token_perplexity": _exp(per_token),
            "nats_per_word": per_word,
            "word_perplexity": None if per_word is None else _exp(per_word),
            "bits_per_byte": None if per_byte is None else per_byte / math.log(2),
        }


def _exp(nats: float) -> float | None:
    """Return the perplexity, or None where it is too large for a float."""
    return math.exp(nats) if nats < 700 else None


@torch.no_grad()
def sweep_nats(
    model: LanguageModel,
    tokens: np.ndarray,
    *,
    stride: int,
    dtype: torch.dtype = torch.float32,
    poll: Callable[[], None] = lambda: None,
    part: tuple[int, int] = (0, 1),
) -> np.ndarray:
    """Return the nats `[L]` (float32) of every token after the first.

    The first window scores all its targets; each later one starts `stride` tokens further on and
    scores its last `stride` targets, so each of these sees at least `context_length - stride`
    tokens of context. A remainder is scored by one last window that ends with the text.

    Args:
        model: The model; its device decides where the sweep runs.
        tokens: The stream `[L + 1]`, whose first token (`<eos>`) is context only.
        stride: Positions scored by a window, 1 to the model's context_length.
        dtype: float32 for the final evaluation, the training precision during training.
        poll: Called before every batch; raises to stop.
        part: Which of how many equal parts of the batches to score, from 0; tokens of the others
            get 0. The sum over all parts is, bit for bit, what one sweep over all gives.
    """
    length, context = len(tokens) - 1, model.context_length
    nats = np.zeros(length, dtype=np.float32)
    mine, num_parts = part
    turns = itertools.cycle(range(num_parts))
    device = model.embedding.weight.device

    def score(starts: np.ndarray, window: int, scored: int) -> None:
        per_batch = max(1, EVALUATION_TOKENS // window)
        for first in range(0, len(starts), per_batch):
            if next(turns) != mine:
                continue
            poll()
            positions = starts[first : first + per_batch, None] + np.arange(window + 1)
            batch = torch.from_numpy(tokens[positions].astype(np.int64)).to(device)
            values = model.nats(batch[:, :-1], batch[:, 1:][:, window - scored :], dtype)
            nats[positions[:, window - scored : window]] = values.cpu().numpy()

    window = min(context, length)
    score(np.zeros(1, dtype=np.int64), window, window)
    full = (length - window) // stride
    score(np.arange(1, full + 1, dtype=np.int64) * stride, window, stride)
    remainder = (length - window) % stride
    if remainder:
        score(np.array([length - window], dtype=np.int64), window, remainder)
    return nats


def split_scores(nats: np.ndarray, split: TokenSplit | PairSplit) -> SplitScores:
    """Sum the nats of a split's tokens in float64."""
    return SplitScores(
        nats=float(nats.sum(dtype=np.float64)),
        tokens=len(nats),
        words=split.num_words,
        bytes=split.num_bytes,
        unknown_words=split.num_unknown,
    )


def document_scores(nats: np.ndarray, split: TokenSplit) -> dict[str, np.ndarray]:
    """Return per-document sums: nats (float64), tokens, words and bytes (int64), each `[documents]`.

    `document_starts` index the stream with its leading `<eos>`, so a document's first token is
    scored at its start minus one.
    """  # noqa: E501
    starts = np.asarray(split.document_starts, dtype=np.int64) - 1
    ends = np.append(starts[1:], len(nats))
    cumulative = np.concatenate(([0.0], np.cumsum(nats, dtype=np.float64)))
    return {
        "nats": cumulative[ends] - cumulative[starts],
        "tokens": ends - starts,
        "words": np.asarray(split.document_words, dtype=np.int64),
        "bytes": np.asarray(split.document_bytes, dtype=np.int64),
    }
