"""Running methods over faces: arrays with one row per face, nan where there is no value.

There is no autocast: half precision would depend on the machine. Faces go in batches; under
torchrun every process takes its share of the same batches, so the values do not depend on the
number of processes.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from faceage.distributed import Processes
from faceage.evaluation import metrics
from faceage.evaluation.common import Flags, Floats, Indices, Inputs, Pixels
from faceage.evaluation.evaluators import Evaluators
from faceage.evaluation.methods import AgedBatch, FaceBatch, Method, WeightsMethod
from faceage.evaluation.results import RANGES
from faceage.imaging.conversion import resize_images
from faceage.imaging.skin import lightness, skin_colours
from faceage.models.windows import INNER_LEFT, INNER_SIDE, INNER_TOP

BATCH = 32  # faces at once

# By name, or by name and target age; each with one row per face.
Arrays = dict[str | tuple[str, float], NDArray[Any]]


class Measurer:
    """Measures the faces of `inputs`; `bar` shows the progress."""

    def __init__(
        self, inputs: Inputs, evaluators: Evaluators, processes: Processes, bar: Progress
    ) -> None:
        self.inputs, self.evaluators, self.processes = inputs, evaluators, processes
        self._bar = bar

    def predict(self, method: WeightsMethod, chosen: Indices, degraded: bool = False) -> Arrays:
        """Distributions over whole years, (N,101): "years"; or by `DEGRADATIONS`, if degraded."""
        size = method.model.config.classifier_crop

        def work(part: Indices) -> Arrays:
            if not degraded:
                return {"years": method.predict(self.inputs.crops(part, size))}
            crops = self.inputs.crops(part)
            faces = {name: resize_images(degrade(crops, name), size) for name in DEGRADATIONS}
            return {name: method.predict(images) for name, images in faces.items()}

        label = "degraded faces" if degraded else "age estimation"
        return self._share(chosen, work, f"{method.info.name}: {label}")

    def unchanged(self) -> Arrays:
        """The values of `_evaluate` of all faces as they are."""

        def work(part: Indices) -> Arrays:
            every = np.ones(len(part), bool)
            batch = AgedBatch(self.inputs.crops(part), every, every)
            return self._evaluate(batch, part, features=True)

        return self._share(np.arange(len(self.inputs)), work, "real faces")

    def aged(
        self, method: Method, chosen: Indices, targets: Sequence[float], others: Floats
    ) -> Arrays:
        """Faces aged to the targets, to their source age, and to another age and back.

        Args:
            chosen: (N,) of the inputs.
            others: another age for every one of the inputs, in years.

        Returns:
            "sharpness" and "skin" of the input; "reconstruction_l1", "cycle_l1" and the same with
            "lpips"; "lost", how many results show no face. For each target: "exists", whether
            there is a result; "sharpness" and "skin"; and the values of `_evaluate`, features only
            at the targets of the ranges.
        """

        def work(part: Indices) -> Arrays:
            faces = FaceBatch(part, self.inputs.crops(part), self.inputs.ages[part])
            lost = np.zeros(len(part), np.int64)
            measured = _measure_appearance(faces.images, np.ones(len(part), bool))
            cycle = [others[part]] if isinstance(method, WeightsMethod) else []
            ages = [*(np.full(len(part), target) for target in targets), faces.ages, *cycle]
            for i, aged in enumerate(method.age(faces, ages)):
                lost += aged.exists & ~aged.found
                if i < len(targets):
                    features = targets[i] in [span.target for span in RANGES]
                    here = self._evaluate(aged, part, features=features)
                    here |= _measure_appearance(aged.images, aged.found) | {"exists": aged.exists}
                    measured |= {(name, targets[i]): values for name, values in here.items()}
                elif i == len(targets):
                    measured |= self._compare("reconstruction", faces, aged)
                else:
                    away = FaceBatch(part, aged.images, others[part])
                    (back,) = method.age(away, [faces.ages])
                    measured |= self._compare("cycle", faces, back)
            return measured | {"lost": lost}

        return self._share(chosen, work, f"{method.info.name}: ageing")

    def _evaluate(self, batch: AgedBatch, part: Indices, *, features: bool) -> dict[Any, Any]:
        """Predicted ages, embeddings and features of these inputs, unchanged or aged."""
        age, identity = self.evaluators.age, self.evaluators.identity
        look, inception = self.evaluators.perceptual, self.evaluators.inception
        images, found, values = batch.images, batch.found, dict[Any, Any]()
        if age:
            values["predicted_age"] = _where(found, age.ages, images)
        if identity:
            points = batch.landmarks
            points = self.inputs.landmarks(part) if points is None else points
            values["embedding"] = _where(found, identity.embed, images, points)
        if look and features:
            values["features"] = _where(found, look.features, images)
            values["crop_features"] = _where(found, look.crop_features, images)
        if inception and features:
            values["inception"] = _where(found, inception.features, images)
        return values

    def _compare(self, name: str, faces: FaceBatch, aged: AgedBatch) -> Arrays:
        """L1 on [-1, 1] and LPIPS between faces and results, without padding."""
        mask = picture_mask(self.inputs.valid[faces.indices], faces.images.shape[1])
        before, after = faces.images, np.where(mask, aged.images, faces.images)
        a, b, inside = (part.transpose(0, 3, 1, 2) for part in (before, after, mask))
        l1 = metrics.masked_l1(a / np.float32(127.5), b / np.float32(127.5), inside)
        values: Arrays = {f"{name}_l1": np.where(aged.found, l1, np.nan)}
        if look := self.evaluators.perceptual:
            values[f"{name}_lpips"] = _where(aged.found, look.distances, before, after)
        return values

    def _share(self, chosen: Indices, work: Callable[[Indices], Arrays], label: str) -> Arrays:
        """The work's arrays of the chosen faces, batch by batch, in order, in every process."""
        batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
        rank, count = self.processes.rank, self.processes.count
        task = self._bar.add_task(label, total=sum(map(len, batches[rank::count])))
        done = []
        for batch in batches[rank::count]:
            done.append(work(batch))
            self._bar.advance(task, len(batch))
        shares = self.processes.gather(done)
        self._bar.remove_task(task)
        parts = [shares[i % count][i // count] for i in range(len(batches))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


DEGRADATIONS = ("none", "48 px", "grey", "JPEG 30", "48 px, grey, JPEG 30")


def degrade(crops: Pixels, name: str) -> Pixels:
    """Crops (N,R,R,3) after the steps in the name, one of `DEGRADATIONS`.

    "48 px" shrinks them by area until the inner face has 48 px, and enlarges them again.
    """
    size, degraded = crops.shape[1], []
    if "48 px" in name:
        crops = resize_images(resize_images(crops, round(48 / INNER_SIDE)), size)
    for crop in crops:
        image = Image.fromarray(crop)
        if "grey" in name:
            image = image.convert("L").convert("RGB")
        if "JPEG 30" in name:
            image.save(file := io.BytesIO(), "JPEG", quality=30)
            image = Image.open(file)
        degraded.append(np.asarray(image))
    return np.stack(degraded)


def picture_mask(valid: Floats, size: int) -> Flags:  # N,4 fractions -> N,size,size,1
    """Where the centre of a pixel is picture and not padding."""
    centres = (np.arange(size) + 0.5) / size
    x0, y0, x1, y1 = np.asarray(valid).T[..., None]  # each N,1
    columns = (centres >= x0) & (centres <= x1)  # N,size
    rows = (centres >= y0) & (centres <= y1)
    return np.asarray((rows[:, :, None] & columns[:, None])[..., None])


def inner_sharpness(crops: Pixels) -> Floats:
    """Laplacian variance of the inner faces: (N,) of crops (N,R,R,3)."""
    side = crops.shape[1]
    top, left, size = (round(part * side) for part in (INNER_TOP, INNER_LEFT, INNER_SIDE))
    return metrics.laplacian_variance(crops[:, top : top + size, left : left + size])


def _measure_appearance(crops: Pixels, found: Flags) -> Arrays:
    """Sharpness, and lightness of the skin in levels."""
    values = {"sharpness": inner_sharpness(crops), "skin": lightness(skin_colours(crops))}
    return {name: np.where(found, each, np.nan) for name, each in values.items()}


def _where(here: Flags, measure: Callable[..., Floats], *arrays: NDArray[Any]) -> Floats:
    """The values that `measure` gives of some rows of the arrays; nan in the other rows."""
    found = measure(*(array[here] for array in arrays))
    values = np.full((len(here), *found.shape[1:]), np.nan)
    values[here] = found
    return values
