"""What executes the networks: the interface between the Python API and torch or another library.

Faces go in and come out as numpy arrays, so the modules above run without torch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class FaceChange(NamedTuple):
    """The change of one face to one age, applicable at any resolution: displace, then add.

    Attributes:
        residual: (3,S,S), or (3,F,F) with the details of the fine level; unbounded; faces are in
            [-1, 1].
        flow: (2,h,w), sampling offset x, y in half sides of the crop.
    """

    residual: Floats
    flow: Floats


class Backend(Protocol):
    """A trained model, ready to use. Its methods may be called from several threads.

    Attributes:
        size: px; side S of the crops that are encoded.
        fine_size: px; side F of the crops at which the fine level works; 0 without one.
        classifier_crop: px; side R of the crops whose age is predicted.
        weights_sha: the sha256 of the model's file, written into every result.
    """

    size: int
    fine_size: int
    classifier_crop: int
    weights_sha: str

    def predict(self, crops: Pixels) -> NDArray[np.float64]:  # N,R,R,3 -> N,101
        """Distributions over the years 0-100, each the mean over the views of a face."""

    def encode(self, crops: Pixels) -> Any:  # N,S,S,3
        """Encode faces; `decode` then gives the change to any number of target ages."""

    def decode(self, encoded: Any, index: int, ages: Sequence[float]) -> list[FaceChange]:
        """The changes of one encoded face to all target ages (years)."""

    def refine(self, crop: Pixels, change: FaceChange) -> FaceChange:  # F,F,3
        """The change of a face with the details of the fine level; only if there is one."""

    def apply(self, crop: Pixels, change: FaceChange) -> Floats:  # R,R,3 -> R,R,3 in [-1, 1]
        """Apply a change to the face it was computed for, at any resolution R."""
