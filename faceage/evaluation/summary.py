"""From values per face (`measure`) to the estimates of a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from faceage.ages import GROUP_NAMES, GROUPS, MIN_AGE, YEARS
from faceage.distributions import nearest_group, summarize_distribution
from faceage.evaluation import metrics
from faceage.evaluation.common import Flags, Floats, Indices, Inputs
from faceage.evaluation.measure import Arrays
from faceage.evaluation.results import (
    RANGES,
    AgeRange,
    AgeResult,
    Estimate,
    MethodResult,
    RangeResult,
    Scores,
    TargetResult,
)
from faceage.models.identity import GENDER_AGE, fit_gender

ADULT = 15.0  # years from which on a face is compared with its identity at other ages
IDENTITY_TARGETS = (10.0, 30.0, 50.0, 70.0)  # years, of the score of identity
NEAR = 3.0  # years between a target and the labels of the real faces it is compared with

_EDGES = np.arange(YEARS + 1) + MIN_AGE - 0.5  # year k reaches from k - .5 to k + .5
_FOLDS = 10  # sets of faces, each of whose genders is estimated from the others
_LEAST = 50  # women, and men, that an estimate of gender needs
_HALVES = 200  # pairs of half sets that give the interval of a distance

Values = dict[str, Floats]  # one value per face, by the field of a result


@dataclass(frozen=True, eq=False)
class AgedResults:
    """Values of N faces that one method has aged, and of the M real faces of `inputs`."""

    arrays: Arrays  # from `Measurer.aged`
    targets: Sequence[float]  # all, in years
    sweep: Sequence[float]  # those of age control
    own: Indices  # (N,) of each face among the real ones
    real: Arrays  # from `Measurer.unchanged`
    inputs: Inputs

    def errors(self) -> Floats | None:
        """Predicted age minus target at each target of the sweep, (N,T); None if unknown."""
        if not self.sweep or ("predicted_age", self.sweep[0]) not in self.arrays:
            return None
        predicted = [self.arrays["predicted_age", target] for target in self.sweep]
        return np.asarray(np.stack(predicted, 1) - np.array(self.sweep))

    def identity(self, target: float) -> Values:
        """Whether each adult is retrieved, and the similarity to the input; nan for children."""
        if (queries := self.arrays.get(("embedding", target))) is None:
            return {}
        gallery = self.real["embedding"]
        similarity = (queries * gallery[self.own]).sum(1)
        similarity = np.where(self.inputs.ages[self.own] >= ADULT, similarity, np.nan)
        found = metrics.top1_retrieval(queries, gallery, self.own)
        return {"top1": np.where(np.isnan(similarity), np.nan, found), "similarity": similarity}

    def gender_kept(self, target: float) -> Floats | None:
        """Whether each face still shows its gender, (N,); None for children, or if unknown.

        nan for children, and where the unchanged face does not show its labelled gender.
        """
        queries, inputs, own = self.arrays.get(("embedding", target)), self.inputs, self.own
        if queries is None or target < GENDER_AGE or self._gender_estimates is None:
            return None
        weights = self._gender_estimates[own % _FOLDS]  # N,D + 1
        before, after = (
            (rows * weights[:, :-1]).sum(1) + weights[:, -1]
            for rows in (self.real["embedding"][own], queries)
        )
        sign = np.where(inputs.genders[own] == "M", 1.0, -1.0)
        shown = _show_gender(inputs)[own] & (before * sign > 0) & np.isfinite(after)
        return np.where(shown, after * sign > 0, np.nan)

    @cached_property
    def _gender_estimates(self) -> Floats | None:
        """Estimates of gender, (F,D + 1), each fitted to real faces without one of F folds.

        A face is in the fold of its index modulo F. None if there are too few women or men.
        """
        embeddings, male = self.real["embedding"], self.inputs.genders == "M"
        known = _show_gender(self.inputs) & np.isfinite(embeddings).all(1)
        if min((known & male).sum(), (known & ~male).sum()) < _LEAST:
            return None
        folds = np.arange(len(known)) % _FOLDS
        used = [known & (folds != fold) for fold in range(_FOLDS)]
        x, y = torch.from_numpy(embeddings), torch.from_numpy(male)
        return np.stack([fit_gender(x[part], y[part]).numpy() for part in used])

    def scores(self) -> Values:
        """The values of the scores about aged faces, (N,)."""
        differences = ("reconstruction_l1", "reconstruction_lpips", "cycle_l1", "cycle_lpips")
        values = {name: self.arrays[name] for name in differences if name in self.arrays}
        reached = [(s, self.arrays.get(("predicted_age", s.target))) for s in RANGES]
        columns = {
            "in_range": [contain(span, ages) for span, ages in reached if ages is not None],
            "top1": [pair["top1"] for t in IDENTITY_TARGETS if (pair := self.identity(t))],
            "gender": [kept for t in self.sweep if (kept := self.gender_kept(t)) is not None],
        }
        if (errors := self.errors()) is not None:
            columns["control_mae"] = list(np.abs(errors).T)
            complete, ages = np.isfinite(errors).all(1), errors + np.array(self.sweep)
            if len(self.sweep) > 1:
                rank = metrics.rank_correlation(ages)
                values["rising"] = np.where(complete, metrics.rising_fraction(ages), np.nan)
                values["rank_correlation"] = np.where(complete, rank, np.nan)
        return values | {name: _row_means(np.stack(v, 1)) for name, v in columns.items() if v}


class Summarizer:
    """Makes results of values without nan; all bootstrap samples are of one seed."""

    def __init__(self, inputs: Inputs, seed: int) -> None:
        self.inputs, self.seed = inputs, seed
        self.groups = {name: inputs.groups == group for group, name in enumerate(GROUP_NAMES)}

    def mean(self, *values: Any, statistic: Callable[..., Any] = np.mean) -> Estimate | None:
        """The mean, or another statistic of one or more samples; None for an empty sample."""
        samples = [_finite(np.asarray(each, np.float64)) for each in values]
        if not (count := min(map(len, samples))):
            return None
        ends = metrics.bootstrap_interval(*samples, statistic=statistic, seed=self.seed)
        return _estimate(statistic(*samples, axis=-1), ends, count)

    def means(self, values: Mapping[str, Floats], here: Any = np.s_[:]) -> dict[str, Any]:
        """The mean of each, of the faces that `here` selects."""
        return {name: self.mean(each[here]) for name, each in values.items()}

    def kernel(self, a: Floats, b: Floats) -> Estimate | None:
        """Kernel distance of two sets of features; its interval is that of half sets.

        The bootstrap draws faces repeatedly, which would make sets more similar than they are.
        """
        if min(len(a), len(b)) < 4:
            return None
        random, drawn = np.random.default_rng(self.seed), []
        for _ in range(_HALVES):
            halves = [x[random.permutation(len(x))[: len(x) // 2]] for x in (a, b)]
            drawn.append(metrics.kernel_distance(halves[0], halves[1], rounds=1))
        low, high = np.quantile(drawn, [0.025, 0.975])
        return _estimate(metrics.kernel_distance(a, b, seed=self.seed), (low, high), len(a))

    def estimation(
        self, years: Floats, degraded: Mapping[Any, Floats], chosen: Indices
    ) -> tuple[Values, dict[str, Any]]:
        """Age estimation: the values of the scores, and the fields of a `MethodResult`.

        Args:
            years: (N,101) distributions over whole years, of all inputs.
            degraded: (M,101) the same of degraded faces, by the name of the degradation.
            chosen: (M,) of the inputs: the degraded ones.
        """
        every = np.arange(len(self.inputs))
        values, groups = self._compare(years, every)
        parts = {"50 %": 0.5, "80 %": 0.8, "90 %": 0.9}
        intervals = {name: self._compare(years, every, part)[0] for name, part in parts.items()}
        robustness = {name: self._compare(part, chosen)[0] for name, part in degraded.items()}
        pairs = groups + GROUPS * self.inputs.groups
        counts = np.bincount(pairs, minlength=GROUPS**2).reshape(GROUPS, GROUPS)
        scores = {name: values[name] for name in ("accuracy", "within_one_group", "mae")}
        scores["oldest_bias"] = np.where(self.groups["70+"], values["bias"], np.nan)
        return scores, {
            "groups": tuple(AgeResult(k, **self.means(values, g)) for k, g in self.groups.items()),
            "confusion": tuple(map(tuple, counts.tolist())),
            "intervals": tuple(AgeResult(k, **self.means(v)) for k, v in intervals.items()),
            "robustness": tuple(AgeResult(k, **self.means(v)) for k, v in robustness.items()),
        }

    def _compare(
        self, years: Floats, chosen: Indices, fraction: float = 0.8
    ) -> tuple[Values, Indices]:
        """The values of an `AgeResult`, nan where they need an exact label; predicted groups."""
        ages, labels = np.array([summarize_distribution(row)[0] for row in years]), self.inputs.ages
        groups = np.array([nearest_group(age) for age in ages])
        distance, bias = np.abs(groups - self.inputs.groups[chosen]), ages - labels[chosen]
        inside, width = metrics.interval_coverage(years, _EDGES, labels[chosen], fraction)
        values = {"mae": np.abs(bias), "bias": bias, "coverage": inside, "width": width}
        exact = self.inputs.exact[chosen]
        values = {name: np.where(exact, each, np.nan) for name, each in values.items()}
        return {"accuracy": distance == 0, "within_one_group": distance <= 1, **values}, groups

    def real(self, predicted: Floats) -> tuple[tuple[AgeResult, ...], tuple[RangeResult, ...]]:
        """The age evaluator's own error on real faces, and how many it predicts in their range."""
        labels, exact = self.inputs.ages, self.inputs.exact
        error = predicted - labels
        values = {"label": labels, "predicted": predicted, "bias": error, "mae": np.abs(error)}
        rows = {**self.groups, "all": exact}.items()
        inside = {s: contain(s, predicted)[contain(s, labels) == 1] for s in RANGES}
        groups = tuple(AgeResult(name, **self.means(values, here & exact)) for name, here in rows)
        return groups, tuple(RangeResult(s.name, self.mean(each)) for s, each in inside.items())

    def aged(self, aged: AgedResults, estimation: Values, **fields: Any) -> MethodResult:
        """All results of a method; `fields` are those of the result that are known already."""
        scores, genders, values = {}, self.inputs.genders, aged.scores()
        for gender in ("", "F", "M"):
            here = (genders == gender) | (gender == "")
            if here.any():
                means = self.means(estimation, here) | self.means(values, here[aged.own])
                scores[gender] = Scores(**means)
        rows = [self._range(aged, span) for span in RANGES]
        targets = tuple(self._target(aged, target) for target in aged.targets)
        means = {}
        for name in ("kernel_distance", "crop_kernel_distance", "frechet_distance", "kid", "fid"):
            known = [each.value for row in rows if (each := getattr(row, name))]
            means[name] = _estimate(np.mean(known)) if len(known) == len(rows) else None
        ranges = (*rows, RangeResult("mean", **means))
        overall = scores.pop("")
        return MethodResult(
            scores=overall, genders=scores, ranges=ranges, targets=targets, **fields
        )

    def _range(self, aged: AgedResults, span: AgeRange) -> RangeResult:
        # A face of this range already would be compared with its own picture among the real ones.
        real = contain(span, self.inputs.ages) == 1
        others, found = ~real[aged.own], dict[str, Any]()
        for features, kernel, frechet in (
            ("features", "kernel_distance", "frechet_distance"),
            ("crop_features", "crop_kernel_distance", ""),
            ("inception", "kid", "fid"),
        ):
            if (made := aged.arrays.get((features, span.target))) is not None:
                sets = _finite(made[others]), _finite(aged.real[features][real])
                found[kernel] = self.kernel(*sets)
                if frechet and found[kernel]:
                    distance = metrics.frechet_distance(*sets)
                    found[frechet] = _estimate(distance, count=len(sets[0]))
        if (ages := aged.arrays.get(("predicted_age", span.target))) is not None:
            found |= self.means({"predicted_age": ages, "in_range": contain(span, ages)})
        return RangeResult(span.name, **found)

    def _target(self, aged: AgedResults, target: float) -> TargetResult:
        found = self.means(aged.identity(target))
        if (kept := aged.gender_kept(target)) is not None:
            genders = self.inputs.genders[aged.own]
            found["women"] = self.mean(kept[genders == "F"])
            found["men"] = self.mean(kept[genders == "M"])
        if (ages := aged.arrays.get(("predicted_age", target))) is not None:
            real = aged.real["predicted_age"][np.abs(self.inputs.ages - target) <= NEAR]
            values = {"predicted_age": ages, "mae": np.abs(ages - target), "real_age": real}
            found |= self.means(values)
            found["bias"] = self.mean(
                ages, real, statistic=lambda a, b, axis: a.mean(axis) - b.mean(axis)
            )
        before, after = aged.arrays["sharpness"], aged.arrays["sharpness", target]
        detailed = np.isfinite(after) & (before > 0)  # the ratio of a flat picture is undefined
        medians = {
            "sharpness_before": before[np.isfinite(after)],
            "sharpness_after": after,
            "sharpness_ratio": after[detailed] / before[detailed],
        }
        skin = aged.arrays["skin"]
        lighter, (dark, light) = aged.arrays["skin", target] - skin, np.quantile(skin, (0.2, 0.8))
        found |= {name: self.mean(each, statistic=np.median) for name, each in medians.items()}
        found["skin_darkest"] = self.mean(lighter[skin <= dark])
        found["skin_lightest"] = self.mean(lighter[skin >= light])
        return TargetResult(target, **found)


def contain(span: AgeRange, ages: Floats) -> Floats:
    """1 where an age (its nearest whole year) is in the range, 0 where not, nan for nan."""
    whole = np.floor(ages + 0.5)
    return np.where(np.isnan(whole), np.nan, (whole >= span.low) & (whole < span.high))


def _show_gender(inputs: Inputs) -> Flags:
    """Which faces are old enough to show a gender, and have one in their labels."""
    return np.isin(inputs.genders, ("F", "M")) & (inputs.ages >= GENDER_AGE)


def _row_means(values: Floats) -> Floats:  # N,T -> (N,)
    """The mean of each row without nan; nan where it has nothing else."""
    known = np.isfinite(values)
    count, total = known.sum(1), np.where(known, values, 0).sum(1)
    means: Floats = np.full(len(values), np.nan)
    return np.asarray(np.divide(total, count, out=means, where=count > 0))


def _finite(values: Floats) -> Floats:
    """The rows without nan."""
    return values[np.isfinite(values).all(tuple(range(1, values.ndim)))]


def _estimate(
    value: Any, ends: tuple[float, float] | None = None, count: int | None = None
) -> Estimate:
    low, high = (round(float(end), 5) for end in ends) if ends else (None, None)
    return Estimate(round(float(value), 5), low, high, count)
