"""The statistics of paired differences: intervals, tests and the seeds a question needs.

Invariant: every function takes finite differences (arm - baseline, one per seed, shape [n]) or
per-document sums (shape [documents]) and returns plain numbers; a point never comes without its
interval. Nothing here draws from a global generator. What the numbers mean is left to `verdicts`.
SciPy does the mathematics; it is imported inside the functions because it takes long to load.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_EXACT_SIGN_FLIP = 20
"""Most differences whose sign flips are enumerated: 2**20 sums take about 20 ms."""

DEFAULT_RESAMPLES = 10_000
MIN_RESAMPLES = 1_000
RESAMPLE_BUDGET = 20_000_000
"""Documents drawn in all by one bootstrap; beyond 2,000 documents it takes fewer resamples."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A confidence interval around a mean."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    def excludes_zero(self) -> bool:
        """Return whether zero lies outside; an interval that touches zero does not exclude it."""
        return self.low > 0 or self.high < 0

    def lies_within(self, margin: float) -> bool:
        """Return whether the whole interval lies strictly inside (-margin, margin)."""
        return -margin < self.low and self.high < margin


@dataclass(frozen=True)
class SignFlip:
    """An exact sign-flip test, and the smallest p that its number of differences allows."""

    p: float
    smallest_p: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t tests against a margin; `interval` decides at the 5 % level."""

    p: float
    interval: Interval


@dataclass(frozen=True)
class Jackknife:
    """A statistic of several seeds, with its jackknife standard error and t interval.

    `pseudo_values` are Tukey's, one a seed: n t - (n - 1) t_i. Their t interval is the jackknife's
    around their mean, which is the estimate itself for a mean over seeds or over pairs of seeds.
    """

    estimate: float
    standard_error: float
    interval: Interval
    pseudo_values: tuple[float, ...]


@dataclass(frozen=True)
class DocumentBootstrap:
    """A difference between two fixed checkpoints, with its interval over documents."""

    difference: float
    interval: Interval
    p: float
    num_documents: int
    num_resamples: int


def paired_t_interval(differences: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the paired t interval of the mean difference.

    mean +- t(1 - (1 - confidence) / 2, n - 1) * s / sqrt(n), with s the sample standard deviation.
    Over a handful of seeds it keeps its nominal coverage, where a percentile bootstrap does not
    (docs/STATISTICS.md).

    Raises:
        ValueError: Fewer than two differences, or one that is not finite.
    """
    values = _checked(differences, at_least=2)
    mean, standard_error = _mean_and_standard_error(values)
    half_width = _t_quantile(0.5 + confidence / 2, len(values) - 1) * standard_error
    return Interval(mean - half_width, mean + half_width)


def paired_t_test(differences: Sequence[float]) -> float:
    """Return the two-sided p of the paired t test that the mean difference is zero.

    p < .05 is the same as the 95 % t interval excluding zero. Without any spread p is 0, or 1 where
    every difference is zero.

    Raises:
        ValueError: Fewer than two differences, or one that is not finite.
    """
    values = _checked(differences, at_least=2)
    mean, standard_error = _mean_and_standard_error(values)
    if standard_error == 0:
        return 1.0 if mean == 0 else 0.0
    from scipy import special

    return float(2 * special.stdtr(len(values) - 1, -abs(mean) / standard_error))


def holm_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p values of one family adjusted by Holm (1979), in the order given.

    The k-th smallest of m is multiplied by m - k + 1 (k from 1), made no smaller than the ones
    before it, and cut at 1. Rejecting at .05 keeps the chance of any false rejection in the family
    at .05 at most, however the tests depend on each other.

    Raises:
        ValueError: A value is no probability.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p values must lie between 0 and 1")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def sign_flip_test(differences: Sequence[float]) -> SignFlip | None:
    """Return the exact two-sided sign-flip p of the mean difference (Fisher 1935).

    p is the share of the 2**n ways to flip signs whose sum is at least as far from zero as the one
    observed. With n differences it cannot fall below 2 / 2**n, so it never decides a verdict.

    Returns:
        None above 20 differences, where the flips are not enumerated.

    Raises:
        ValueError: No difference, or one that is not finite.
    """
    values = _checked(differences, at_least=1)
    if len(values) > MAX_EXACT_SIGN_FLIP:
        return None
    sums = np.zeros(1)
    for value in np.abs(values):
        sums = np.concatenate((sums + value, sums - value))
    # Sums that are equal on paper differ in their last bits: they must count as ties.
    tolerance = 1e-12 * float(np.abs(values).sum())
    p = float(np.mean(np.abs(sums) >= abs(float(values.sum())) - tolerance))
    return SignFlip(p=p, smallest_p=2.0 ** (1 - len(values)))


def equivalence_test(differences: Sequence[float], margin: float) -> Equivalence:
    """Return two one-sided t tests that the mean difference lies inside (-margin, margin).

    p is the larger of the two (Schuirmann 1987); p < .05 is the same as the 90 % interval lying
    inside the margin. Without any spread p is 0 or 1.

    Raises:
        ValueError: Fewer than two differences, one that is not finite, or a margin of zero or less.
    """
    if not margin > 0:
        raise ValueError(f"a margin must be above zero, not {margin}")
    values = _checked(differences, at_least=2)
    interval = paired_t_interval(differences, 0.90)
    mean, standard_error = _mean_and_standard_error(values)
    if standard_error == 0:
        return Equivalence(0.0 if abs(mean) < margin else 1.0, interval)
    from scipy import special

    t_of_nearer_bound = (margin - abs(mean)) / standard_error
    return Equivalence(float(special.stdtr(len(values) - 1, -t_of_nearer_bound)), interval)


def jackknife(
    statistic: Callable[[Sequence[int]], float],
    seeds: Sequence[int],
) -> Jackknife:
    """Return a statistic of all seeds with the 95 % interval that leaving out one at a time gives.

    With t_i the statistic without seed i and t their mean, the variance is
    (n - 1) / n * sum (t_i - t)^2 (Efron 1982, chapter 3), the interval
    estimate +- t(.975, n - 1) * standard error (Tukey 1958). Of a mean over
    seeds that is the t interval. It also holds for a mean over pairs of seeds, whose values are not
    independent because each seed is in several; there it errs on the wide side (Efron and Stein
    1981). A difference of two arms is one statistic: a seed is left out of both at once.

    Args:
        statistic: From some of the seeds to its value; called with all, and without each one.
        seeds: All seeds, different from each other.

    Raises:
        ValueError: Fewer than two seeds, or a value that is not finite.
    """
    values = _checked(
        [statistic([other for other in seeds if other != seed]) for seed in seeds], at_least=2
    )
    estimate = statistic(list(seeds))
    if not math.isfinite(estimate):
        raise ValueError("a statistic must be a finite number")
    num_seeds = len(values)
    standard_error = _standard_deviation(values) * (num_seeds - 1) / math.sqrt(num_seeds)
    half_width = _t_quantile(0.975, num_seeds - 1) * standard_error
    interval = Interval(estimate - half_width, estimate + half_width)
    pseudo_values = num_seeds * estimate - (num_seeds - 1) * values
    return Jackknife(estimate, standard_error, interval, tuple(pseudo_values.tolist()))


def upper_bound_of_spread(differences: Sequence[float]) -> float:
    """Return the one-sided upper 80 % bound of the standard deviation of the differences.

    s * sqrt((n - 1) / chi2(.20, n - 1)), exact for normal differences.

    Raises:
        ValueError: Fewer than two differences, or one that is not finite.
    """
    values = _checked(differences, at_least=2)
    degrees = len(values) - 1
    from scipy import special

    lower_quantile = float(special.chdtri(degrees, 0.80))
    return _standard_deviation(values) * math.sqrt(degrees / lower_quantile)


def seeds_needed(differences: Sequence[float], margin: float, confidence: float = 0.95) -> int:
    """Return how many seeds in all bring the half-width of the t interval to the margin.

    The spread is taken at its upper 80 % bound, because over a few seeds the sample's own spread is
    as often too small as too large, and a plan made from it falls short half of the time.

    Raises:
        ValueError: Fewer than two differences, one that is not finite, or a margin of zero or less.
    """
    if not margin > 0:
        raise ValueError(f"a margin must be above zero, not {margin}")
    spread = upper_bound_of_spread(differences)

    def is_enough(seeds: int) -> bool:
        return _t_quantile(0.5 + confidence / 2, seeds - 1) * spread / math.sqrt(seeds) <= margin

    enough = 2
    while not is_enough(enough):
        enough *= 2
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        too_few, enough = (too_few, middle) if is_enough(middle) else (middle, enough)
    return enough


def paired_document_bootstrap(
    nats_arm: Floats,
    nats_baseline: Floats,
    counts: np.ndarray[Any, np.dtype[np.int64]],
    seed: int = 0,
    num_resamples: int | None = None,
) -> DocumentBootstrap:
    """Return the difference in nats per word of two checkpoints, resampling documents in pairs.

    The estimate is a ratio: sum of differences in nats over sum of words, and so is every resample.
    The resampled ratios are centred on the estimate: the 95 % interval is the estimate plus and
    minus the .95 quantile of |resample - estimate|, and p is the share of resamples at least as
    far from the estimate as zero is.

    Args:
        nats_arm: Sum of nats of each document under the arm's checkpoint, shape [documents].
        nats_baseline: The same under the baseline's.
        counts: Words (or tokens, or bytes) of each document.
        seed: Key of the generator that draws documents.
        num_resamples: How many resamples; by default 10,000, fewer above 2,000 documents.

    Raises:
        ValueError: Fewer than two documents, other shapes, or nothing to divide by.
    """
    if not nats_arm.shape == nats_baseline.shape == counts.shape:
        raise ValueError("both checkpoints must have scored the same documents")
    num_documents = len(counts)
    if num_documents < 2 or counts.sum() <= 0:
        raise ValueError("a bootstrap needs at least two documents and something to divide by")
    gains = nats_arm - nats_baseline
    estimate = float(gains.sum() / counts.sum())
    if num_resamples is None:
        affordable = RESAMPLE_BUDGET // num_documents
        num_resamples = max(MIN_RESAMPLES, min(DEFAULT_RESAMPLES, affordable))
    generator = np.random.default_rng(seed)
    rows_at_once = max(1, 1_000_000 // num_documents)
    deviations = []
    for start in range(0, num_resamples, rows_at_once):
        rows = min(rows_at_once, num_resamples - start)
        drawn = generator.integers(num_documents, size=(rows, num_documents))
        drawn_counts = counts[drawn].sum(axis=1)
        # A resample of nothing but empty documents has no ratio; it is left out.
        usable = drawn_counts > 0
        deviations.append(gains[drawn].sum(axis=1)[usable] / drawn_counts[usable] - estimate)
    distances = np.abs(np.concatenate(deviations))
    half_width = float(np.quantile(distances, 0.95))
    p = (1 + int((distances >= abs(estimate)).sum())) / (1 + len(distances))
    return DocumentBootstrap(
        difference=estimate,
        interval=Interval(estimate - half_width, estimate + half_width),
        p=p,
        num_documents=num_documents,
        num_resamples=num_resamples,
    )


def _checked(differences: Sequence[float], at_least: int) -> Floats:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < at_least:
        raise ValueError(f"at least {at_least} differences are needed, not {values.size}")
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite numbers")
    return values


def _mean_and_standard_error(values: Floats) -> tuple[float, float]:
    return float(values.mean()), _standard_deviation(values) / math.sqrt(len(values))


def _standard_deviation(values: Floats) -> float:
    """Return the sample standard deviation; exactly 0 for equal values, whatever the rounding."""
    return 0.0 if (values == values[0]).all() else float(values.std(ddof=1))


def _t_quantile(probability: float, degrees_of_freedom: int) -> float:
    from scipy import special

    return float(special.stdtrit(degrees_of_freedom, probability))
