r"""The built-in corpus `synthetic`: three texts drawn from one bigram chain.

Invariant: a state is a word and a token. State 0 is the end of a line, which the `word` tokenizer
reads as `<eos>`; so the stream of a split, with its leading `<eos>`, is a path of the chain that
begins in state 0, and every scored token costs the chain exactly -ln P. Splits are drawn from keys
of their own. The chain itself is left to `chains`.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tyro_cli.config.schema import SyntheticConfig
from tyro_cli.data.batches import philox_key
from tyro_cli.data.chains import (
    CHAIN_STREAM,
    BigramChain,
    KnownEntropy,
    entropy_rate,
    least_reversible_excess,
    make_chain,
    probability_current,
    true_nats,
    unigram_entropy,
)
from tyro_cli.errors import DataError

# Raised whenever the same settings would give another text.
GENERATOR = 1

_DRAWS = {"train": 1, "valid": 2, "test": 3}  # 0 are the rows of E
_BLOCK = 2**16  # draws between two questions whether to stop


@dataclass(frozen=True)
class SyntheticTexts:
    """What the settings of a synthetic corpus give.

    Attributes:
        texts: Text of `train`, `valid` and `test`.
        known: What is known of their source.
        made_by: What decides all of it, for the hash of the corpus.
    """

    texts: dict[str, str]
    known: KnownEntropy
    made_by: dict[str, Any]


def draw_texts(
    config: SyntheticConfig, *, should_stop: Callable[[], None] = lambda: None
) -> SyntheticTexts:
    """Draw the three splits of a chain.

    Raises:
        DataError: A state does not occur in the training split, so that no vocabulary has it.
    """
    chain = make_chain(config)
    words = state_words(config.states)
    texts, true_nats_per_token = {}, {}
    for split, draw in _DRAWS.items():
        num_tokens = config.train_tokens if split == "train" else config.heldout_tokens
        states = draw_states(chain, num_tokens, (config.seed, draw), should_stop=should_stop)
        if split == "train":
            _check_all_occur(states, config)
        else:
            true_nats_per_token[split] = float(true_nats(chain, states).mean())
        texts[split] = "".join([words[state] for state in states.tolist()])
    known = KnownEntropy(
        entropy_rate_nats=entropy_rate(chain.transitions_VV, chain.stationary_V),
        unigram_entropy_nats=unigram_entropy(chain.stationary_V),
        probability_current=probability_current(chain),
        reversible_excess_nats=least_reversible_excess(chain),
        true_nats_per_token=true_nats_per_token,
    )
    return SyntheticTexts(texts, known, {"generator": GENERATOR, **config.model_dump(mode="json")})


def state_words(num_states: int) -> list[str]:
    r"""Return how each state is written: `\n` for 0, `w01 ` and so on for the others."""
    digits = len(str(num_states - 1))
    return ["\n", *(f"w{state:0{digits}d} " for state in range(1, num_states))]


def draw_states(
    chain: BigramChain,
    num_tokens: int,
    key: tuple[int, int],
    *,
    should_stop: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Draw a path from state 0 on: at least `num_tokens` states, up to the next state 0.

    Args:
        chain: The chain.
        num_tokens: At least so many states, int64; fewer of one key are the beginning of more.
        key: The seed, and which draw of it.
        should_stop: Called between blocks of work; raises to stop.
    """
    seed, draw = key
    generator = np.random.Generator(np.random.Philox(key=philox_key(CHAIN_STREAM, seed, draw)))
    cumulative_VV = np.cumsum(chain.transitions_VV, axis=1)
    cumulative_VV[:, -1] = 1.0  # rounding must leave no draw without a state
    thresholds = cumulative_VV.tolist()
    path: list[int] = []
    state = 0
    while True:
        should_stop()
        for uniform in generator.random(_BLOCK).tolist():
            state = bisect_right(thresholds[state], uniform)
            path.append(state)
            if state == 0 and len(path) >= num_tokens:
                return np.array(path, dtype=np.int64)


def _check_all_occur(states: np.ndarray, config: SyntheticConfig) -> None:
    missing = config.states - len(np.unique(states))
    if missing:
        raise DataError(
            f"data.synthetic: {missing} of the {config.states} states do not occur in the "
            f"{len(states):,} tokens of train",
            "make data.synthetic.train_tokens larger, or states or entropy_fraction smaller",
        )
