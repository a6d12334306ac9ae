"""Which rows count, and how tokens fall into bands of frequency."""

import numpy as np

from tyro_cli.evaluation.probes import rows


def test_tokens_are_counted_slice_by_slice(monkeypatch) -> None:
    tokens = np.array([1, 1, 4, 0, 1, 4, 2], dtype=np.uint16)
    monkeypatch.setattr(rows, "_SLICE_TOKENS", 3)
    assert rows.count_tokens(tokens, 6).tolist() == [1, 3, 1, 0, 2, 0]


def test_rare_rows_are_left_out() -> None:
    counted = rows.counted_rows(np.array([9, 10, 0, 500, 11]), seed=0)
    assert counted.ids.tolist() == [1, 3, 4]
    assert counted.counts.tolist() == [10, 500, 11]
    assert counted.sample.tolist() == [0, 1, 2]


def test_a_sample_is_drawn_once() -> None:
    counts = np.full(3000, 10)
    one, same, other = (rows.counted_rows(counts, seed=seed).sample for seed in (1, 1, 2))
    assert len(one) == len(set(one.tolist())) == rows.SAMPLE_ROWS
    assert (np.diff(one) > 0).all()
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_shuffling_keeps_the_sample_a_sample() -> None:
    counted = rows.counted_rows(np.full(1500, 10), seed=1)
    order = rows.shuffle_rows(counted, seed=2)
    assert np.array_equal(np.sort(order), np.arange(1500))
    assert set(order[counted.sample]) == set(counted.sample)
    assert (order == np.arange(1500)).mean() < 0.01
    assert np.array_equal(order, rows.shuffle_rows(counted, seed=2))


def test_bands_hold_about_as_much_of_the_text_each() -> None:
    counts = np.array([0, *np.sort(np.random.default_rng(0).zipf(1.4, 900) % 5000 + 1), 0])
    bands = rows.frequency_bands(counts)
    assert bands[[0, -1]].tolist() == [rows.NUM_BANDS, rows.NUM_BANDS]
    mass = np.bincount(bands, counts, minlength=rows.NUM_BANDS + 1) / counts.sum()
    assert np.abs(mass[: rows.NUM_BANDS] - 0.2).max() < 0.04
    falling = bands[np.argsort(-counts, kind="stable")]
    assert (np.diff(falling) >= 0).all()


def test_bands_by_hand() -> None:
    # Half of the text is one token; the shares before the others are .5, .7, .8 and .9.
    assert rows.frequency_bands(np.array([10, 50, 20, 0, 10, 10])).tolist() == [3, 0, 2, 5, 4, 4]
    assert rows.frequency_bands(np.array([1, 1])).tolist() == [0, 2]
    assert rows.frequency_bands(np.zeros(2, dtype=np.int64)).tolist() == [5, 5]
