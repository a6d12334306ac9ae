"""Training batches: a pure function of (seed, step) that reads every window once an epoch."""

import numpy as np
import pytest

from tyro_cli.data.batches import TrainingBatches, chain_sha256, check_one_batch, count_windows
from tyro_cli.errors import DataError

T = 8
KNOWN_STARTS = {0: [132, 84, 100, 116, 92, 36], 100: [173, 165, 181, 37, 109, 141]}
STREAM = np.arange(203, dtype=np.uint16)  # each token is its own place, so starts can be read off


def starts_of_epoch(batches: TrainingBatches, epoch: int) -> list[int]:
    windows = batches.windows_per_epoch
    wanted = range(epoch * windows, (epoch + 1) * windows)
    size = batches.batch_windows
    return [int(batches.batch(window // size)[window % size, 0]) for window in wanted]


def test_every_window_is_read_once_an_epoch_and_windows_do_not_overlap() -> None:
    batches = TrainingBatches(STREAM, T, batch_windows=5, seed=0)
    for epoch in range(4):
        starts = sorted(starts_of_epoch(batches, epoch))
        assert len(starts) == batches.windows_per_epoch == (203 - T) // T
        assert np.diff(starts).tolist() == [T] * (len(starts) - 1)
        assert 0 <= starts[0] < T


def test_offset_and_order_are_redrawn_each_epoch() -> None:
    batches = TrainingBatches(STREAM, T, batch_windows=5, seed=0)
    epochs = [starts_of_epoch(batches, epoch) for epoch in range(12)]
    assert len({min(starts) for starts in epochs}) > 3
    orders = {tuple(np.argsort(starts)) for starts in epochs}
    assert len(orders) == 12


def test_every_offset_fits_a_stream_of_any_length() -> None:
    for length in range(2 * T, 5 * T):
        batches = TrainingBatches(np.arange(length), T, batch_windows=1, seed=1)
        for step in range(40 * batches.windows_per_epoch):
            batch = batches.batch(step)
            assert batch.shape == (1, T + 1)
            assert np.diff(batch[0]).tolist() == [1] * T
        assert 2 * T + (count_windows(length, T) - 1) * T <= length


def test_a_step_does_not_depend_on_what_was_drawn_before() -> None:
    forward = TrainingBatches(STREAM, T, batch_windows=7, seed=3)
    batches = [forward.batch(step) for step in range(30)]
    backward = TrainingBatches(STREAM, T, batch_windows=7, seed=3)
    for step in reversed(range(30)):
        np.testing.assert_array_equal(backward.batch(step), batches[step])
    alone = TrainingBatches(STREAM, T, batch_windows=7, seed=3)
    np.testing.assert_array_equal(alone.batch(17), batches[17])


def test_batches_of_known_steps_stay_what_they_are() -> None:
    """Changes only together with the protocol number: other batches are other results."""
    batches = TrainingBatches(STREAM, T, batch_windows=6, seed=0)
    assert batches.batch(0)[:, 0].tolist() == KNOWN_STARTS[0]
    assert batches.batch(100)[:, 0].tolist() == KNOWN_STARTS[100]


def test_seeds_differ() -> None:
    drawn = {
        TrainingBatches(STREAM, T, batch_windows=24, seed=seed).batch(0).tobytes()
        for seed in (0, 1, 2, 2**31 - 1)
    }
    assert len(drawn) == 4


def test_batch_is_int64_with_targets_one_ahead_also_across_epochs() -> None:
    batches = TrainingBatches(STREAM, T, batch_windows=10, seed=0)
    assert batches.windows_per_epoch == 24
    batch = batches.batch(2)  # windows 20 to 29: the epoch ends inside
    assert batch.dtype == np.int64
    np.testing.assert_array_equal(batch[:, 1:-1], batch[:, :-1][:, 1:])
    np.testing.assert_array_equal(batch[:, 1:], batch[:, :-1] + 1)


def test_batches_change_with_the_size_only_in_how_they_are_grouped() -> None:
    ones = TrainingBatches(STREAM, T, batch_windows=1, seed=5)
    sixes = TrainingBatches(STREAM, T, batch_windows=6, seed=5)
    singles = np.concatenate([ones.batch(step) for step in range(60)])
    groups = np.concatenate([sixes.batch(step) for step in range(10)])
    np.testing.assert_array_equal(singles, groups)


@pytest.mark.parametrize(("length", "batch_windows"), [(T, 1), (2 * T - 1, 1), (4 * T, 4), (1, 1)])
def test_less_than_one_batch_is_refused(length: int, batch_windows: int) -> None:
    with pytest.raises(DataError, match="fewer than one batch") as caught:
        TrainingBatches(np.zeros(length, dtype=np.uint16), T, batch_windows, seed=0)
    assert f"{length - 1:,} tokens" in caught.value.message
    assert "batch_tokens" in caught.value.remedy


def test_exactly_one_batch_is_enough() -> None:
    check_one_batch(4 * T, T, 3)
    assert TrainingBatches(np.arange(4 * T), T, 3, seed=0).batch(0).shape == (3, T + 1)


def test_chain_depends_on_every_batch_and_their_order() -> None:
    one, two = np.array([[1, 2]]), np.array([[3, 4]])
    chain = chain_sha256(chain_sha256("", one), two)
    assert len(chain) == 64
    assert chain == chain_sha256(chain_sha256("", one.astype(np.int32)), two)
    assert chain != chain_sha256(chain_sha256("", two), one)
    assert chain != chain_sha256("", np.array([[1, 2], [3, 4]]))
    assert chain_sha256("", np.array([[1], [2]])) != chain_sha256("", one)
