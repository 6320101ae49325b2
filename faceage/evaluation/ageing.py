"""The report's figures of aged faces, from what was measured of each face (`measure`)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceage.evaluation import metrics
from faceage.evaluation.figures import BANDS, Figure, Figures, genders, rounded
from faceage.evaluation.measure import Arrays, Plan

ADULT = 15  # years from which on a face is sent to other ages to see whether it is still found


@dataclass(frozen=True, eq=False)
class Sent:
    """Faces that were sent to other ages, and what there is to compare them with.

    Attributes:
        arrays: what was measured of them, from `Measurer.aged`.
        plan: where they were sent.
        ages, genders: (N,) their own; nan and "" where unknown.
        adult: (N,) bool, old enough to be recognised at other ages.
        own: (N,) the places of their own unchanged faces in `gallery`.
        gallery: (M,D) embeddings of unchanged faces, or None.
        real: (M,F) what real faces look like, or None.
        real_ages: (M,) years.
    """

    arrays: Arrays
    plan: Plan
    ages: NDArray
    genders: NDArray
    adult: NDArray
    own: NDArray
    gallery: NDArray | None
    real: NDArray | None
    real_ages: NDArray

    def column(self, name: str, target: float) -> NDArray | None:
        """What was measured at a target, (N,) or (N,D); None if nothing was."""
        at = {"embedding": self.plan.identity, "looks": self.plan.looks}
        columns = sorted(at.get(name, self.plan.targets))
        if name not in self.arrays or target not in columns:
            return None
        return self.arrays[name][:, columns.index(target)]

    def errors(self) -> NDArray | None:
        """How far the judged ages are from the plan's ages, (N,T) years; None without a judge."""
        if "judged" not in self.arrays or not self.plan.ages:
            return None
        columns = [self.plan.targets.index(target) for target in self.plan.ages]
        return np.abs(self.arrays["judged"][:, columns] - np.array(self.plan.ages))


def ageing(sent: Sent, figures: Figures) -> dict[str, Any]:
    """All figures of aged faces: a system's part of the report, without `classification`."""
    arrays = sent.arrays
    in_band, bands = _bands(sent, figures)
    error, control = _control(sent, figures)
    found, identity = _identity(sent, figures)
    kernels = [row["kernel"]["value"] for row in bands if row["kernel"]]
    by_gender = {
        gender: {
            "reconstruction_l1": figures.of(_rows(arrays.get("own_l1"), here)),
            "control_error": figures.of(_rows(error, here)),
            "judged_in_band": figures.of(_rows(in_band, here)),
            "top1": figures.of(_rows(found, here)),
        }
        for gender, here in genders(sent.genders).items()
    }
    return {
        "reconstruction": _kept(arrays, "own", figures),
        "cycle": _kept(arrays, "back", figures),
        "bands": bands,
        "kernel_mean": rounded(np.mean(kernels)) if len(kernels) == len(BANDS) else None,
        "control": control,
        "identity": identity,
        "sharpness": _sharpness(sent, figures),
        "skin": _skin(sent, figures),
        "by_gender": by_gender,
    }


def _kept(arrays: Arrays, name: str, figures: Figures) -> dict[str, Figure] | None:
    l1, lpips = (figures.of(arrays.get(f"{name}_{kind}")) for kind in ("l1", "lpips"))
    return {"l1": l1, "lpips": lpips} if l1 else None


def _bands(sent: Sent, figures: Figures) -> tuple[NDArray | None, list[dict[str, Any]]]:
    """Each face's share of bands it is judged to have reached, (N,); and the bands' rows."""
    reached, rows = [], []
    for band in BANDS:
        judged, looks = sent.column("judged", band.target), sent.column("looks", band.target)
        inside = None if judged is None else band.holds(judged)
        reached += [] if inside is None else [inside]
        kernel = frechet = None
        if looks is not None and sent.real is not None:
            # Who is of this age already would be compared with his own picture among the real ones.
            aged = _finite(looks[band.holds(sent.ages) != 1])
            real = _finite(sent.real[band.holds(sent.real_ages) == 1])
            kernel = figures.kernel(aged, real)
            if kernel:
                frechet = {
                    "value": rounded(metrics.frechet_distance(aged, real)),
                    "count": len(aged),
                }
        rows.append(
            {
                "band": band.name,
                "target": band.target,
                "judged_in_band": figures.of(inside),
                "judged_age": figures.of(judged),
                "kernel": kernel,
                "frechet": frechet,
            }
        )
    return _mean(np.stack(reached, 1)) if reached else None, rows


def _control(sent: Sent, figures: Figures) -> tuple[NDArray | None, dict[str, Any] | None]:
    """How far each face is from its targets, (N,) years; and the fine sweep."""
    errors = sent.errors()
    if errors is None or not np.isfinite(errors).any():
        return None, None
    rows: list[dict[str, Any]] = []
    columns: list[NDArray] = []
    for target, off in zip(sent.plan.ages, errors.T, strict=True):
        judged = sent.column("judged", target)
        assert judged is not None  # or there would be no errors
        columns.append(judged)
        rows.append(
            {
                "target": target,
                "judged_age": figures.of(judged),
                "judged_error": figures.of(off),
            }
        )
    rising = _finite(np.stack(columns, 1)) if len(columns) > 1 else None  # whom no target lacks
    error = _mean(errors)
    return error, {
        "targets": rows,
        "error": figures.of(error),
        "monotone": None if rising is None else figures.of(metrics.monotone_share(rising)),
        "rank_correlation": None
        if rising is None
        else figures.of(metrics.rank_correlation(rising)),
    }


def _identity(sent: Sent, figures: Figures) -> tuple[NDArray | None, dict[str, Any] | None]:
    """Each face's share of targets at which it is still found, (N,); and the figures."""
    if sent.gallery is None or not sent.plan.identity:
        return None, None
    own = sent.gallery[sent.own]  # N,D
    rows, every = [], []
    for target in sorted(sent.plan.identity):
        there = sent.column("embedding", target)
        if there is None:
            return None, None
        similarity = np.where(sent.adult, (there * own).sum(1), np.nan)
        found = metrics.top1_retrieval(there, sent.gallery, sent.own)
        every.append(np.where(np.isnan(similarity), np.nan, found))
        rows.append(
            {
                "target": target,
                "top1": figures.of(every[-1]),
                "similarity": figures.of(similarity),
            }
        )
    share = _mean(np.stack(every, 1))
    return share, {"targets": rows, "top1": figures.of(share)}


def _sharpness(sent: Sent, figures: Figures) -> list[dict[str, Any]]:
    """The detail of the faces that were sent to a target, before and after; medians."""
    before, rows = sent.arrays["sharp_in"], []
    for target in sent.plan.ages:
        after = sent.column("sharp", target)
        assert after is not None  # it needs no judge
        here = np.isfinite(after)
        detailed = here & (before > 0)  # a flat picture has no sharpness to keep
        rows.append(
            {
                "target": target,
                "in": figures.of(before[here], np.median),
                "out": figures.of(after, np.median),
                "kept": figures.of(after[detailed] / before[detailed], np.median),
            }
        )
    return rows


def _skin(sent: Sent, figures: Figures) -> list[dict[str, Any]]:
    """How much lighter the skin got on the way to a target: in levels, means."""
    before, rows = sent.arrays["skin_in"], []
    some = before[np.isfinite(before)]
    dark, light = np.quantile(some, (0.2, 0.8)) if len(some) else (np.nan, np.nan)
    for target in sent.plan.ages:
        after = sent.column("skin", target)
        assert after is not None  # it needs no judge
        lighter = after - before
        rows.append(
            {
                "target": target,
                "darkest": figures.of(lighter[before <= dark]),
                "lightest": figures.of(lighter[before >= light]),
            }
        )
    return rows


def _rows(values: NDArray | None, here: NDArray) -> NDArray | None:
    return None if values is None else values[here]


def _mean(values: NDArray) -> NDArray:  # N,T -> (N,)
    """The mean of each row without its nan; nan where there is nothing else."""
    there = np.isfinite(values)
    count = there.sum(1)
    total = np.where(there, values, 0).sum(1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _finite(values: NDArray) -> NDArray:
    """The rows without nan."""
    return values[np.isfinite(values).all(1)]
