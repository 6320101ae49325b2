"""Measuring one model on one set of labelled faces: ages told, and faces aged.

Every figure is a mean (or median) over faces with its 95 % bootstrap interval: {"value", "low",
"high", "count"}; None where there is no face to measure, or no judge to measure with. There is no
autocast: half precision would measure the machine as well.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor

from faceage import metrics
from faceage.ages import GROUP_NAMES, GROUPS, MAX_AGE, group_range
from faceage.data import Dataset, Faces, decode
from faceage.judges import CROP, AgeJudge
from faceage.model import INNER_LEFT, INNER_SIDE, INNER_TOP, FaceAgeModel, apply_change
from faceage.report import contact_sheet
from faceage.views import (
    decode_views,
    encode_views,
    group_at,
    read_years,
    year_distributions,
)

BATCH = 32  # faces at once
NEAREST = 10  # a person for the sheet is drawn from so many whose age is nearest to the one wanted

Figure = dict[str, float] | None


@dataclass(frozen=True)
class Subject:
    """A model to measure, in eval mode."""

    name: str
    file: Path
    sha256: str
    model: FaceAgeModel
    metadata: dict[str, str]


class Measurer:
    """Measures models on a dataset, with a progress bar on stderr. A context manager.

    Args:
        dataset: labelled faces; its pictures are read anew for every measurement.
        judge: tells the age of aged faces; None leaves these figures out.
        device: where the models are.
        seed: of what is drawn: faces, people, bootstrap samples.
    """

    def __init__(
        self, dataset: Dataset, judge: AgeJudge | None, device: torch.device, seed: int = 0
    ) -> None:
        self.dataset, self.judge, self.device, self.seed = dataset, judge, device, seed
        samples = dataset.samples
        self.groups = np.array([s.group for s in samples])
        self.exact = np.array([s.age is not None for s in samples])  # not only the group is known
        self.ages = np.array(
            [sum(group_range(s.group)) / 2 if s.age is None else s.age for s in samples], float
        )
        console = Console(stderr=True)
        self._bar = Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> "Measurer":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def classify(self, subject: Subject) -> dict[str, Any]:
        """Ages and groups of all faces, as `faceage predict` tells them."""
        side, rows = subject.model.config.classifier_crop, []
        for (faces,) in self._stream(self._everyone(), [side], f"{subject.name}: telling ages"):
            rows.append(year_distributions(subject.model, self._tensor(faces)))
        ages, intervals, _ = zip(*map(read_years, np.concatenate(rows)), strict=True)
        groups = np.array([group_at(age) for age in ages])
        low, high = np.array(intervals).T
        true, exact, years = self.groups, self.exact, self.ages
        return {
            "accuracy": self._figure(groups == true),
            "within_one_group": self._figure(np.abs(groups - true) <= 1),
            "mae": self._figure(np.abs(np.array(ages) - years)[exact]),
            "coverage_80": self._figure(((low <= years) & (years <= high))[exact]),
            "interval_width": self._figure((high - low)[exact]),
            "recall": {
                name: self._figure((groups == true)[true == g])
                for g, name in enumerate(GROUP_NAMES)
            },
            "confusion": metrics.confusion(groups, true, GROUPS).tolist(),
        }

    def reconstruct(self, subject: Subject) -> dict[str, Figure]:
        """Target age = own age: what is left of the picture, where it is one, on [-1, 1]."""
        model, errors = subject.model, []
        size = model.config.size
        for (faces,) in self._stream(self._everyone(), [size], f"{subject.name}: own ages"):
            x = self._tensor(faces)
            (y,) = self._aged(model, x, x, faces, [faces.ages])
            mask = picture_mask(faces.valid, size).numpy()
            errors.append(metrics.masked_absolute_error(y.cpu().numpy(), x.cpu().numpy(), mask))
        return {"l1": self._figure(np.concatenate(errors))}

    def age(self, subject: Subject, targets: Sequence[float], limit: int) -> list[dict[str, Any]]:
        """At most `limit` random faces sent to each target: the age they reach, the sharpness."""
        random = np.random.default_rng(self.seed)
        count = min(limit, len(self.dataset))
        chosen = np.sort(random.choice(len(self.dataset), count, replace=False))
        before: list[np.ndarray] = []
        after: list[list[np.ndarray]] = [[] for _ in targets]
        judged: list[list[np.ndarray]] = [[] for _ in targets]
        for crops, results in self._results(subject, chosen, targets):
            before.append(inner_sharpness(crops))
            for i, pixels in enumerate(results):
                after[i].append(inner_sharpness(pixels))
                if self.judge:
                    judged[i].append(self.judge.ages(pixels))
        sharp = np.concatenate(before)
        detailed = sharp > 0  # a flat picture has no sharpness to keep
        rows = []
        for i, target in enumerate(targets):
            out = np.concatenate(after[i])
            ages = np.concatenate(judged[i]) if self.judge else None
            rows.append(
                {
                    "target": target,
                    "judged_age": None if ages is None else self._figure(ages),
                    "judged_error": None if ages is None else self._figure(np.abs(ages - target)),
                    "sharpness_in": self._figure(sharp, np.median),
                    "sharpness_out": self._figure(out, np.median),
                    "sharpness_kept": self._figure(out[detailed] / sharp[detailed], np.median),
                }
            )
        return rows

    def judge_unchanged(self, judge: AgeJudge) -> dict[str, Any]:
        """How far the judge is from the labels: what it says of aged faces is no better."""
        parts = [
            judge.ages(faces.images.numpy())
            for (faces,) in self._stream(self._everyone(), [CROP], "judging unchanged faces")
        ]
        judged, exact, years = np.concatenate(parts), self.exact, self.ages
        errors = judged - years
        varied = exact.any() and judged[exact].std() > 0 and years[exact].std() > 0
        together = float(np.corrcoef(judged[exact], years[exact])[0, 1]) if varied else None
        groups = {"all": exact}
        groups |= {name: exact & (self.groups == g) for g, name in enumerate(GROUP_NAMES)}
        return {
            "correlation": together if together is None else _rounded(together),
            "groups": {
                name: {
                    "label": self._figure(years[here]),
                    "judged": self._figure(judged[here]),
                    "bias": self._figure(errors[here]),
                    "mae": self._figure(np.abs(errors[here])),
                }
                for name, here in groups.items()
            },
        }

    def sheet(self, subject: Subject, people: int, targets: Sequence[float]) -> np.ndarray:
        """People of all ages, unchanged and at every target; the judge's word under each face.

        Returns:
            uint8 (H,W,3).
        """
        chosen = spread(self.ages, people, self.seed)
        rows, captions = [], []
        for crops, results in self._results(subject, chosen, targets):
            columns = [crops, *results]
            rows += [list(faces) for faces in zip(*columns, strict=True)]
            if self.judge:
                judged = np.stack([self.judge.ages(pixels) for pixels in columns], 1)
                captions += [[f"judged {age:.0f}" for age in row] for row in judged]
        return np.asarray(
            contact_sheet(
                rows,
                ["unchanged", *(f"{age:g} years" for age in targets)],
                [f"{age:.0f}" for age in self.ages[chosen]],
                captions=captions,
            )
        )

    def _everyone(self) -> np.ndarray:
        return np.arange(len(self.dataset))

    def _results(
        self, subject: Subject, chosen: np.ndarray, targets: Sequence[float]
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Batches of crops (N,R,R,3) uint8, R = `CROP`, and the same at every target.

        As in photos, the change is made at the model's size and applied to the larger crop.
        """
        size = subject.model.config.size
        for small, large in self._stream(chosen, [size, CROP], f"{subject.name}: ageing"):
            wanted = [torch.full((len(small),), age) for age in targets]
            aged = self._aged(
                subject.model, self._tensor(small), self._tensor(large), small, wanted
            )
            yield large.images.numpy(), [to_pixels(y) for y in aged]

    @torch.inference_mode()
    def _aged(
        self, model: FaceAgeModel, x: Tensor, crops: Tensor, faces: Faces, targets: Sequence[Tensor]
    ) -> list[Tensor]:
        """Crops at each of `targets` (each (N,) years), from faces `x` at the model's size."""
        views, index = encode_views(model, x), torch.arange(len(x), device=self.device)
        source = None if model.config.decomposition else self._years(faces.ages)
        return [
            apply_change(
                crops, decode_views(model, views, index, self._years(ages), source), "bicubic"
            )
            for ages in targets
        ]

    def _years(self, ages: Tensor) -> Tensor:
        return ages.float().clamp(max=MAX_AGE).to(self.device)

    def _tensor(self, faces: Faces) -> Tensor:  # N,3,R,R in [-1, 1]
        return faces.images.permute(0, 3, 1, 2).to(self.device).float() / 127.5 - 1

    def _stream(
        self, chosen: np.ndarray, sizes: Sequence[int], label: str
    ) -> Iterator[list[Faces]]:
        """The chosen faces in batches, decoded at each size: a val set need not fit in memory."""
        task = self._bar.add_task(label, total=len(chosen))
        for start in range(0, len(chosen), BATCH):
            samples = [self.dataset.samples[i] for i in chosen[start : start + BATCH]]
            part = Dataset(self.dataset.name, self.dataset.root, samples)
            yield [decode(part, size) for size in sizes]
            self._bar.advance(task, len(samples))
        self._bar.remove_task(task)

    def _figure(
        self, values: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean
    ) -> Figure:
        """A statistic over faces with its 95 % interval; None where there are none."""
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = metrics.bootstrap_interval(values, statistic, seed=self.seed)
        return {
            "value": _rounded(statistic(values)),
            "low": _rounded(low),
            "high": _rounded(high),
            "count": len(values),
        }


def spread(ages: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices of `count` faces from young to old, evenly spread over the years, drawn at random.

    The years wanted leave out the youngest and oldest fiftieth, whose labels are doubtful.
    """
    random = np.random.default_rng([seed, 1])
    left = random.permutation(len(ages))  # many faces are equally near; none comes first
    chosen: list[int] = []
    for wanted in np.linspace(*np.quantile(ages, [0.02, 0.98]), min(count, len(ages))):
        near = left[np.argsort(np.abs(ages[left] - wanted), kind="stable")[:NEAREST]]
        chosen.append(int(random.choice(near)))
        left = left[left != chosen[-1]]
    return np.array(chosen)[np.argsort(ages[chosen], kind="stable")]


def picture_mask(valid: Tensor, size: int) -> Tensor:  # N,4 shares of the side -> N,1,size,size
    """Where the centre of a pixel is picture and not padding."""
    centres = (torch.arange(size) + 0.5) / size
    x0, y0, x1, y1 = valid.T[..., None]  # each N,1
    columns = (centres >= x0) & (centres <= x1)  # N,size
    rows = (centres >= y0) & (centres <= y1)
    return (rows[:, :, None] & columns[:, None])[:, None]


def inner_sharpness(crops: np.ndarray) -> np.ndarray:
    """Laplacian variance of the inner faces: (N,) of crops uint8 (N,R,R,3)."""
    side = crops.shape[1]
    top, left, size = (round(share * side) for share in (INNER_TOP, INNER_LEFT, INNER_SIDE))
    return metrics.laplacian_variance(crops[:, top : top + size, left : left + size])


def to_pixels(faces: Tensor) -> np.ndarray:  # N,3,R,R in [-1, 1] -> N,R,R,3 uint8
    """Faces as pictures."""
    levels = ((faces.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def _rounded(value: float) -> float:
    return round(float(value), 5)
