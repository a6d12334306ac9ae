"""Which rows of a vocabulary matrix a probe looks at, and which tokens are frequent.

Invariant: a choice of rows depends on the counts and on a seed alone, so every matrix of a run is
probed on the same rows. Rows of tokens that training hardly saw lie where they were drawn; they
would dilute every measure, so a probe leaves them out and says how many are left.

Shapes: V vocabulary, R counted rows, S sampled rows.
"""

from dataclasses import dataclass

import numpy as np

MIN_COUNT = 10
"""Occurrences in train from which on a token's row counts."""

SAMPLE_ROWS = 1024
"""Most rows for which neighbours and similarities are computed: S x R numbers, never R x R."""

NUM_BANDS = 5
"""Bands of frequency of the tokens that train holds, each with about as much of its text."""

_SLICE_TOKENS = 2**22


@dataclass(frozen=True, eq=False)
class CountedRows:
    """The rows that count, and which of them are sampled.

    Attributes:
        ids: int64 `[R]`, ascending: the tokens that occur at least `MIN_COUNT` times in train.
        counts: int64 `[R]`, how often each occurs.
        sample: int64 `[S]`, ascending places in `ids`: all of them, or `SAMPLE_ROWS` drawn once.
    """

    ids: np.ndarray
    counts: np.ndarray
    sample: np.ndarray


def count_tokens(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return how often each token occurs, int64 `[V]`; a memory map is read slice by slice."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), _SLICE_TOKENS):
        counts += np.bincount(tokens[start : start + _SLICE_TOKENS], minlength=vocab_size)
    return counts


def counted_rows(counts_V: np.ndarray, seed: int) -> CountedRows:
    """Return the rows that count, and a sample of them drawn without replacement."""
    ids = np.flatnonzero(counts_V >= MIN_COUNT)
    sample = np.arange(len(ids))
    if len(ids) > SAMPLE_ROWS:
        sample = np.sort(keyed_generator(seed).permutation(len(ids))[:SAMPLE_ROWS])
    return CountedRows(ids, counts_V[ids], sample)


def shuffle_rows(rows: CountedRows, seed: int) -> np.ndarray:
    """Return a random order of the counted rows, int64 `[R]`, that keeps the sample a sample.

    Sampled rows change places with sampled rows, the others with each other, so neighbours and
    similarities of a shuffled matrix follow from those of the matrix itself.
    """
    generator = keyed_generator(seed)
    order = np.arange(len(rows.ids))
    others = np.setdiff1d(order, rows.sample)
    order[rows.sample] = generator.permutation(rows.sample)
    order[others] = generator.permutation(others)
    return order


def frequency_bands(counts_V: np.ndarray) -> np.ndarray:
    """Return the band of every token, int64 `[V]`: 0 the most frequent, `NUM_BANDS` never seen.

    Tokens stand by falling count, equal counts by id. A token is in band floor(NUM_BANDS * m),
    where m is the share of the training text that the tokens before it make up; so a band holds
    about a fifth of the text, and one token that makes up more is a band by itself.
    """
    order = np.argsort(-counts_V, kind="stable")
    before = np.concatenate(([0], np.cumsum(counts_V[order])[:-1]))
    total = max(1, int(counts_V.sum()))
    bands = np.empty(len(counts_V), dtype=np.int64)
    bands[order] = np.minimum(NUM_BANDS * before // total, NUM_BANDS - 1)
    bands[counts_V == 0] = NUM_BANDS
    return bands


def keyed_generator(seed: int) -> np.random.Generator:
    """Return the generator of that seed, which is the same on every machine."""
    return np.random.Generator(np.random.Philox(key=seed))
