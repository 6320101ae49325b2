"""Metrics, as pure functions of numpy arrays. N is the number of faces."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceage.evaluation.common import Flags, Floats
from faceage.imaging.skin import lightness

Numbers = NDArray[Any]


def masked_l1(a: Numbers, b: Numbers, mask: Numbers) -> Floats:
    """Mean absolute difference of pictures (N,C,H,W) where a mask (N,1,H,W) is true: (N,).

    It is nan where the mask is empty.
    """
    count = mask.sum((1, 2, 3)) * a.shape[1]
    total = (np.abs(a - b) * mask).sum((1, 2, 3), dtype=np.float64)
    known = count > 0
    return np.asarray(np.divide(total, count, out=np.full(len(a), np.nan), where=known))


def laplacian_variance(pictures: Numbers) -> Floats:
    """Sharpness: (N,) variances of the 4-neighbour Laplacian of the lightness, in squared levels.

    The pictures are (N,H,W,3) RGB in levels of 0-255. Only those of one scale compare.
    """
    grey = lightness(pictures)  # N,H,W
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return np.asarray((around - 4 * grey[:, 1:-1, 1:-1]).var((1, 2)))


def bootstrap_interval(
    *samples: Numbers,
    statistic: Callable[..., Any] = np.mean,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a statistic of one or more independent samples.

    Args:
        samples: one value per face, at least one each; the sizes may differ.
        statistic: of as many arrays as there are samples, over `axis`.
        rounds: how often each sample is drawn with replacement.
    """
    random = np.random.default_rng(seed)
    drawn = [each[random.integers(0, len(each), (rounds, len(each)))] for each in samples]
    low, high = np.quantile(statistic(*drawn, axis=-1), [0.025, 0.975])
    return float(low), float(high)


def interval_coverage(
    weights: Numbers, edges: Numbers, true: Numbers, fraction: float
) -> tuple[Flags, Floats]:
    """Whether the true value is in the middle `fraction` of each distribution, and its width: (N,).

    Args:
        weights: (N,B) distributions over B bins; they need not sum to 1.
        edges: (B+1,) the bins' borders; inside a bin a distribution is uniform.
        true: (N,) in the unit of `edges`.
    """
    sums = np.cumsum(weights, 1, dtype=np.float64)
    cumulative = np.pad(sums / sums[:, -1:], ((0, 0), (1, 0)))
    ends = [(1 - fraction) / 2, (1 + fraction) / 2]
    low, high = np.array([np.interp(ends, row, edges) for row in cumulative]).reshape(-1, 2).T
    return (low <= true) & (true <= high), high - low


def top1_retrieval(queries: Floats, gallery: Floats, own: Numbers) -> Flags:
    """Whether the most similar entry of the gallery is the query's own: (N,).

    Args:
        queries: (N,D) of unit length; a row of nan (no embedding) is never retrieved.
        gallery: (M,D) of unit length; a row of nan is never the most similar.
        own: (N,) index of each query's own entry.
    """
    similarity = queries @ gallery.T  # N,M
    similarity = np.where(np.isnan(similarity), -np.inf, similarity)
    return np.asarray((similarity.argmax(1) == own) & np.isfinite(similarity.max(1)))


def rising_fraction(values: Floats) -> Floats:
    """Fraction of the steps from column to column at which a row rises: (N,) of (N,T), T >= 2."""
    return np.asarray((np.diff(values, axis=1) > 0).mean(1))


def rank_correlation(values: Floats) -> Floats:
    """Spearman's correlation of each row with the order of its columns: (N,) of (N,T), T >= 2.

    Equal values have their mean rank; a constant row gives nan.
    """
    below = (values[:, :, None] > values[:, None]).sum(2)  # N,T: how many others are smaller
    equal = (values[:, :, None] == values[:, None]).sum(2)  # with itself
    ranks = below + (equal - 1) / 2
    order = np.arange(values.shape[1])
    ranks, order = ranks - ranks.mean(1, keepdims=True), order - order.mean()
    spread = np.sqrt((ranks**2).sum(1) * (order**2).sum())
    result: Floats = np.full(len(values), np.nan)
    return np.asarray(np.divide(ranks @ order, spread, out=result, where=spread > 0))


def kernel_distance(
    a: Floats, b: Floats, subset: int = 1000, rounds: int = 50, seed: int = 0
) -> float:
    """Kernel distance of two sets of features: the unbiased squared MMD with (x.y / D + 1)^3.

    On Inception's features this is KID (Binkowski et al., ICLR 2018). Its expectation is 0 for two
    samples of one distribution, whatever their size; a value may be negative.

    Args:
        a: (N,D), b: (M,D), N and M at least 2.
        subset: larger sets are compared by the mean over `rounds` random subsets of this size.
    """
    random = np.random.default_rng(seed)
    if max(len(a), len(b)) <= subset:
        return _squared_mmd(a, b)
    drawn = [
        [x[random.permutation(len(x))[:subset]] for x in (a, b)]  # a smaller set: all of it
        for _ in range(rounds)
    ]
    return float(np.mean([_squared_mmd(x, y) for x, y in drawn]))


def frechet_distance(a: Floats, b: Floats) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of features, (N,D) and (M,D).

    On Inception's features this is FID (Heusel et al., NeurIPS 2017). It is biased upwards for
    small sets: compare only values of equally large sets.
    """
    one, two = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))  # D,D
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # This matrix is symmetric, and the trace of its root is that of the root of one @ two.
    shared = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    shift = a.mean(0) - b.mean(0)
    return float(shift @ shift + np.trace(one) + np.trace(two) - 2 * shared)


def _squared_mmd(a: Floats, b: Floats) -> float:
    """Unbiased: no picture is compared with itself."""
    own = 0.0
    for x in (a, b):
        values = _kernel(x, x)
        own += (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))
    return float(own - 2 * _kernel(a, b).mean())


def _kernel(x: Floats, y: Floats) -> Floats:  # N,D and M,D -> N,M
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)
