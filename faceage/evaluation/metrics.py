"""Measures, as pure functions of numpy arrays."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from faceage.imaging.skin import lightness


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
    grey = lightness(pictures)  # N,H,W
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


def calibration(
    weights: NDArray, edges: NDArray, true: NDArray, share: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether the truth lies in the middle `share` of each predicted distribution, and its width.

    A predictor that knows how much it knows has `share` of the faces inside.

    Args:
        weights: (N,B) distributions over B bins; they need not sum to 1.
        edges: (B+1,) the bins' borders; within a bin a distribution is even.
        true: (N,) in the unit of `edges`.

    Returns:
        (N,) inside, and (N,) widths of the intervals.
    """
    sums = np.cumsum(weights, 1, dtype=np.float64)
    cumulative = np.pad(sums / sums[:, -1:], ((0, 0), (1, 0)))
    ends = [(1 - share) / 2, (1 + share) / 2]
    low, high = np.array([np.interp(ends, row, edges) for row in cumulative]).reshape(-1, 2).T
    return (low <= true) & (true <= high), high - low


def top1_retrieval(queries: NDArray, gallery: NDArray, own: NDArray) -> NDArray[np.bool_]:
    """Whether each query is more like its own entry in the gallery than like any other: (N,).

    Args:
        queries: (N,D) of unit length; rows of nan stand for faces that could not be embedded, and
            find nobody.
        gallery: (M,D) of unit length; rows of nan are found by nobody.
        own: (N,) index of each query's own entry.
    """
    alike = queries @ gallery.T  # N,M
    alike = np.where(np.isnan(alike), -np.inf, alike)
    return (alike.argmax(1) == own) & np.isfinite(alike.max(1))


def monotone_share(ages: NDArray) -> NDArray[np.float64]:
    """Share of the steps to the next target at which a face gets older: (N,).

    Args:
        ages: (N,T) judged at T targets in rising order, T at least 2. Standing still is no rise.
    """
    return (np.diff(ages, axis=1) > 0).mean(1)


def rank_correlation(values: NDArray) -> NDArray[np.float64]:
    """Spearman's correlation of each row with the order of its columns: (N,); 1 always rises.

    Args:
        values: (N,T), T at least 2; equal values share their mean rank. A row that is the same
            throughout has no order: nan.
    """
    below = (values[:, :, None] > values[:, None]).sum(2)  # N,T: how many others are smaller
    equal = (values[:, :, None] == values[:, None]).sum(2)  # itself among them
    ranks = below + (equal - 1) / 2
    order = np.arange(values.shape[1])
    ranks, order = ranks - ranks.mean(1, keepdims=True), order - order.mean()
    spread = np.sqrt((ranks**2).sum(1) * (order**2).sum())
    return np.divide(ranks @ order, spread, out=np.full(len(values), np.nan), where=spread > 0)


def kernel_distance(
    a: NDArray, b: NDArray, subset: int = 1000, rounds: int = 50, seed: int = 0
) -> float:
    """Kernel distance of two sets of features: the unbiased squared MMD with (x.y / D + 1)^3.

    On Inception's features this is KID (Binkowski et al., ICLR 2018). It is about 0 between two
    draws from the same pictures, also below 0, however few they are.

    Args:
        a: (N,D), b: (M,D), N and M at least 2.
        subset: of larger sets so many are compared at once, drawn at random.
        rounds: how often they are drawn; what comes out is the mean.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    if max(len(a), len(b)) <= subset:
        return _squared_mmd(a, b)
    drawn = [
        [x[random.permutation(len(x))[:subset]] for x in (a, b)]  # all of a set that is smaller
        for _ in range(rounds)
    ]
    return float(np.mean([_squared_mmd(x, y) for x, y in drawn]))


def frechet_distance(a: NDArray, b: NDArray) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of features.

    It grows as sets get smaller: compare only figures of equally large sets.

    Args:
        a: (N,D), b: (M,D), N and M at least 2.
    """
    one, two = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))  # D,D
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # The root of one @ two has the same trace as that of this matrix, which is symmetric.
    shared = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    shift = a.mean(0) - b.mean(0)
    return float(shift @ shift + np.trace(one) + np.trace(two) - 2 * shared)


def _squared_mmd(a: NDArray, b: NDArray) -> float:
    """Unbiased: a picture is not compared with itself."""
    own = 0.0
    for x in (a, b):
        values = _kernel(x, x)
        own += (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))
    return float(own - 2 * _kernel(a, b).mean())


def _kernel(x: NDArray, y: NDArray) -> NDArray:  # N,D and M,D -> N,M
    return (x @ y.T / x.shape[1] + 1) ** 3
