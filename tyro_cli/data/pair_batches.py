"""Training batches of translation: pairs of like length, within a budget of tokens.

Invariant: a batch depends on (split, batch_tokens, seed, step) and on nothing else. In each epoch
every pair is read exactly once, and every epoch has the same number of batches: pairs are sorted by
target and source length, those of equal lengths in an order of the epoch's own, cut wherever one
more would exceed the budget, and the batches shuffled. The very first batch is the largest one, so
that memory that does not suffice shows at once. What a model does with a batch is left to
`training`.

Shapes: B pairs in a batch, S longest source, T longest target, both with `<eos>`.
"""

from dataclasses import dataclass

import numpy as np

from tyro_cli.data.batches import philox_key
from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.data.tokenizers import EOS_ID

IGNORED = -1  # a target that is scored nowhere; `models.head_loss` has the same number

# Sets these draws apart from any other use of Philox with the same seed.
_STREAM = 0x6275636B6574  # "bucket"


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Some pairs, padded to the longest of them.

    Attributes:
        pairs: int64 `[B]`, which pairs of the split these are.
        source: int64 `[B, S]`, source tokens with their `<eos>`; padded with 0.
        source_lengths: int64 `[B]`, tokens of each source.
        target_in: int64 `[B, T]`, `<eos>` and the target tokens before the last; padded with 0.
        target_out: int64 `[B, T]`, target tokens with their `<eos>`; padded with `IGNORED`.
    """

    pairs: np.ndarray
    source: np.ndarray
    source_lengths: np.ndarray
    target_in: np.ndarray
    target_out: np.ndarray

    @property
    def num_targets(self) -> int:
        """Target tokens to predict, padding not counted."""
        return int(np.count_nonzero(self.target_out != IGNORED))

    def split(self, most_tokens: int) -> list["PairBatch"]:
        """Cut the batch into parts of at most `most_tokens`, padding included, or one pair each."""
        rows = max(1, most_tokens // (self.source.shape[1] + self.target_in.shape[1]))
        return [
            PairBatch(*(array[begin : begin + rows] for array in (self.pairs, *self.arrays())))
            for begin in range(0, len(self.pairs), rows)
        ]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return what a model reads, as `batches.chain_sha256` takes it."""
        return self.source, self.source_lengths, self.target_in, self.target_out


class PairBatches:
    """Batches over the pairs of one split; one epoch of them reads each pair once.

    Args:
        split: The pairs; its arrays may be memory maps.
        batch_tokens: Most tokens of a batch, padding included: B * (S + T). A pair that is longer
            by itself is a batch of its own.
        seed: The cell's seed; two arms of one seed read the same batches.
    """

    def __init__(self, split: PairSplit, batch_tokens: int, seed: int) -> None:
        assert batch_tokens >= 2 and seed >= 0
        self.split = split
        self.batch_tokens = batch_tokens
        self.seed = seed
        self._source_lengths = split.source_lengths
        self._target_lengths = split.target_lengths
        # Lengths alone decide the cuts, so those of one epoch are those of all.
        order = np.lexsort((self._source_lengths, self._target_lengths))
        source_lengths, target_lengths = self._source_lengths[order], self._target_lengths[order]
        self._starts = cut_batches(source_lengths, target_lengths, batch_tokens)
        sizes = np.diff(self._starts)
        widths = np.maximum.reduceat(source_lengths, self._starts[:-1])
        heights = np.maximum.reduceat(target_lengths, self._starts[:-1])
        # Of batches of one size, the one with more targets takes more memory: it meets the softmax.
        self._largest = int(np.lexsort((sizes * heights, sizes * (widths + heights)))[-1])
        self._tokens = np.add.reduceat(source_lengths + target_lengths, self._starts[:-1])
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in each epoch."""
        return len(self._starts) - 1

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of both sides, padding not counted."""
        return int(self._tokens.sum())

    def tokens_until(self, step: int) -> int:
        """Return the tokens of both sides that the first `step` batches hold, without padding."""
        epoch, place = divmod(step, self.batches_per_epoch)
        _, batches = self._draw(epoch)
        return epoch * self.tokens_per_epoch + int(self._tokens[batches[:place]].sum())

    def batch(self, step: int) -> PairBatch:
        """Return the batch of a step, counted from 0."""
        assert step >= 0
        epoch, place = divmod(step, self.batches_per_epoch)
        pairs, batches = self._draw(epoch)
        number = batches[place]
        return batch_of_pairs(self.split, pairs[self._starts[number] : self._starts[number + 1]])

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the order of an epoch's pairs before they are cut, and that of its batches."""
        if epoch not in self._drawn:
            key = philox_key(_STREAM, self.seed, epoch)
            generator = np.random.Generator(np.random.Philox(key=key))
            ties = generator.random(self.split.num_pairs)
            pairs = np.lexsort((ties, self._source_lengths, self._target_lengths))
            batches = generator.permutation(self.batches_per_epoch)
            if epoch == 0:
                batches = np.concatenate([[self._largest], batches[batches != self._largest]])
            self._drawn = {epoch: (pairs, batches)}
        return self._drawn[epoch]


def batch_of_pairs(split: PairSplit, pairs: np.ndarray) -> PairBatch:
    """Return the batch of some pairs of a split, in the order given.

    Args:
        split: The pairs.
        pairs: int64 `[B]`, indices; at least one.
    """
    source, is_source = _padded(split.source, split.source_starts, pairs)
    target, is_target = _padded(split.target, split.target_starts, pairs)
    # What follows the `<eos>` of a shorter target is padding, and `<eos>` itself has its id.
    target_in = np.full_like(target, EOS_ID)
    target_in[:, 1:] = target[:, :-1]
    return PairBatch(
        pairs=pairs,
        source=source,
        source_lengths=is_source.sum(axis=1),
        target_in=target_in,
        target_out=np.where(is_target, target, IGNORED),
    )


def _padded(
    tokens: np.ndarray, starts: np.ndarray, sentences: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return sentences as int64 `[B, longest]`, padded with 0, and which of it is no padding."""
    starts = np.asarray(starts)  # a plain array, also of a memory map
    lengths = starts[sentences + 1] - starts[sentences]
    columns = np.arange(lengths.max())
    is_token = columns < lengths[:, None]
    positions = np.where(is_token, starts[sentences][:, None] + columns, 0)
    return np.where(is_token, tokens[positions], 0).astype(np.int64), is_token


def cut_batches(
    source_lengths: np.ndarray, target_lengths: np.ndarray, batch_tokens: int
) -> np.ndarray:
    """Return where batches of sorted pairs start, and the end, each as large as the budget allows.

    Args:
        source_lengths: int64 `[pairs]`.
        target_lengths: int64 `[pairs]`.
        batch_tokens: Most tokens of a batch.
    """
    starts = [0]
    width = height = 0
    lengths = zip(source_lengths.tolist(), target_lengths.tolist(), strict=True)
    for number, (source, target) in enumerate(lengths):
        width, height = max(width, source), max(height, target)
        if number > starts[-1] and (number + 1 - starts[-1]) * (width + height) > batch_tokens:
            starts.append(number)
            width, height = source, target
    return np.array([*starts, len(source_lengths)], dtype=np.int64)
