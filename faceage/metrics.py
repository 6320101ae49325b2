"""Measures, as pure functions of numpy arrays."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def accuracy(predicted: NDArray, true: NDArray, tolerance: int = 0) -> float:
    """Share of the groups predicted right, or off by at most `tolerance` groups.

    Args:
        predicted, true: (N,) age groups.
    """
    return float((np.abs(predicted - true) <= tolerance).mean())


def mean_absolute_error(predicted: NDArray, true: NDArray) -> float:
    """Mean absolute difference, in the unit of the arguments."""
    return float(np.abs(predicted - true).mean())


def confusion(predicted: NDArray, true: NDArray, groups: int) -> NDArray[np.int64]:
    """How often each true group (row) was taken for each group (column): (groups, groups).

    Args:
        predicted, true: (N,) whole numbers from 0 to groups - 1.
    """
    counts = np.zeros((groups, groups), np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts


def masked_absolute_error(a: NDArray, b: NDArray, mask: NDArray) -> NDArray[np.float64]:
    """Mean absolute difference of each picture where its mask is on: (N,); nan where it never is.

    Args:
        a, b: (N,C,H,W), in any unit.
        mask: (N,1,H,W), true where the pixel counts.
    """
    count = mask.sum((1, 2, 3)) * a.shape[1]
    total = (np.abs(a - b) * mask).sum((1, 2, 3), dtype=np.float64)
    return np.divide(total, count, out=np.full(len(a), np.nan), where=count > 0)


def laplacian_variance(pictures: NDArray) -> NDArray[np.float64]:
    """Sharpness of each picture: variance of the 4-neighbour Laplacian of its lightness.

    Args:
        pictures: (N,H,W,3) RGB in levels of 0-255, H and W at least 3. Only pictures of one size,
            showing the same at the same scale, compare.

    Returns:
        (N,) in squared levels; the pictures' outermost pixels are left out.
    """
    grey = pictures @ np.array([0.299, 0.587, 0.114])  # N,H,W; the weights of ITU-R BT.601
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return (around - 4 * grey[:, 1:-1, 1:-1]).var((1, 2))


def bootstrap_interval(
    values: NDArray,
    statistic: Callable[[NDArray], float] = np.mean,
    share: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval: how far the statistic would move with other faces drawn.

    Args:
        values: (N,) one per face, N at least 1.
        share: of the resampled statistics that lies in the interval.
        rounds: how often N values are drawn with replacement.
    """
    random = np.random.default_rng(seed)
    count = len(values)
    drawn = [statistic(values[random.integers(0, count, count)]) for _ in range(rounds)]
    low, high = np.quantile(drawn, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
