"""Training batches: which windows of the token stream a step reads, as a pure function.

Invariant: a batch depends on (tokens, context_length, batch_windows, seed, step) and on nothing
else, so any step can be drawn first, again, or in another process. In each epoch every window is
read exactly once, in an order and from an offset of that epoch's own. Windows may cross documents.
What a model does with a batch is left to `training`.

Shapes: B windows in a batch, T context_length.
"""

import hashlib
from typing import Any

import numpy as np

from tyro_cli.errors import DataError

# Sets these draws apart from any other use of Philox with the same seed.
_STREAM = 0x77696E646F77  # "window"


class TrainingBatches:
    """Batches of windows over one token stream.

    Args:
        tokens: The stream, one-dimensional, its leading `<eos>` included; may be a memory map.
        context_length: Tokens that the model sees at once.
        batch_windows: Windows in a batch, over all micro-batches and devices.
        seed: The cell's seed; two arms of one seed read the same batches.

    Raises:
        DataError: The stream holds fewer tokens than one batch.
    """

    def __init__(
        self, tokens: np.ndarray, context_length: int, batch_windows: int, seed: int
    ) -> None:
        assert context_length >= 1 and batch_windows >= 1 and seed >= 0
        check_one_batch(len(tokens), context_length, batch_windows)
        self.tokens = tokens
        self.context_length = context_length
        self.batch_windows = batch_windows
        self.seed = seed
        self.windows_per_epoch = count_windows(len(tokens), context_length)
        self._starts_of_epoch: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> np.ndarray:
        """Return the int64 batch `[B, T + 1]` of a step, counted from 0.

        Inputs are `[:, :-1]`, targets `[:, 1:]`. A batch may straddle two epochs.
        """
        assert step >= 0
        windows = step * self.batch_windows + np.arange(self.batch_windows, dtype=np.int64)
        epochs, places = np.divmod(windows, self.windows_per_epoch)
        starts = np.empty(self.batch_windows, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            starts[chosen] = self._starts(int(epoch))[places[chosen]]
        positions = starts[:, None] + np.arange(self.context_length + 1)
        return self.tokens[positions].astype(np.int64)

    def _starts(self, epoch: int) -> np.ndarray:
        """Return where each window of an epoch starts, in the order in which they are read."""
        if epoch not in self._starts_of_epoch:
            generator = np.random.Generator(
                np.random.Philox(key=philox_key(_STREAM, self.seed, epoch))
            )
            offset = generator.integers(self.context_length)
            order = generator.permutation(self.windows_per_epoch)
            # A batch never touches more than two epochs: older orders are dropped.
            kept = sorted(self._starts_of_epoch)[-1:]
            self._starts_of_epoch = {known: self._starts_of_epoch[known] for known in kept}
            self._starts_of_epoch[epoch] = offset + order * self.context_length
        return self._starts_of_epoch[epoch]


def count_windows(num_stream_tokens: int, context_length: int) -> int:
    """Return the windows of an epoch: those that fit behind even the largest offset.

    A window reads `context_length + 1` tokens, the last of which is only a target; the offset is
    at most `context_length - 1`.
    """
    return max(0, (num_stream_tokens - context_length) // context_length)


def check_one_batch(num_stream_tokens: int, context_length: int, batch_windows: int) -> None:
    """Refuse a training stream that does not hold one batch.

    Raises:
        DataError: Names both numbers and what would help.
    """
    windows = count_windows(num_stream_tokens, context_length)
    if windows < batch_windows:
        raise DataError(
            f"the training split has {num_stream_tokens - 1:,} tokens: {windows:,} windows of "
            f"context_length {context_length}, fewer than one batch of {batch_windows:,}",
            "give more text, or make data.context_length or training.batch_tokens smaller",
        )


def chain_sha256(previous_hex: str, *batch: np.ndarray) -> str:
    """Return the running hash of the consumed batches after one more.

    Args:
        previous_hex: The hash before this batch; 64 zeros before the first.
        batch: The arrays of the batch, as `TrainingBatches.batch` or `PairBatch.arrays` gave them.
    """
    hasher = hashlib.sha256(bytes.fromhex(previous_hex))
    for array in batch:
        tokens = np.ascontiguousarray(array, dtype="<i8")
        hasher.update(np.array(tokens.shape, dtype="<i8").tobytes())
        hasher.update(tokens.tobytes())
    return hasher.hexdigest()


def philox_key(stream: int, seed: int, epoch: int) -> Any:
    """Return the Philox key (two 64-bit words) of an epoch of one kind of draws."""
    return np.array([seed ^ (stream << 16), epoch], dtype=np.uint64)
