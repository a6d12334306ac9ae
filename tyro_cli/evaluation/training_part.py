"""A fixed part of the training text, of the validation split's size.

The generalisation gap compares the loss on valid with the loss, in evaluation mode, on this part.
It is a sample of whole documents, the same in every arm and seed.
"""

from dataclasses import replace

import numpy as np

from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.data.prepared import PreparedData, TokenSplit, keep_fraction
from tyro_cli.data.prepared_pairs import PreparedPairs


def training_part(data: PreparedData) -> TokenSplit:
    """Return training documents of as many tokens as valid has (the last one cut), in order."""
    train, wanted = data.splits["train"], data.splits["valid"].num_tokens
    starts = np.asarray(train.document_starts)
    lengths = np.diff(starts, append=len(train.tokens))
    kept = keep_fraction(lengths, min(1.0, wanted / train.num_tokens))
    pieces = [train.tokens[starts[i] : starts[i] + lengths[i]] for i in kept]
    tokens = np.concatenate([train.tokens[:1], *pieces])[: wanted + 1]
    return TokenSplit(
        tokens=tokens,
        document_starts=1 + np.cumsum(lengths[kept]) - lengths[kept],
        document_words=train.document_words[kept],
        document_bytes=train.document_bytes[kept],
        text_sha256="",
        num_tokens=len(tokens) - 1,
        num_words=0,
        num_bytes=0,
        num_unknown=0,
    )


def part_of_pairs(data: PreparedPairs) -> PairSplit:
    """Return training pairs of as many target tokens as valid has, to within one, in order."""
    train, wanted = data.splits["train"], data.splits["valid"].num_tokens
    kept = keep_fraction(train.target_lengths, min(1.0, wanted / train.num_tokens))
    return replace(
        train,
        source=train.source[_tokens_of(train.source_starts, kept)],
        target=train.target[_tokens_of(train.target_starts, kept)],
        source_starts=np.concatenate([[0], np.cumsum(train.source_lengths[kept])]),
        target_starts=np.concatenate([[0], np.cumsum(train.target_lengths[kept])]),
        target_words=train.target_words[kept],
        target_bytes=train.target_bytes[kept],
        text_sha256="",
        num_tokens=int(train.target_lengths[kept].sum()),
        num_words=0,
        num_bytes=0,
        num_unknown=0,
    )


def _tokens_of(starts: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the places of all tokens of some sentences."""
    return np.concatenate([np.arange(starts[pair], starts[pair + 1]) for pair in kept])
