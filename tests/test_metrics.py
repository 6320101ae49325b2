"""Measures, against figures worked out by hand."""

import numpy as np
import pytest

from faceage.metrics import (
    accuracy,
    bootstrap_interval,
    confusion,
    laplacian_variance,
    masked_absolute_error,
    mean_absolute_error,
)


def test_accuracy() -> None:
    predicted, true = np.array([0, 5, 9, 3]), np.array([0, 6, 7, 3])
    assert accuracy(predicted, true) == 0.5
    assert accuracy(predicted, true, tolerance=1) == 0.75
    assert accuracy(predicted, true, tolerance=2) == 1


def test_mean_absolute_error() -> None:
    assert mean_absolute_error(np.array([10.0, 20, 30]), np.array([13.0, 19, 30])) == 4 / 3


def test_confusion_has_the_truth_in_rows() -> None:
    counts = confusion(np.array([1, 1, 0, 2]), np.array([0, 1, 0, 2]), groups=4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_masked_absolute_error() -> None:
    a, b = np.zeros((3, 2, 1, 2)), np.zeros((3, 2, 1, 2))  # N,C,H,W
    b[0, 0] = [[1, 100]]  # only the first column counts, in one channel of two
    b[0, 1] = [[-3, 100]]
    b[1] = 0.5
    mask = np.array([[[[1, 0]]], [[[1, 1]]], [[[0, 0]]]], bool)
    found = masked_absolute_error(a, b, mask)
    assert found[:2].tolist() == [2, 0.5]
    assert np.isnan(found[2])


def test_laplacian_variance() -> None:
    dot = np.zeros((5, 5, 3))
    dot[2, 2] = 10  # Laplacians: -40 once, 10 four times, 0 four times: mean 0
    ramp = np.arange(25.0).reshape(5, 5)[..., None].repeat(3, 2)
    red = dot * [1, 0, 0]
    found = laplacian_variance(np.stack([dot, ramp, red]))
    assert found == pytest.approx([2000 / 9, 0, 2000 / 9 * 0.299**2])


def test_bootstrap_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = bootstrap_interval(values)
    error = values.std() / 20  # of a mean of 400
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    assert (low, high) == bootstrap_interval(values)  # seeded
    assert (low, high) != bootstrap_interval(values, seed=1)
    narrow = bootstrap_interval(values, share=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_interval_of_another_statistic() -> None:
    values = np.array([1.0, 1, 1, 1, 1, 1, 1, 1000])
    assert bootstrap_interval(values, np.median) == (1, 1)
    assert bootstrap_interval(np.array([7.0])) == (7, 7)
