"""Batches of pairs: a pure function of (seed, step) that reads every pair once an epoch."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.texts import SHARED_MULTI30K, needs_shared_multi30k, pairs_config
from tyro_cli.data.batches import chain_sha256
from tyro_cli.data.pair_batches import IGNORED, PairBatch, PairBatches, batch_of_pairs
from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.data.prepared_pairs import prepare_pairs

LENGTHS = [(2 + (7 * n) % 5, 2 + (11 * n) % 9) for n in range(97)]
BUDGET = 60


def split_of(lengths: list[tuple[int, int]]) -> PairSplit:
    """Return pairs of these lengths; each token says which pair and place it is from."""
    sides = [
        [
            np.array([1000 * (pair + 1) + place for place in range(length - 1)] + [0])
            for pair, length in enumerate(side)
        ]
        for side in zip(*lengths, strict=True)
    ]
    starts = [np.cumsum([0, *map(len, side)]) for side in sides]
    zeros = np.zeros(len(lengths), dtype=np.int64)
    return PairSplit(
        *[np.concatenate(side).astype(np.uint32) for side in sides], *starts, zeros, zeros,
        "", 0, 0, 0, 0, 0, 0, (), (),
    )  # fmt: skip


def batches_of_epoch(batches: PairBatches, epoch: int) -> list[PairBatch]:
    count = batches.batches_per_epoch
    return [batches.batch(step) for step in range(epoch * count, (epoch + 1) * count)]


def size(batch: PairBatch) -> int:
    return batch.source.size + batch.target_in.size


lengths_of_pairs = st.lists(st.tuples(st.integers(2, 30), st.integers(2, 30)), min_size=1)


@given(lengths_of_pairs, st.integers(2, 200), st.integers(0, 2**31 - 1))
def test_every_pair_is_read_once_an_epoch_within_the_budget(
    lengths: list[tuple[int, int]], batch_tokens: int, seed: int
) -> None:
    batches = PairBatches(split_of(lengths), batch_tokens, seed)
    for epoch in range(3):
        drawn = batches_of_epoch(batches, epoch)
        read = np.concatenate([batch.pairs for batch in drawn])
        assert sorted(read.tolist()) == list(range(len(lengths)))
        assert all(size(batch) <= batch_tokens or len(batch.pairs) == 1 for batch in drawn)


@given(lengths_of_pairs, st.integers(2, 200))
def test_the_very_first_batch_is_the_largest(
    lengths: list[tuple[int, int]], batch_tokens: int
) -> None:
    batches = PairBatches(split_of(lengths), batch_tokens, seed=0)
    first, *others = batches_of_epoch(batches, 0)
    for other in others:
        sizes = [(size(batch), batch.target_in.size) for batch in (first, other)]
        assert sizes[0] >= sizes[1]


def test_of_batches_of_one_size_the_one_with_more_targets_is_first() -> None:
    batches = PairBatches(split_of([(6, 4)] * 3 + [(10, 5)] * 2), batch_tokens=30, seed=0)
    first, second = batches_of_epoch(batches, 0)
    assert (first.target_in.shape, second.target_in.shape) == ((3, 4), (2, 5))


def test_batch_holds_its_pairs_and_padding_that_counts_nowhere() -> None:
    split = split_of([(3, 2), (2, 4)])
    batch = batch_of_pairs(split, np.array([1, 0]))
    assert batch.source.tolist() == [[2000, 0, 0], [1000, 1001, 0]]
    assert batch.source_lengths.tolist() == [2, 3]
    assert batch.target_in.tolist() == [[0, 2000, 2001, 2002], [0, 1000, 0, 0]]
    assert batch.target_out.tolist() == [[2000, 2001, 2002, 0], [1000, 0, -1, -1]]
    assert all(array.dtype == np.int64 for array in (*batch.arrays(), batch.pairs))


def test_tokens_may_be_of_any_integer_type_and_padding_is_still_negative() -> None:
    split = split_of([(3, 2), (2, 4)])
    for dtype in ("<u2", "<u4"):
        split.target.setflags(write=False)
        object.__setattr__(split, "target", split.target.astype(dtype))
        assert batch_of_pairs(split, np.array([0, 1])).target_out[0].tolist() == [1000, 0, -1, -1]


def test_lengths_within_a_batch_are_alike() -> None:
    batches = PairBatches(split_of(LENGTHS), BUDGET, seed=0)
    for batch in batches_of_epoch(batches, 1):
        lengths = [LENGTHS[pair] for pair in batch.pairs]
        targets = [target for _, target in lengths]
        assert targets == sorted(targets)
        assert lengths == sorted(lengths, key=lambda pair: (pair[1], pair[0]))


def test_batches_are_as_large_as_the_budget_allows() -> None:
    batches = PairBatches(split_of(LENGTHS), BUDGET, seed=0)
    ordered = sorted(LENGTHS, key=lambda pair: (pair[1], pair[0]))
    drawn = sorted(
        batches_of_epoch(batches, 0),
        key=lambda batch: [LENGTHS[batch.pairs[0]][1], LENGTHS[batch.pairs[0]][0]],
    )
    end = 0
    for batch in drawn:
        end += len(batch.pairs)
        if end < len(ordered):
            source = max(batch.source.shape[1], ordered[end][0])
            target = max(batch.target_in.shape[1], ordered[end][1])
            assert (len(batch.pairs) + 1) * (source + target) > BUDGET


def test_equal_lengths_are_mixed_anew_in_each_epoch_and_so_is_the_order() -> None:
    batches = PairBatches(split_of(LENGTHS), BUDGET, seed=0)
    epochs = [batches_of_epoch(batches, epoch) for epoch in range(6)]
    assert len({len(epoch) for epoch in epochs}) == 1
    groups = {frozenset(frozenset(batch.pairs.tolist()) for batch in epoch) for epoch in epochs}
    assert len(groups) == 6
    shapes = {tuple(batch.target_in.shape for batch in epoch) for epoch in epochs}
    assert len(shapes) == 6


def test_seeds_differ() -> None:
    split = split_of(LENGTHS)
    drawn = {
        tuple(PairBatches(split, BUDGET, seed).batch(1).pairs.tolist())
        for seed in (0, 1, 2, 2**31 - 1)
    }
    assert len(drawn) == 4


def test_a_step_does_not_depend_on_what_was_drawn_before() -> None:
    split = split_of(LENGTHS)
    forward = PairBatches(split, BUDGET, seed=3)
    batches = [forward.batch(step) for step in range(60)]
    backward = PairBatches(split, BUDGET, seed=3)
    for step in reversed(range(60)):
        for one, other in zip(backward.batch(step).arrays(), batches[step].arrays(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_batches_of_known_steps_stay_what_they_are() -> None:
    """Changes only together with the protocol number: other batches are other results."""
    batches = PairBatches(split_of(LENGTHS), BUDGET, seed=0)
    assert batches.batches_per_epoch == 20
    assert batches.batch(0).pairs.tolist() == [76, 31, 4, 49]
    assert batches.batch(100).pairs.tolist() == [57, 12, 35, 80]


def test_chain_depends_on_each_array_and_where_one_ends() -> None:
    batch = batch_of_pairs(split_of([(3, 2), (2, 4)]), np.array([0, 1]))
    chain = chain_sha256("", *batch.arrays())
    for number in range(4):
        changed = [array.copy() for array in batch.arrays()]
        changed[number].flat[0] += 1
        assert chain_sha256("", *changed) != chain
    assert chain_sha256(chain, *batch.arrays()) != chain
    assert chain_sha256("", batch.source) != chain_sha256("", *batch.source)


def test_ignored_targets_are_those_of_the_loss() -> None:
    from tyro_cli.models import head_loss

    assert head_loss.IGNORED == IGNORED


@pytest.mark.slow
@needs_shared_multi30k
def test_padding_of_multi30k_is_under_a_tenth(tmp_path: Path) -> None:
    splits = {"valid": "val", "test": "test_2016_flickr"}
    config = pairs_config(SHARED_MULTI30K, "word", context_length=128, splits=splits)
    split = prepare_pairs(config, cache_folder=tmp_path).splits["train"]
    batches = batches_of_epoch(PairBatches(split, 4096, seed=0), 0)
    held = sum(
        batch.source_lengths.sum() + (batch.target_out != IGNORED).sum() for batch in batches
    )
    assert held == len(split.source) + len(split.target)
    assert held > 0.9 * sum(map(size, batches))
