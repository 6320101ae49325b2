"""Age, interval and age group of a predicted distribution over years."""

import math

import numpy as np

from faceage.ages import GROUP_NAMES, MAX_AGE, MIN_AGE, YEARS, group_of


def summarize_distribution(years: np.ndarray) -> tuple[float, tuple[float, float], np.ndarray]:
    """Age, interval and group probabilities of a distribution over years (101,).

    The age is the median, which minimises the expected absolute error; the interval holds the
    middle 80 %. The ten group probabilities sum to 1.
    """
    years = years / years.sum()
    sums = np.zeros(len(GROUP_NAMES))
    np.add.at(sums, [group_of(year) for year in range(MIN_AGE, MAX_AGE + 1)], years)
    low, age, high = _quantiles(years, 0.1, 0.5, 0.9)
    return age, (low, high), sums


def nearest_group(age: float) -> int:
    """The group of a predicted age: that of the nearest whole year, as labels are whole years."""
    return group_of(math.floor(age + 0.5))


def _quantiles(years: np.ndarray, *levels: float) -> list[float]:
    """Quantiles in years; the probability of year k is spread evenly from k-0.5 to k+0.5."""
    cumulative = np.concatenate([[0], np.cumsum(years) / years.sum()])
    edges = np.arange(YEARS + 1) + MIN_AGE - 0.5
    return [float(np.clip(np.interp(q, cumulative, edges), MIN_AGE, MAX_AGE)) for q in levels]
