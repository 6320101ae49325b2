"""The judge of ages."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceage.errors import WeightsError
from faceage.evaluation.evaluators.session import open_session
from faceage.hub import file_sha256

CROP = 256  # px; side at which judges are shown FFHQ crops

# age-v1: what it sees of a crop of 256 px (x0, y0, x1, y1), at which size, and how its numbers
# are scaled (the mean colour of the pictures it was made with, in levels, RGB).
_WINDOW = (45.3, 69.6, 213.1, 237.3)
_SIDE = 64
_MEAN = (122.782, 117.001, 104.298)
_SCALE = 256
_YEARS = np.array([0.25, *range(1, 81)])  # its first answer is "in the first half year"
_BATCH = 64


class AgeJudge(Protocol):
    """Tells the age of faces.

    Attributes:
        name: for the report.
        sha256: of its file, hex.
    """

    name: str
    sha256: str

    def ages(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Judged ages in years, (N,), of FFHQ crops (N,R,R,3) RGB."""
        ...


class OnnxAgeJudge:
    """`age-v1`, run by onnxruntime on the CPU: the same figures on every machine.

    It answers with probabilities of the years from a quarter to 80; the judged age is their mean,
    so it can never be more than 80.

    Args:
        path: the ONNX file; input `N,3,64,64`, output `N,81`.

    Raises:
        ConfigError: onnxruntime is not installed.
        WeightsError: the file is missing, damaged, or another network.
    """

    def __init__(self, path: str | Path) -> None:
        path, hint = Path(path), "Give the path of age-v1.onnx."
        self._session = open_session(path, "age judge", hint)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = [list(part.shape[1:]) for part in (*inputs, *outputs)]
        if found != [[3, _SIDE, _SIDE], [len(_YEARS)]]:
            raise WeightsError(
                f"{path} is another network than age-v1: its shapes are {found}.", hint
            )
        self._input = inputs[0].name
        self.name = path.stem
        self.sha256 = file_sha256(path)

    def ages(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Judged ages in years, (N,), of FFHQ crops (N,R,R,3) RGB."""
        parts = [np.empty(0)]
        for start in range(0, len(crops), _BATCH):
            faces = np.stack([_window(crop) for crop in crops[start : start + _BATCH]])
            scaled = ((faces - np.array(_MEAN)) / _SCALE).astype(np.float32)
            images = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))  # N,3,64,64
            (probabilities,) = self._session.run(None, {self._input: images})  # N,81
            parts.append(probabilities.astype(np.float64) @ _YEARS)
        return np.concatenate(parts)


def _window(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the judge sees of a crop, averaged over areas as the shrinking of photos does."""
    image = Image.fromarray(crop)
    if image.width != CROP:  # so that the size of a crop changes nothing else
        enlarge = image.width < CROP
        image = image.resize(
            (CROP, CROP), Image.Resampling.BICUBIC if enlarge else Image.Resampling.BOX
        )
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX, box=_WINDOW))
