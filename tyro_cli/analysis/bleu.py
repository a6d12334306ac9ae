"""BLEU from each sentence's counts, and the approximate randomisation test of two translations.

Invariant: nothing here needs the text. The BLEU of a corpus is a function of the sums of its
sentences' counts (Papineni et al. 2002, section 2.3), with sacrebleu's exponential smoothing of
orders without a match (Post 2018); a test compares both with sacrebleu itself.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tyro_cli.evaluation.quality import BLEU_COUNTS, BLEU_ORDER

TRIALS = 10_000
_TRIALS_AT_A_TIME = 500

Counts = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class RandomisationTest:
    """Whether two translations of the same sentences differ in corpus BLEU.

    Attributes:
        difference: BLEU of the first minus that of the second.
        p: Two-sided; the share of random exchanges of sentences between the two whose difference
            is at least as large, the observed one counted in (Noreen 1989; Riezler & Maxwell 2005).
            sacrebleu counts larger ones only: where few sentences differ it calls chance a finding.
        trials: Random exchanges.
        sentences: Sentences compared.
    """

    difference: float
    p: float
    trials: int
    sentences: int


def corpus_bleu(sums: np.ndarray[Any, Any]) -> Floats:
    """Return the BLEU (0 to 100) of sums of counts `[..., BLEU_COUNTS]`.

    Columns: length, reference's length, matching n-grams of order 1 to 4, all n-grams of order 1
    to 4. An order without n-grams, or no match at all, gives 0, as in sacrebleu.
    """
    counts = np.asarray(sums, dtype=np.float64)
    length, reference = counts[..., 0], counts[..., 1]
    matching, possible = counts[..., 2 : 2 + BLEU_ORDER], counts[..., 2 + BLEU_ORDER :]
    unmatched = (matching == 0) & (possible > 0)
    # The k-th order without a match counts 1 / 2^k of one.
    smoothed = np.where(unmatched, 0.5 ** np.cumsum(unmatched, axis=-1), matching)
    usable = (possible > 0).all(axis=-1) & (matching[..., 0] > 0) & (length > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_precision = np.log(smoothed / possible).mean(axis=-1)
        brevity = np.where(length < reference, 1.0 - reference / length, 0.0)
        bleu = 100.0 * np.exp(log_precision + brevity)
    return np.where(usable, bleu, 0.0)


def randomisation_test(
    first: Counts, second: Counts, seed: int = 0, trials: int = TRIALS
) -> RandomisationTest:
    """Exchange sentences between two translations at random, and see how often BLEU differs as much.

    Args:
        first: Counts `[sentences, BLEU_COUNTS]` of one translation.
        second: Counts of the other one, of the same sentences in the same order.
        seed: Of the exchanges.
        trials: Exchanges to draw.
    """  # noqa: E501
    assert first.shape == second.shape and first.shape[1] == BLEU_COUNTS
    observed = float(corpus_bleu(first.sum(axis=0)) - corpus_bleu(second.sum(axis=0)))
    generator = np.random.Generator(np.random.Philox(key=seed))
    total = (first + second).sum(axis=0)
    reached = 0
    for begin in range(0, trials, _TRIALS_AT_A_TIME):
        rows = min(_TRIALS_AT_A_TIME, trials - begin)
        exchanged = generator.integers(0, 2, size=(rows, len(first)), dtype=np.int8)
        sums = second.sum(axis=0) + exchanged.astype(np.float64) @ (first - second)
        differences = corpus_bleu(sums) - corpus_bleu(total - sums)
        reached += int((np.abs(differences) >= abs(observed) - 1e-9).sum())
    return RandomisationTest(observed, (reached + 1) / (trials + 1), trials, len(first))
