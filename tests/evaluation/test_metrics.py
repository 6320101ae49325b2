"""Metrics, against values computed by hand."""

import numpy as np
import pytest

from faceage.evaluation.metrics import (
    bootstrap_interval,
    frechet_distance,
    interval_coverage,
    kernel_distance,
    laplacian_variance,
    masked_l1,
    rank_correlation,
    rising_fraction,
    top1_retrieval,
)
from faceage.imaging.skin import lightness, skin_colours


def test_masked_l1() -> None:
    a, b = np.zeros((3, 2, 1, 2)), np.zeros((3, 2, 1, 2))  # N,C,H,W
    b[0, 0] = [[1, 100]]  # only the first column counts, in one channel of two
    b[0, 1] = [[-3, 100]]
    b[1] = 0.5
    mask = np.array([[[[1, 0]]], [[[1, 1]]], [[[0, 0]]]], bool)
    found = masked_l1(a, b, mask)
    assert found[:2].tolist() == [2, 0.5]
    assert np.isnan(found[2])


def test_laplacian_variance() -> None:
    dot = np.zeros((5, 5, 3))
    dot[2, 2] = 10  # Laplacians: -40 once, 10 four times, 0 four times: mean 0
    ramp = np.arange(25.0).reshape(5, 5)[..., None].repeat(3, 2)
    red = dot * [1, 0, 0]
    found = laplacian_variance(np.stack([dot, ramp, red]))
    assert found == pytest.approx([2000 / 9, 0, 2000 / 9 * 0.299**2])


def test_skin_colours_are_those_of_cheeks_and_nose() -> None:
    crops = np.zeros((2, 12, 12, 3), np.uint8)
    crops[1, 6:8, 4:8] = (200, 100, 50)
    crops[1, 6, 4] = 0  # a nostril
    assert skin_colours(crops).tolist() == [[0, 0, 0], [200, 100, 50]]


def test_lightness() -> None:
    assert lightness(np.array([[0, 0, 0], [255, 255, 255], [0, 255, 0]])) == pytest.approx(
        [0, 255, 149.7], abs=0.1
    )


def test_bootstrap_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = bootstrap_interval(values)
    error = values.std() / 20  # of a mean of 400
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    assert (low, high) == bootstrap_interval(values)  # seeded
    assert (low, high) != bootstrap_interval(values, seed=1)


def test_bootstrap_interval_of_another_statistic() -> None:
    values = np.array([1.0, 1, 1, 1, 1, 1, 1, 1000])
    assert bootstrap_interval(values, statistic=np.median) == (1, 1)
    assert bootstrap_interval(np.array([7.0])) == (7, 7)


def test_bootstrap_interval_of_a_difference() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(10, 2, 400), random.normal(7, 3, 900)  # samples of different sizes

    def difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return x.mean(axis) - y.mean(axis)

    low, high = bootstrap_interval(a, b, statistic=difference)
    error = np.sqrt(a.var() / 400 + b.var() / 900)
    assert low == pytest.approx(difference(a, b) - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(difference(a, b) + 1.96 * error, abs=0.25 * error)


# --- the predicted distribution --------------------------------------------------------------


def test_interval_coverage() -> None:
    edges = np.arange(11.0)
    even, peak = np.ones(10), np.eye(10)[4] * 7  # all of it between 4 and 5
    weights = np.stack([even, even, even, peak, peak])
    true = np.array([2.5, 2.4, 7.6, 4.5, 3.9])
    inside, widths = interval_coverage(weights, edges, true, 0.5)
    assert inside.tolist() == [True, False, False, True, False]
    assert widths == pytest.approx([5, 5, 5, 0.5, 0.5])
    inside, widths = interval_coverage(weights, edges, true, 0.8)
    assert inside.tolist() == [True, True, True, True, False]
    assert widths == pytest.approx([8, 8, 8, 0.8, 0.8])
    assert interval_coverage(weights[:0], edges, true[:0], 0.5)[1].shape == (0,)


# --- identity --------------------------------------------------------------------------------


def test_top1_retrieval() -> None:
    gallery = np.array([[1, 0], [0, 1], [0.6, 0.8], [np.nan, np.nan]])
    queries = np.array([[0.8, 0.6], [0.28, 0.96], [0, 1], [np.nan, np.nan], [1, 0]])
    # Alike to the first: .8 .6 .96; .28 .96 .9; 0 1 .8.
    own = np.array([2, 2, 1, 0, 3])
    found = top1_retrieval(queries, gallery, own)
    assert found.tolist() == [True, False, True, False, False]


def test_equal_embeddings_retrieve_only_the_first() -> None:
    same = np.tile([0.6, 0.8], (5, 1))
    assert top1_retrieval(same, same, np.arange(5)).tolist() == [True, False, False, False, False]


# --- control over the age --------------------------------------------------------------------


def test_rising_fraction() -> None:
    ages = np.array([[5.0, 10, 20, 40], [5, 5, 6, 4], [9, 7, 5, 3]])
    assert rising_fraction(ages).tolist() == [1, 1 / 3, 0]


def test_rank_correlation() -> None:
    values = np.array([[1.0, 5, 7, 100], [9, 7, 5, 3], [2, 1, 3, 4], [1, 1, 2, 2], [6, 6, 6, 6]])
    found = rank_correlation(values)
    # 1 - 6 * 2 / (4 * 15) for two places swapped; ranks .5 .5 2.5 2.5 for the ties.
    assert found[:4] == pytest.approx([1, -1, 0.8, 4 / np.sqrt(20)])
    assert np.isnan(found[4])


# --- distances between sets ------------------------------------------------------------------


def test_kernel_distance_by_hand() -> None:
    a, b = np.array([[0.0], [1], [2]]), np.array([[1.0], [3]])
    # (x y + 1)^3: within a 1, 1, 27; within b 64; between 1, 1, 8, 64, 27, 343.
    expected = 29 / 3 + 64 - 2 * 444 / 6
    assert kernel_distance(a, b) == pytest.approx(expected)
    assert kernel_distance(b, a) == pytest.approx(expected)
    wide = np.array([[0.0, 2], [2, 0]])  # D = 2: x.y / 2 is 0 between the two, 2 with itself
    assert kernel_distance(wide, wide) == pytest.approx(1 + 1 - (27 + 1))


def test_kernel_distance_is_unbiased() -> None:
    random = np.random.default_rng(0)
    same = [kernel_distance(*random.normal(0, 1, (2, 20, 4))) for _ in range(400)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 20
    far = [kernel_distance(random.normal(0, 1, (20, 4)), random.normal(1, 1, (20, 4)))]
    assert far[0] > np.max(same)


def test_kernel_distance_of_subsets() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(0, 1, (300, 4)), random.normal(0.7, 1, (60, 4))
    whole = kernel_distance(a, b)
    parts = kernel_distance(a, b, subset=100)
    assert parts != whole
    assert parts == pytest.approx(whole, rel=0.1)
    assert parts == kernel_distance(a, b, subset=100)  # seeded
    assert parts != kernel_distance(a, b, subset=100, seed=1)


def test_frechet_distance_by_hand() -> None:
    a = np.array([[0.0, 0], [2, 0], [0, 4], [2, 4]])  # variances 4/3 and 16/3, no covariance
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + np.array([3, -4])) == pytest.approx(25)
    # Standard deviations s and t, which are alone along each axis: (s - t)^2.
    mean, s = np.array([1, 2]), np.sqrt([4 / 3, 16 / 3])
    assert frechet_distance(a, 3 * a) == pytest.approx(4 * (mean @ mean) + 4 * (s @ s))
    line = np.array([[0.0], [2]])  # variance 2
    assert frechet_distance(line, 2 * line) == pytest.approx(1 + 2)


def test_frechet_distance_of_turned_gaussians() -> None:
    random = np.random.default_rng(0)
    a = random.normal(0, 1, (500, 3)) * [1, 2, 3]
    b = random.normal(0, 1, (400, 3)) * [2, 1, 1] + 1
    one, two = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(one @ two).real).sum()
    shift = a.mean(0) - b.mean(0)
    expected = shift @ shift + np.trace(one) + np.trace(two) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected)
    few = random.normal(0, 1, (3, 8))  # fewer pictures than features
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
