"""How alike two embedding spaces of one vocabulary are, whatever turns one into the other.

Every measure is unchanged when either space is rotated, mirrored or scaled, so spaces of different
seeds compare, and the two may differ in width. What a measure gives for unrelated spaces is told by
a partner whose rows are shuffled: pass `order`.

Shapes: R rows (tokens), D and E widths, S sampled rows, K neighbours.
"""

from dataclasses import dataclass

import numpy as np

NUM_NEIGHBOURS = 10
_CHUNK_ROWS = 256  # with R = 33,278 the cosines of a chunk take 68 MB


@dataclass(frozen=True, eq=False)
class Space:
    """One matrix, made ready to be compared with others on the same rows.

    Attributes:
        rows_RD: The matrix's counted rows, as they are.
        sample: int64 `[S]`, the sampled rows, ascending.
        neighbours_SK: int64, each sampled row's nearest rows.
        similarity_ranks_SS: Ranks of the cosines of the sampled pairs, symmetric, diagonal 0.
    """

    rows_RD: np.ndarray
    sample: np.ndarray
    neighbours_SK: np.ndarray
    similarity_ranks_SS: np.ndarray


def make_space(rows_RD: np.ndarray, sample: np.ndarray) -> Space:
    """Return a space for `compare_spaces`.

    Args:
        rows_RD: Counted rows, float32 or float64, at least 3 and finite.
        sample: Ascending places of the sampled rows.
    """
    num_neighbours = min(NUM_NEIGHBOURS, len(rows_RD) - 1)
    neighbours, _ = nearest_rows(rows_RD, sample, num_neighbours)
    return Space(rows_RD, sample, neighbours, _similarity_ranks(rows_RD[sample]))


def compare_spaces(
    first: Space, second: Space, order: np.ndarray | None = None
) -> dict[str, float | None]:
    """Return every measure of two spaces; None where one is not defined.

    Args:
        first: A space.
        second: Another on the same rows.
        order: Take the second's rows in this order, `rows.shuffle_rows`; that is the null.
    """
    rows_RE = second.rows_RD if order is None else second.rows_RD[order]
    neighbours, ranks = second.neighbours_SK, second.similarity_ranks_SS
    if order is not None:
        # Row i of the shuffled matrix is row order[i], and so are its neighbours.
        place_in_sample = np.searchsorted(second.sample, order[second.sample])
        neighbours = np.argsort(order)[neighbours[place_in_sample]]
        ranks = ranks[np.ix_(place_in_sample, place_in_sample)]
    return {
        "neighbour_overlap": neighbour_overlap(first.neighbours_SK, neighbours),
        "similarity_correlation": _correlation_of_ranks(first.similarity_ranks_SS, ranks),
        **_linear_measures(first.rows_RD, rows_RE),
    }


def neighbour_overlap(neighbours_SK: np.ndarray, others_SK: np.ndarray) -> float:
    """Return the mean share of nearest neighbours that two spaces have in common, 0 to 1."""
    shared = (neighbours_SK[:, :, None] == others_SK[:, None, :]).any(axis=2)
    return float(shared.mean())


def nearest_rows(
    rows_RD: np.ndarray, places: np.ndarray, num_neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows nearest to some rows by cosine, themselves left out, and the cosines.

    Args:
        rows_RD: All rows.
        places: int64, the rows whose neighbours are wanted.
        num_neighbours: K, less than R.

    Returns:
        int64 and float64 `[len(places), K]`, nearest first, equal ones by place. A row of zeros has
        a cosine of 0 with every row.
    """
    unit_RD = _unit_rows(rows_RD)
    nearest = np.empty((len(places), num_neighbours), dtype=np.int64)
    cosines = np.empty((len(places), num_neighbours))
    for start in range(0, len(places), _CHUNK_ROWS):
        chunk = places[start : start + _CHUNK_ROWS]
        found_CR = unit_RD[chunk] @ unit_RD.T
        found_CR[np.arange(len(chunk)), chunk] = -np.inf
        least_C = -np.partition(-found_CR, num_neighbours - 1, axis=1)[:, num_neighbours - 1]
        for row, (found_R, least) in enumerate(zip(found_CR, least_C, strict=True), start=start):
            near = np.flatnonzero(found_R >= least)
            near = near[np.argsort(-found_R[near], kind="stable")][:num_neighbours]
            nearest[row], cosines[row] = near, found_R[near]
    return nearest, cosines


def _linear_measures(rows_RD: np.ndarray, rows_RE: np.ndarray) -> dict[str, float | None]:
    """Return the two measures that follow from the product of the centred spaces X and Y.

    Linear centred kernel alignment, 0 to 1 (Kornblith et al. 2019, section 3), in Frobenius norms:
    |Y'X|^2 / (|X'X| |Y'Y|). And what the best rotation leaves of one space, 0 (same but for
    rotation) to 1: with both scaled to a norm of 1, the rotation of Schönemann (1966) and the best
    scale leave min |s X Q - Y|^2 = 1 - (sum of singular values of X'Y)^2. Where widths differ the
    narrower space is thought of as filled up with zeros.
    """
    first, second = _centred(rows_RD), _centred(rows_RE)
    product_ED = second.T @ first
    own = [float(np.linalg.norm(space.T @ space)) for space in (first, second)]
    sizes = [float(np.square(space).sum()) for space in (first, second)]
    if not (min(own) > 0 and min(sizes) > 0):
        return {"linear_cka": None, "procrustes_residual": None}
    singular = float(np.linalg.svd(product_ED, compute_uv=False).sum())
    return {
        "linear_cka": float(np.square(product_ED).sum()) / (own[0] * own[1]),
        "procrustes_residual": max(0.0, 1.0 - singular**2 / (sizes[0] * sizes[1])),
    }


def _similarity_ranks(rows_SD: np.ndarray) -> np.ndarray:
    """Return the ranks of the cosines of all pairs, `[S, S]`, symmetric; ties share their mean."""
    from scipy.stats import rankdata

    unit = _unit_rows(rows_SD)
    upper = np.triu_indices(len(unit), k=1)
    ranks = np.zeros((len(unit), len(unit)))
    ranks[upper] = rankdata((unit @ unit.T)[upper])
    return ranks + ranks.T


def _correlation_of_ranks(ranks_SS: np.ndarray, others_SS: np.ndarray) -> float | None:
    """Return Spearman's correlation of two similarity matrices (Kriegeskorte et al. 2008).

    The similarity of two rows is their cosine; every pair of rows counts once.
    """
    upper = np.triu_indices(len(ranks_SS), k=1)
    first, second = ranks_SS[upper], others_SS[upper]
    first, second = first - first.mean(), second - second.mean()
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norms if norms > 0 else None


def _centred(rows: np.ndarray) -> np.ndarray:
    values = np.asarray(rows, dtype=np.float64)
    return values - values.mean(axis=0)


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    values = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms > 0, norms, 1.0)
