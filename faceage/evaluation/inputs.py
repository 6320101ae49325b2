"""The faces that are measured: aligned crops, and what is known of them."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from faceage.ages import group_range
from faceage.data.datasets import Dataset, decode
from faceage.evaluation.evaluators import CROP
from faceage.faces.detection import Detector, make_detector

KEPT_BYTES = 1 << 30  # of decoded pictures; a set that is larger is decoded anew every time

Indices = NDArray[np.intp]


class Inputs(Protocol):
    """Faces to measure.

    Attributes:
        ages: (N,) years, nan where unknown; the middle of the group where only that is known.
        groups: (N,) age groups 0-9, -1 where unknown.
        exact: (N,) whether the age is known, not only its group.
        genders: (N,) "M", "F" or "".
        valid: (N,4) x0, y0, x1, y1 as shares of the side: what is picture and not padding.
    """

    ages: NDArray[np.float64]
    groups: NDArray[np.intp]
    exact: NDArray[np.bool_]
    genders: NDArray[np.str_]
    valid: NDArray[np.float64]

    def __len__(self) -> int: ...

    def crops(self, chosen: Indices) -> NDArray[np.uint8]:
        """The chosen faces as FFHQ crops, (M,R,R,3) RGB, R = `CROP`."""
        ...

    def landmarks(self, chosen: Indices) -> NDArray[np.float64]:
        """Their five landmarks, (M,5,2) px of the crop; nan where no face was found."""
        ...


class LabelledInputs:
    """A labelled dataset, as `Inputs`. Pictures are decoded once where memory allows.

    Args:
        dataset: its pictures are FFHQ crops.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        samples = dataset.samples
        self.groups = np.array([s.group for s in samples])
        self.exact = np.array([s.age is not None for s in samples])
        self.ages = np.array(
            [sum(group_range(s.group)) / 2 if s.age is None else s.age for s in samples], float
        )
        self.genders = np.array([s.gender for s in samples])
        self.valid = np.array([s.valid for s in samples])
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]] = {}
        self._found: dict[int, NDArray[np.float64]] = {}
        self._detector: Detector | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def crops(self, chosen: Indices, size: int = CROP) -> NDArray[np.uint8]:
        """The chosen faces, (M,size,size,3) RGB, shrunk from the pictures themselves.

        Raises:
            DataError: a picture is missing or damaged.
        """
        if size not in self._kept:
            taken = sum(images.nbytes for images, _ in self._kept.values())
            if taken + len(self) * size * size * 3 > KEPT_BYTES:
                return self._decoded(chosen, size)
            images = np.empty((len(self), size, size, 3), np.uint8)
            self._kept[size] = images, np.zeros(len(self), bool)
        images, there = self._kept[size]
        missing = chosen[~there[chosen]]
        if len(missing):
            images[missing], there[missing] = self._decoded(missing, size), True
        return images[chosen]

    def landmarks(self, chosen: Indices) -> NDArray[np.float64]:
        """Their landmarks, (M,5,2) px at `CROP`: the dataset's, or else those a detector finds."""
        return np.stack([self._points(int(i)) for i in chosen])

    def _points(self, index: int) -> NDArray[np.float64]:
        if known := self.dataset.samples[index].landmarks:
            return np.reshape(known, (5, 2)) * (CROP / 256)
        if index not in self._found:
            self._detector = self._detector or make_detector()
            faces = self._detector.detect(self.crops(np.array([index]))[0])
            self._found[index] = faces[0].landmarks if faces else np.full((5, 2), np.nan)
        return self._found[index]

    def _decoded(self, chosen: Indices, size: int) -> NDArray[np.uint8]:
        samples = [self.dataset.samples[i] for i in chosen]
        part = Dataset(self.dataset.name, self.dataset.root, samples)
        return decode(part, size).images.numpy()
