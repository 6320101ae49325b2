"""The report's figures: how they are made, and those of faces as they are.

A figure is a mean (or median) over faces with its 95 % bootstrap interval: {"value", "low", "high",
"count"}; None where there is no face to measure, or no judge to measure with.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceage.ages import GROUP_NAMES, GROUPS, MIN_AGE, YEARS
from faceage.evaluation import metrics
from faceage.evaluation.inputs import Inputs
from faceage.models.tta import nearest_group, summarize_distribution

Figure = dict[str, float] | None

SHARES = (0.5, 0.8, 0.9)  # of the predicted distributions, whose calibration is measured
HALVES = 200  # so many pairs of half sets tell how far a distance between sets would move

_EDGES = np.arange(YEARS + 1) + MIN_AGE - 0.5  # year k reaches from k - .5 to k + .5


@dataclass(frozen=True)
class Band:
    """A range of ages that faces are sent to, as in the paper's Table 3.

    Attributes:
        name: "0-14".
        target: the years they are sent to.
        low, high: whole years from `low` on and below `high`; None has no end.
    """

    name: str
    target: float
    low: int
    high: int | None

    def holds(self, ages: NDArray) -> NDArray:
        """1 where an age (its nearest whole year) is in the band, 0 where not, nan for nan."""
        whole = np.floor(np.asarray(ages, float) + 0.5)
        inside = (whole >= self.low) & (whole < (self.high or np.inf))
        return np.where(np.isnan(whole), np.nan, inside)

    def row(self) -> dict[str, Any]:
        """Itself as json takes it."""
        return asdict(self)


BANDS = (
    Band("0-14", 7.0, 0, 15),
    Band("15-19", 17.0, 15, 20),
    Band("20-39", 30.0, 20, 40),
    Band("40-49", 45.0, 40, 50),
    Band("50+", 65.0, 50, None),
)


class Figures:
    """Makes figures, all with bootstrap samples of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def of(self, values: NDArray | None, statistic: Callable[[NDArray], float] = np.mean) -> Figure:
        """A statistic over faces with its interval; None where there are none. nan is left out."""
        if values is None:
            return None
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = metrics.bootstrap_interval(values, statistic, seed=self.seed)
        return _figure(statistic(values), low, high, len(values))

    def kernel(self, a: NDArray, b: NDArray) -> Figure:
        """Kernel distance of two sets of features. Its interval comes from half sets.

        Drawing faces twice, as the bootstrap does, would make sets look more alike than they are;
        and half of the faces, drawn without repeats, move a mean as much as another draw would.
        """
        if min(len(a), len(b)) < 4:
            return None
        random = np.random.default_rng(self.seed)

        def half(faces: NDArray) -> NDArray:
            return faces[random.permutation(len(faces))[: len(faces) // 2]]

        drawn = [metrics.kernel_distance(half(a), half(b), rounds=1) for _ in range(HALVES)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        return _figure(metrics.kernel_distance(a, b, seed=self.seed), low, high, len(a))


def classification(
    years: NDArray, inputs: Inputs, figures: Figures
) -> tuple[dict[str, Any], dict[str, dict[str, Figure]]]:
    """How well ages are told; and the main figures by gender.

    Args:
        years: (N,101) distributions over whole years, of all inputs.
    """
    ages = np.array([summarize_distribution(row)[0] for row in years])
    told, true, exact = np.array([nearest_group(age) for age in ages]), inputs.groups, inputs.exact
    right, errors = told == true, np.where(exact, np.abs(ages - inputs.ages), np.nan)
    calibration = []
    for share in SHARES:
        inside, width = metrics.calibration(years[exact], _EDGES, inputs.ages[exact], share)
        calibration.append(
            {"share": share, "inside": figures.of(inside), "width": figures.of(width)}
        )
    by_gender = {
        gender: {"accuracy": figures.of(right[here]), "mae": figures.of(errors[here])}
        for gender, here in genders(inputs.genders).items()
    }
    return {
        "accuracy": figures.of(right),
        "within_one_group": figures.of(np.abs(told - true) <= 1),
        "mae": figures.of(errors),
        "recall": {
            name: figures.of(right[true == group]) for group, name in enumerate(GROUP_NAMES)
        },
        "confusion": metrics.confusion(told, true, GROUPS).tolist(),
        "calibration": calibration,
    }, by_gender


def judged_unchanged(judged: NDArray, inputs: Inputs, figures: Figures) -> dict[str, Any]:
    """How far the judge of ages is from the labels: what it says of aged faces is no better."""

    def row(here: NDArray) -> dict[str, Figure]:
        label, said = inputs.ages[here], judged[here]
        return {
            "label": figures.of(label),
            "judged": figures.of(said),
            "mae": figures.of(np.abs(said - label)),
        }

    exact, groups = inputs.exact, inputs.groups
    return {
        "all": row(exact),
        "groups": {name: row(exact & (groups == g)) for g, name in enumerate(GROUP_NAMES)},
        "bands": {
            band.name: figures.of(band.holds(judged)[band.holds(inputs.ages) == 1])
            for band in BANDS
        },
    }


def genders(labels: NDArray) -> dict[str, NDArray]:
    """Which faces, (N,) bool, are of each gender that there are any of."""
    found = {gender: labels == gender for gender in ("M", "F")}
    return {gender: here for gender, here in found.items() if here.any()}


def _figure(value: float, low: float, high: float, count: int) -> Figure:
    return {
        "value": rounded(value),
        "low": rounded(low),
        "high": rounded(high),
        "count": count,
    }


def rounded(value: float) -> float:
    return round(float(value), 5)
