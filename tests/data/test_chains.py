"""Chains: stationary, of the entropy rate asked for, and as reversible as asked for."""

import math

import numpy as np
import pytest

from tyro_cli.config.schema import SyntheticConfig
from tyro_cli.data.chains import (
    BigramChain,
    KnownEntropy,
    entropy_rate,
    least_reversible_excess,
    make_chain,
    probability_current,
    softmax_rows,
    stationary_distribution,
    true_nats,
    unigram_entropy,
)
from tyro_cli.data.synthetic import draw_states

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


def config(**changes: object) -> SyntheticConfig:
    """A small chain: 24 states in 6 dimensions."""
    record = {
        "states": 24,
        "rank": 6,
        "irreversibility": 0.5,
        "train_tokens": 2000,
        "heldout_tokens": 500,
    }
    return SyntheticConfig.model_validate(record | changes)


@pytest.fixture(scope="module")
def chains() -> list[BigramChain]:
    return [make_chain(config(irreversibility=level)) for level in LEVELS]


def flow(chain: BigramChain) -> np.ndarray:
    return chain.stationary_V[:, None] * chain.transitions_VV


def test_every_chain_is_stationary_and_irreducible(chains: list[BigramChain]) -> None:
    for chain in chains:
        assert (chain.transitions_VV > 0).all()
        np.testing.assert_allclose(chain.transitions_VV.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(chain.rows_VR, axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose(chain.stationary_V.sum(), 1, rtol=1e-12)
        moved = chain.stationary_V @ chain.transitions_VV
        np.testing.assert_allclose(moved, chain.stationary_V, rtol=1e-10)


def test_the_stationary_distribution_is_precise_where_mixing_is_slow() -> None:
    # Two blocks that are left once in a billion steps; by hand, pi is (1/2, 1/4, 1/4).
    rare = 1e-9
    slow = np.array([[1 - rare, rare, 0], [rare * 2, 0.5 - rare * 2, 0.5], [0, 0.5, 0.5]])
    np.testing.assert_allclose(stationary_distribution(slow), [0.5, 0.25, 0.25], rtol=1e-12)


def test_a_chain_that_is_not_turned_has_detailed_balance(chains: list[BigramChain]) -> None:
    chain = chains[0]
    np.testing.assert_array_equal(chain.logits_VV, chain.logits_VV.T)
    partition_sums = np.exp(chain.sharpness * chain.logits_VV).sum(axis=1)
    np.testing.assert_allclose(chain.stationary_V, partition_sums / partition_sums.sum(), rtol=1e-9)
    np.testing.assert_allclose(flow(chain), flow(chain).T, rtol=1e-9)
    assert probability_current(chain) < 1e-12
    assert abs(least_reversible_excess(chain)) < 1e-12


def test_current_and_least_excess_grow_with_irreversibility(chains: list[BigramChain]) -> None:
    currents = [probability_current(chain) for chain in chains]
    excesses = [least_reversible_excess(chain) for chain in chains]
    assert currents == sorted(currents) and 0.5 < currents[-1] <= 1
    assert excesses == sorted(excesses) and 0.3 < excesses[-1] <= math.log(2) + 1e-12


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"entropy_fraction": 0.1},
        {"entropy_fraction": 0.95},
        {"states": 64, "rank": 8, "entropy_fraction": 0.6},
        {"rank": 2},
        {"rank": 24},
        {"seed": 7},
        {"states": 4, "rank": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_the_entropy_rate_is_the_one_asked_for(changes: dict[str, object], level: float) -> None:
    asked = config(irreversibility=level, **changes)
    chain = make_chain(asked)
    expected = asked.entropy_fraction * math.log(asked.states)
    found = entropy_rate(chain.transitions_VV, chain.stationary_V)
    assert found == pytest.approx(expected, rel=1e-9)
    assert found < unigram_entropy(chain.stationary_V) <= math.log(asked.states) + 1e-12


def test_no_reversible_chain_loses_less_than_the_least_excess(chains: list[BigramChain]) -> None:
    def excess(chain: BigramChain, model_VV: np.ndarray) -> float:
        return float((flow(chain) * np.log(chain.transitions_VV / model_VV)).sum())

    generator = np.random.default_rng(0)
    for chain in chains:
        least = least_reversible_excess(chain)
        symmetric = (flow(chain) + flow(chain).T) / 2
        nearest = symmetric / symmetric.sum(axis=1, keepdims=True)
        assert excess(chain, nearest) == pytest.approx(least, abs=1e-12)
        for size in (0.01, 0.1, 1.0):
            noise = size * generator.standard_normal(symmetric.shape)
            other = symmetric * np.exp(noise + noise.T)
            assert excess(chain, other / other.sum(axis=1, keepdims=True)) > least
            # What a 0-layer tied model says: symmetric logits of any kind.
            rows = generator.standard_normal((len(symmetric), 5))
            assert excess(chain, softmax_rows(rows @ rows.T)) > least


def test_chains_that_differ_in_the_angle_alone_have_the_same_rows(
    chains: list[BigramChain],
) -> None:
    for chain in chains:
        np.testing.assert_array_equal(chain.rows_VR, chains[0].rows_VR)
    assert not np.array_equal(make_chain(config(seed=1)).rows_VR, chains[0].rows_VR)


def test_what_is_drawn_has_the_frequencies_of_the_chain() -> None:
    chain = make_chain(config())
    states = draw_states(chain, 200_000, (0, 1))
    counts = np.zeros_like(chain.transitions_VV)
    np.add.at(counts, (np.concatenate(([0], states[:-1])), states), 1)
    expected = flow(chain) * len(states)
    # Pearson's statistic over transitions, row by row, is chi-squared of V (V - 1) degrees.
    given_rows = counts.sum(axis=1, keepdims=True) * chain.transitions_VV
    frequent = given_rows > 5
    statistic = ((counts - given_rows) ** 2 / given_rows)[frequent].sum()
    degrees = frequent.sum()
    assert abs(statistic - degrees) < 6 * math.sqrt(2 * degrees)
    np.testing.assert_allclose(counts.sum(axis=1), expected.sum(axis=1), rtol=0.1)
    rate = entropy_rate(chain.transitions_VV, chain.stationary_V)
    assert true_nats(chain, states).mean() == pytest.approx(rate, rel=0.01)


def test_a_record_says_zero_and_reads_back() -> None:
    known = KnownEntropy(2.0, 4.0, -1e-17, 1e-15, {"valid": 2.0000000000001, "test": 1.9})
    record = known.as_record()
    assert str(record["probability_current"]) == "0.0" and record["reversible_excess_nats"] == 0
    assert KnownEntropy(**record).as_record() == record
