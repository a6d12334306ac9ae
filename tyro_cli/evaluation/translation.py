"""A translation model on pairs of a split: the nats of given translations, and its own as text.

Every target token is scored exactly once, and as in `perplexity` everything is derived from their
nats: sum, then divide once. A sentence is scored and translated by itself, whatever it is batched
with. How translations are searched for is left to `decoding`, how good they are to `quality`.

Shapes: L target tokens of a split, in the order of the corpus.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tyro_cli.config.schema import Settings
from tyro_cli.data.pair_batches import PairBatch, batch_of_pairs, cut_batches
from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.data.scripts import restore
from tyro_cli.data.tokenizers import decode_tokens
from tyro_cli.evaluation.decoding import translate
from tyro_cli.ledger.memory import EVALUATION_TOKENS
from tyro_cli.models.translation_model import TranslationModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TOKENS = 2 * EVALUATION_TOKENS  # of both sides, padding included


def arrays_of(batch: PairBatch, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the model takes: source, its lengths, target read and target to predict."""
    source, lengths, target_in, target_out = (
        torch.from_numpy(array).to(device)
        for array in (batch.source, batch.source_lengths, batch.target_in, batch.target_out)
    )
    return source, lengths, target_in, target_out


@torch.no_grad()
def pair_nats(
    model: TranslationModel,
    split: PairSplit,
    *,
    dtype: torch.dtype = torch.float32,
    poll: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Return the nats `[L]` (float32) of every target token, unsmoothed.

    Args:
        model: The model; its device decides where the scoring runs.
        split: The pairs to score.
        dtype: float32 for the final evaluation, the training precision during training.
        poll: Called before every batch; raises to stop.
    """
    nats = np.empty(len(split.target), dtype=np.float32)
    device = model.embedding.weight.device
    sources, targets = split.source_lengths, split.target_lengths
    order = np.lexsort((sources, targets))
    for begin, end in pairwise(cut_batches(sources[order], targets[order], BATCH_TOKENS)):
        poll()
        pairs = order[begin:end]
        batch = batch_of_pairs(split, pairs)
        values_BT = model.nats(*arrays_of(batch, device), dtype).cpu().numpy()
        for row, pair in zip(values_BT, pairs, strict=True):
            start, end = split.target_starts[pair], split.target_starts[pair + 1]
            nats[start:end] = row[: end - start]
    return nats


def sentence_scores(nats: np.ndarray, split: PairSplit) -> dict[str, np.ndarray]:
    """Return sums by sentence: nats (float64), tokens, words and bytes (int64), each `[pairs]`."""
    cumulative = np.concatenate(([0.0], np.cumsum(nats, dtype=np.float64)))
    return {
        "nats": np.diff(cumulative[np.asarray(split.target_starts)]),
        "tokens": np.asarray(split.target_lengths, dtype=np.int64),
        "words": np.asarray(split.target_words, dtype=np.int64),
        "bytes": np.asarray(split.target_bytes, dtype=np.int64),
    }


@dataclass(frozen=True)
class Search:
    """How translations are searched for.

    Attributes:
        beam_size: Hypotheses kept; 1 is greedy.
        length_penalty: Finished hypotheses are ranked by log probability / length^this.
    """

    beam_size: int
    length_penalty: float


def search_of(settings: Settings) -> Search:
    """Return how an arm's translations are searched for, with its defaults."""
    evaluation = settings.evaluation
    return Search(evaluation.resolved_beam_size, evaluation.resolved_length_penalty)


def translations_of(
    model: TranslationModel,
    sources: Sequence[np.ndarray],
    tokenizer: "Tokenizer",
    search: Search,
    *,
    has_own_script: bool,
    poll: Callable[[], None] = lambda: None,
) -> list[str]:
    """Return the text of the model's translations, in the script of the original target.

    Args:
        model: The model; its device decides where the search runs.
        sources: Tokens of each source, `<eos>` last.
        tokenizer: Of the target.
        search: How to search.
        has_own_script: Whether the model was trained on targets of which a part is written in the
            disjoint script; if not, its letters are a corpus's own and stay.
        poll: Called between steps; raises to stop.
    """
    found = translate(
        model,
        sources,
        beam_size=search.beam_size,
        length_penalty=search.length_penalty,
        poll=poll,
    )
    texts = [decode_tokens(tokenizer, one.tokens) for one in found]
    if has_own_script:
        texts = [restore(text) for text in texts]
    # One line each: what a byte vocabulary can spell must not break the lines of a file.
    return [" ".join(text.split()) for text in texts]


def sources_of(split: PairSplit) -> list[np.ndarray]:
    """Return the source tokens of every pair of a split, as int64."""
    return [
        np.asarray(split.source[begin:end], dtype=np.int64)
        for begin, end in pairwise(split.source_starts)
    ]
