"""The shape of one embedding space: is it the same in all directions, and who is long in it.

Every measure but the norm is unchanged when the space is scaled. They say nothing about which word
lies where; that is what `spaces` compares.

Shapes: R rows (tokens), D width.
"""

import math

import numpy as np

_CHUNK_ROWS = 4096


def shape_measures(rows_RD: np.ndarray, counts_R: np.ndarray) -> dict[str, float | None]:
    """Return every measure of one space; None where one is not defined.

    Args:
        rows_RD: Counted rows, float32 or float64, at least 2 and finite.
        counts_R: How often each token occurs in train, at least 1 each.
    """
    rows = np.asarray(rows_RD, dtype=np.float64)
    correlation, slope = norm_by_frequency(rows, counts_R)
    return {
        "mean_norm": float(np.linalg.norm(rows, axis=1).mean()),
        "mean_cosine": mean_cosine(rows),
        "partition_ratio": partition_ratio(rows),
        "effective_rank": effective_rank(rows),
        "norm_frequency_correlation": correlation,
        "norm_frequency_slope": slope,
    }


def mean_cosine(rows_RD: np.ndarray) -> float:
    """Return the mean cosine of all pairs of different rows: 0 where no direction is preferred.

    Ethayarajh (2019) takes it of random pairs of words; all pairs cost no more, since
    their cosines sum to |sum of unit rows|^2 - R. A row of zeros has cosines of 0.
    """
    norms = np.linalg.norm(rows_RD, axis=1, keepdims=True)
    unit = rows_RD / np.where(norms > 0, norms, 1.0)
    num_rows, ones = len(unit), float(np.count_nonzero(norms))
    return (float(np.square(unit.sum(axis=0)).sum()) - ones) / (num_rows * (num_rows - 1))


def partition_ratio(rows_RD: np.ndarray) -> float | None:
    """Return min Z(c) / max Z(c) with Z(c) = sum over rows of exp(c'w): 1 where isotropic.

    Z is that of Arora et al. (2016), the ratio that of Mu and Viswanath (2018). As there, c runs
    over the unit eigenvectors of W'W; here with both signs, because an eigenvector has none. Rows
    are scaled by one number to a root mean square norm of 1, so that matrices of different scale
    compare; all rows alike then give exp(-2).
    """
    scale = float(np.sqrt(np.square(rows_RD).sum(axis=1).mean()))
    if not scale > 0:
        return None
    rows = rows_RD / scale
    _, directions = np.linalg.eigh(rows.T @ rows)
    logarithms = np.full((2, rows.shape[1]), -np.inf)  # of Z, which one long row may overflow
    for start in range(0, len(rows), _CHUNK_ROWS):
        along = rows[start : start + _CHUNK_ROWS] @ directions
        for sign in (0, 1):
            largest = along.max(axis=0)
            part = largest + np.log(np.exp(along - largest).sum(axis=0))
            logarithms[sign] = np.logaddexp(logarithms[sign], part)
            np.negative(along, out=along)
    return float(np.exp(logarithms.min() - logarithms.max()))


def effective_rank(rows_RD: np.ndarray) -> float | None:
    """Return exp(entropy of the singular values over their sum), 1 to D (Roy and Vetterli 2007)."""
    singular = np.linalg.svd(rows_RD, compute_uv=False)
    total = float(singular.sum())
    if not total > 0:
        return None
    shares = singular[singular > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def norm_by_frequency(
    rows_RD: np.ndarray, counts_R: np.ndarray
) -> tuple[float | None, float | None]:
    """Return how a row's norm goes with the logarithm of its token's count in train.

    The dependence is that of Schakel and Wilson (2015). The first number is Pearson's correlation;
    the second the slope of the least squares line, in mean norms for ten times the count.
    """
    norms = np.linalg.norm(rows_RD, axis=1)
    frequency = np.log10(counts_R)
    norms_from_mean, from_mean = norms - norms.mean(), frequency - frequency.mean()
    covariance, spread = float(norms_from_mean @ from_mean), float(from_mean @ from_mean)
    norm_spread = float(norms_from_mean @ norms_from_mean)
    # Equal values differ from their mean by rounding, so the values themselves are looked at.
    if np.ptp(counts_R) == 0 or not norms.mean() > 0:
        return None, None
    if np.ptp(norms) == 0:
        return None, 0.0
    correlation = covariance / math.sqrt(spread * norm_spread)
    return correlation, covariance / spread / float(norms.mean())
