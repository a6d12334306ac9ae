"""The shape of a space, on matrices whose answer is known."""

import numpy as np
import pytest

from tyro_cli.evaluation.probes import shape


def normal(seed: int, num_rows: int = 400, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, width))


def orthonormal(num_rows: int, width: int) -> np.ndarray:
    return np.linalg.qr(normal(0, num_rows, width))[0]


def test_an_identity_spectrum_has_the_full_effective_rank() -> None:
    assert shape.effective_rank(orthonormal(50, 8)) == pytest.approx(8)
    assert shape.effective_rank(3.0 * np.eye(6)) == pytest.approx(6)


def test_rows_on_a_line_have_an_effective_rank_of_one() -> None:
    line = np.outer(np.arange(1.0, 30.0), [1.0, 2.0, 2.0])
    assert shape.effective_rank(line) == pytest.approx(1)


def test_effective_rank_by_hand() -> None:
    # Shares 3/4 and 1/4 of the singular values.
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert shape.effective_rank(np.diag([3.0, 1.0, 0.0])) == pytest.approx(expected)


def test_mean_cosine_is_that_of_all_pairs() -> None:
    points = normal(1, 30) + 0.4
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(30, k=1)]
    assert shape.mean_cosine(points) == pytest.approx(cosines.mean())
    assert shape.mean_cosine(np.ones((4, 3))) == pytest.approx(1)
    assert shape.mean_cosine(np.array([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-1)
    assert shape.mean_cosine(np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 0.0]])) == pytest.approx(1 / 3)


def test_an_isotropic_space_has_a_partition_ratio_near_one() -> None:
    directions = np.vstack([np.eye(6), -np.eye(6)])
    assert shape.partition_ratio(directions) == pytest.approx(1)
    assert shape.partition_ratio(normal(2, 20_000)) > 0.98


def test_one_direction_alone_gives_exp_minus_two() -> None:
    assert shape.partition_ratio(np.tile([0.0, 5.0, 0.0], (9, 1))) == pytest.approx(np.exp(-2))


def test_a_partition_ratio_by_hand() -> None:
    # Norm 1 each; along the first axis Z = 3e, against it 3/e, along the second 3.
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert shape.partition_ratio(rows) == pytest.approx(np.exp(-1) / np.exp(1))
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    sums = [2 * np.e + 1, 2 / np.e + 1, 2 + np.e, 2 + 1 / np.e]
    assert shape.partition_ratio(rows) == pytest.approx(min(sums) / max(sums))


def test_one_long_row_does_not_overflow() -> None:
    rows = np.zeros((10**6, 1))
    rows[0] = 1.0
    assert shape.partition_ratio(rows) == pytest.approx(0, abs=1e-300)


@pytest.mark.parametrize("scale", [0.02, 1.0, 50.0])
def test_only_the_norm_changes_with_the_scale(scale: float) -> None:
    points, counts = normal(3) + 0.2, np.arange(10, 410)
    turned = points @ np.linalg.qr(normal(4, 8, 8))[0]
    one, other = shape.shape_measures(points, counts), shape.shape_measures(scale * turned, counts)
    assert other.pop("mean_norm") == pytest.approx(scale * one.pop("mean_norm"))
    assert other == pytest.approx(one)
    assert list(one) == [
        "mean_cosine",
        "partition_ratio",
        "effective_rank",
        "norm_frequency_correlation",
        "norm_frequency_slope",
    ]


def test_norms_that_follow_the_logarithm_of_the_count() -> None:
    counts = np.array([10, 100, 1000, 10_000])
    directions = orthonormal(4, 4)
    rising = directions * np.array([1.0, 2.0, 3.0, 4.0])[:, None]
    assert shape.norm_by_frequency(rising, counts) == pytest.approx((1, 1 / 2.5))
    assert shape.norm_by_frequency(rising[::-1], counts) == pytest.approx((-1, -1 / 2.5))
    correlation, slope = shape.norm_by_frequency(normal(5), np.arange(1, 401))
    assert abs(correlation) < 0.15
    assert abs(slope) < 0.1


def test_what_is_not_defined_is_none() -> None:
    assert shape.norm_by_frequency(normal(6, 5), np.full(5, 33)) == (None, None)
    assert shape.norm_by_frequency(np.zeros((3, 2)), np.array([10, 20, 30])) == (None, None)
    assert shape.norm_by_frequency(np.ones((3, 2)), np.array([10, 20, 30])) == (None, 0.0)
    assert shape.partition_ratio(np.zeros((3, 2))) is None
    assert shape.effective_rank(np.zeros((3, 2))) is None
