"""How alike two spaces are, on matrices whose answer is known, and against SciPy."""

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.stats import spearmanr

from tyro_cli.evaluation.probes import rows, spaces
from tyro_cli.evaluation.probes.spaces import compare_spaces, make_space

ALIKE = {
    "neighbour_overlap": 1.0,
    "linear_cka": 1.0,
    "similarity_correlation": 1.0,
    "procrustes_residual": 0.0,
}
R, D = 300, 12


def normal(seed: int, num_rows: int = R, width: int = D) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, width))


def rotation(seed: int, width: int = D) -> np.ndarray:
    """A random orthogonal matrix; about half of them mirror."""
    return np.linalg.qr(normal(seed, width, width))[0]


def compared(first: np.ndarray, second: np.ndarray, order: np.ndarray | None = None):
    sample = np.arange(0, len(first), 2)
    return compare_spaces(make_space(first, sample), make_space(second, sample), order)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 0.01, 30.0])
def test_a_space_turned_and_scaled_is_the_same_space(seed: int, scale: float) -> None:
    first = normal(0) + 0.3
    assert compared(first, scale * first @ rotation(seed)) == pytest.approx(ALIKE, abs=1e-9)


def test_a_wider_space_that_holds_the_other_is_the_same_space() -> None:
    first = normal(0)
    wide = np.hstack([first, np.zeros((R, 5))]) @ rotation(1, D + 5)
    assert compared(first, wide) == pytest.approx(ALIKE, abs=1e-9)
    assert compared(wide, first) == pytest.approx(ALIKE, abs=1e-9)


def test_spaces_that_have_nothing_to_do_with_each_other_are_at_the_null() -> None:
    found = compared(normal(1, 2000, 8), normal(2, 2000, 8))
    assert found["neighbour_overlap"] == pytest.approx(10 / 1999, abs=0.004)
    assert found["linear_cka"] < 0.02
    assert abs(found["similarity_correlation"]) < 0.02
    assert found["procrustes_residual"] > 0.97


def test_a_shuffled_partner_is_at_the_null_too() -> None:
    first = normal(1, 2000, 8)
    counted = rows.counted_rows(np.full(2000, 99), seed=3)
    assert len(counted.sample) == rows.SAMPLE_ROWS
    space = make_space(first, counted.sample)
    found = compare_spaces(space, space, rows.shuffle_rows(counted, seed=5))
    assert found["neighbour_overlap"] < 0.02
    assert found["linear_cka"] < 0.02
    assert abs(found["similarity_correlation"]) < 0.02
    assert found["procrustes_residual"] > 0.97


def test_to_shuffle_a_space_is_to_make_it_of_shuffled_rows() -> None:
    first, second = normal(1), normal(1) + 0.5 * normal(2)
    counted = rows.CountedRows(np.arange(R), np.full(R, 50), np.arange(0, R, 3))
    order = rows.shuffle_rows(counted, seed=7)
    by_order = compare_spaces(
        make_space(first, counted.sample), make_space(second, counted.sample), order
    )
    by_rows = compare_spaces(
        make_space(first, counted.sample), make_space(second[order], counted.sample)
    )
    assert by_order == pytest.approx(by_rows, abs=1e-12)


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_noise_makes_spaces_less_alike_and_scipy_agrees(noise: float) -> None:
    first = normal(0)
    second = first @ rotation(3) + noise * normal(4)
    found = compared(first, second)
    assert found["procrustes_residual"] == pytest.approx(procrustes(first, second)[2])
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (first, second)]
    sampled = [one[::2] for one in unit]
    upper = np.triu_indices(len(sampled[0]), k=1)
    expected = spearmanr(*((one @ one.T)[upper] for one in sampled)).statistic
    assert found["similarity_correlation"] == pytest.approx(expected)
    centred = [one - one.mean(axis=0) for one in (first, second)]
    kernels = [one @ one.T for one in centred]
    hsic = [[float((one * other).sum()) for other in kernels] for one in kernels]
    expected = hsic[0][1] / np.sqrt(hsic[0][0] * hsic[1][1])
    assert found["linear_cka"] == pytest.approx(expected)
    assert found == pytest.approx(compared(second, first))
    more = compared(first, first @ rotation(3) + (noise + 1) * normal(4))
    for measure, value in found.items():
        assert (more[measure] > value) == (measure == "procrustes_residual"), measure


def test_centring_is_part_of_the_linear_measures_alone() -> None:
    found = compared(normal(0), normal(0) + 5.0)
    assert found["linear_cka"] == pytest.approx(1)
    assert found["procrustes_residual"] == pytest.approx(0, abs=1e-9)
    assert found["neighbour_overlap"] < 1


def test_nearest_rows_by_hand() -> None:
    points = np.array([[1, 0], [2, 0.1], [0, 3], [-1, 0], [0, 0], [5, 5]], dtype=float)
    nearest, cosines = spaces.nearest_rows(points, np.array([0, 2]), 3)
    assert nearest.tolist() == [[1, 5, 2], [5, 1, 0]]
    assert cosines[0] == pytest.approx([2 / np.hypot(2, 0.1), np.sqrt(0.5), 0])
    assert nearest.shape == cosines.shape == (2, 3)


def test_equal_neighbours_come_in_the_order_of_rows() -> None:
    nearest, _ = spaces.nearest_rows(np.tile([1.0, 0.0], (5, 1)), np.array([2]), 4)
    assert nearest.tolist() == [[0, 1, 3, 4]]


def test_neighbours_are_those_of_all_rows_whatever_the_chunks(monkeypatch) -> None:
    points = normal(0)
    whole, _ = spaces.nearest_rows(points, np.arange(R), 5)
    monkeypatch.setattr(spaces, "_CHUNK_ROWS", 7)
    assert np.array_equal(spaces.nearest_rows(points, np.arange(R), 5)[0], whole)
    cosines = points @ points.T
    norms = np.linalg.norm(points, axis=1)
    cosines /= norms[:, None] * norms
    np.fill_diagonal(cosines, -2)
    assert np.array_equal(np.sort(whole), np.sort(np.argsort(-cosines)[:, :5]))


def test_overlap_is_the_share_in_common() -> None:
    one, other = np.array([[1, 2], [3, 4]]), np.array([[2, 9], [4, 3]])
    assert spaces.neighbour_overlap(one, other) == 0.75


def test_what_is_constant_has_no_linear_measure() -> None:
    found = compared(normal(0), np.ones((R, D)))
    assert found["linear_cka"] is None
    assert found["procrustes_residual"] is None


def test_float32_matrices_are_measured_in_float64() -> None:
    first, second = normal(0).astype(np.float32), normal(1).astype(np.float32)
    assert compared(first, second) == compared(first.astype(float), second.astype(float))
