"""Bigram chains whose entropy rate is known exactly, from reversible to irreversible.

Invariant: a chain is a pure function of its settings. It is stationary and irreducible (every
transition has a probability above 0), and its entropy rate is the one asked for, whatever its
irreversibility. Everything here is float64. Words, splits and files are left to `synthetic`.

Shapes: V states, R rank.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tyro_cli.config.schema import SyntheticConfig
from tyro_cli.data.batches import philox_key

# Sets these draws apart from any other use of Philox with the same seed.
CHAIN_STREAM = 0x636861696E73  # "chains"

_ROWS = 0  # which draw of the stream the rows of E are; the splits follow
_MOST_HALVINGS = 200


@dataclass(frozen=True, eq=False)
class BigramChain:
    """A stationary bigram chain.

    Attributes:
        rows_VR: E, rows of length 1.
        logits_VV: E M E^T, before they are sharpened.
        sharpness: t, what the logits are multiplied by.
        transitions_VV: Probability of the column's state after the row's.
        stationary_V: Probability of each state.
    """

    rows_VR: np.ndarray
    logits_VV: np.ndarray
    sharpness: float
    transitions_VV: np.ndarray
    stationary_V: np.ndarray


@dataclass(frozen=True)
class KnownEntropy:
    """What is known of the source of a text, in nats a token.

    Attributes:
        entropy_rate_nats: What the best model reaches on average.
        unigram_entropy_nats: What a model that sees no context reaches at best.
        probability_current: Sum over pairs of states of |pi_i P_ij - pi_j P_ji|, 0 to 1: how far
            the chain is from detailed balance.
        reversible_excess_nats: The least excess of any reversible chain, and so of every 0-layer
            tied model without a norm; see `least_reversible_excess`.
        true_nats_per_token: What the chain itself scores on the tokens of `valid` and `test`.
    """

    entropy_rate_nats: float
    unigram_entropy_nats: float
    probability_current: float
    reversible_excess_nats: float
    true_nats_per_token: dict[str, float]

    def as_record(self) -> dict[str, Any]:
        """Return plain values, rounded to what is the same on every machine."""
        record = asdict(self)
        splits = record.pop("true_nats_per_token")
        return {
            **{key: _rounded(value) for key, value in record.items()},
            "true_nats_per_token": {split: _rounded(value) for split, value in splits.items()},
        }


def make_chain(config: SyntheticConfig) -> BigramChain:
    """Return the chain of a configuration.

    The transitions are softmax(t E M E^T) with M = cos(a) I + sin(a) J, where J turns each pair of
    columns by a quarter and a is the irreversibility in quarter turns. For a = 0 the logits are
    symmetric, so pi_i is proportional to the i-th partition sum and detailed balance holds.
    """
    generator = np.random.Generator(
        np.random.Philox(key=philox_key(CHAIN_STREAM, config.seed, _ROWS))
    )
    rows = generator.standard_normal((config.states, config.rank))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    turned = np.empty_like(rows)  # E J^T, row by row
    turned[:, 0::2], turned[:, 1::2] = -rows[:, 1::2], rows[:, 0::2]
    angle = config.irreversibility * math.pi / 2
    logits = math.cos(angle) * rows @ rows.T + math.sin(angle) * rows @ turned.T
    if config.irreversibility == 0:
        logits = (logits + logits.T) / 2  # symmetric to the last bit, as its formula is
    sharpness = _sharpness_for(logits, config.entropy_fraction * math.log(config.states))
    transitions = softmax_rows(sharpness * logits)
    return BigramChain(rows, logits, sharpness, transitions, stationary_distribution(transitions))


def softmax_rows(logits_VV: np.ndarray) -> np.ndarray:
    """Return the softmax of every row."""
    weights = np.exp(logits_VV - logits_VV.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def stationary_distribution(transitions_VV: np.ndarray) -> np.ndarray:
    """Return pi `[V]` with pi P = pi, by state reduction (Grassmann, Taksar & Heyman 1985).

    Nothing is subtracted, so every probability has full relative precision, however slowly the
    chain mixes.
    """
    reduced = transitions_VV.copy()
    for last in range(len(reduced) - 1, 0, -1):
        reduced[:last, last] /= reduced[last, :last].sum()
        reduced[:last, :last] += np.outer(reduced[:last, last], reduced[last, :last])
    stationary = np.ones(len(reduced))
    for state in range(1, len(reduced)):
        stationary[state] = stationary[:state] @ reduced[:state, state]
    return np.asarray(stationary / stationary.sum())


def entropy_rate(transitions_VV: np.ndarray, stationary_V: np.ndarray) -> float:
    """Return the nats of a transition, averaged over the stationary distribution."""
    return float(-(stationary_V @ (transitions_VV * np.log(transitions_VV)).sum(axis=1)))


def unigram_entropy(stationary_V: np.ndarray) -> float:
    """Return the nats of a state without its context."""
    return float(-(stationary_V @ np.log(stationary_V)))


def probability_current(chain: BigramChain) -> float:
    """Return the sum over pairs i < j of |pi_i P_ij - pi_j P_ji|: 0 for a reversible chain."""
    flow_VV = chain.stationary_V[:, None] * chain.transitions_VV
    return float(np.abs(flow_VV - flow_VV.T).sum() / 2)


def least_reversible_excess(chain: BigramChain) -> float:
    """Return the least excess nats a token of any reversible chain.

    With the flow Q_ij = pi_i P_ij it is the divergence of Q from (Q + Q^T) / 2, and the chain that
    attains it is (P + P*) / 2, half the chain and half its time reversal: its m-projection onto
    the reversible chains (Wolfer & Watanabe 2021, Information Geometry 4). A 0-layer tied model
    without a norm is softmax(E E^T): its logits are symmetric, so it is a reversible chain.
    """
    flow_VV = chain.stationary_V[:, None] * chain.transitions_VV
    return float((flow_VV * np.log(2 * flow_VV / (flow_VV + flow_VV.T))).sum())


def true_nats(chain: BigramChain, states: np.ndarray) -> np.ndarray:
    """Return the nats `[L]` that the chain gives each of `states` `[L]`, begun after state 0."""
    before = np.concatenate(([0], states[:-1]))
    return np.asarray(-np.log(chain.transitions_VV[before, states]))


def _sharpness_for(logits_VV: np.ndarray, entropy_nats: float) -> float:
    """Return t for which softmax(t logits) has an entropy rate, by bisection to the last bit."""

    def is_sharper(sharpness: float) -> bool:
        transitions = softmax_rows(sharpness * logits_VV)
        return entropy_rate(transitions, stationary_distribution(transitions)) < entropy_nats

    low, high = 0.0, 1.0  # at 0 all transitions are equal, and the rate is ln V
    while not is_sharper(high):
        low, high = high, 2 * high
    for _ in range(_MOST_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if is_sharper(middle) else (middle, high)
    return high


def _rounded(value: float) -> float:
    return round(value, 12) + 0.0  # + 0.0 makes -0.0 a plain 0
