"""What the modules of evaluation share: the faces, array types, batches, imports of the extra."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceage.ages import group_range
from faceage.data.datasets import Dataset, decode
from faceage.data.layouts import UNIT
from faceage.errors import ConfigError
from faceage.faces.detection import Detector, make_detector

CROP = 256  # px; side of the FFHQ crops that are measured

Pixels = NDArray[np.uint8]  # N,R,R,3 RGB
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]


def map_batches(
    function: Callable[..., Any], *arrays: NDArray[Any], size: int = 32, shape: tuple[int, ...] = ()
) -> Floats:
    """The function's values of consecutive rows of the arrays, joined; each of this shape."""
    parts = [np.empty((0, *shape))]
    for start in range(0, len(arrays[0]), size):
        values = function(*(array[start : start + size] for array in arrays))
        parts.append(np.asarray(values, np.float64))
    return np.concatenate(parts)


def import_extra(name: str, user: str) -> Any:
    """A library that only the extra `evaluate` installs; `user` needs it: "The report".

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        problem = f"{user} needs {name.partition('.')[0]}, which is not installed."
        raise ConfigError(problem, "Install it with: pip install 'faceage[evaluate]'") from None


class Inputs:
    """The N faces of a dataset of FFHQ crops."""

    def __init__(self, dataset: Dataset) -> None:
        samples = dataset.samples
        ages = [sum(group_range(s.group)) / 2 if s.age is None else s.age for s in samples]
        self.dataset = dataset
        self.ages = np.array(ages, float)  # years; the middle of the group where only it is known
        self.groups = np.array([s.group for s in samples])
        self.exact = np.array([s.age is not None for s in samples])  # not only the group
        self.genders = np.array([s.gender for s in samples])  # "M", "F" or ""
        self.valid = np.array([s.valid for s in samples])  # N,4: see `Sample`
        self.detector: Detector = make_detector()
        self._detected: dict[int, Floats] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def crops(self, chosen: Indices, size: int = CROP) -> Pixels:
        """The chosen faces, (M,size,size,3) RGB, resized from the pictures themselves."""
        samples = [self.dataset.samples[i] for i in chosen]
        part = Dataset(self.dataset.name, self.dataset.root, samples)
        return np.asarray(decode(part, size).images)

    def landmarks(self, chosen: Indices) -> Floats:
        """Their landmarks, (M,5,2) px of the crop of `CROP` px; nan where no face is found."""
        return np.stack([self._find_landmarks(int(i)) for i in chosen])

    def _find_landmarks(self, index: int) -> Floats:
        if known := self.dataset.samples[index].landmarks:
            return np.reshape(known, (5, 2)) * (CROP / UNIT)
        if index not in self._detected:
            faces = self.detector.detect(self.crops(np.array([index]))[0])
            self._detected[index] = faces[0].landmarks if faces else np.full((5, 2), np.nan)
        return self._detected[index]
