"""The Python API: `load()` gives a `FaceAger`, which predicts ages and changes them.

ager = faceage.load()
ager.predict("me.jpg")              # [Prediction(age=34.1, group="30-39", ...)]
ager.age("me.jpg", to=[5, 70])      # [Aged(age=5.0, photo=<PIL.Image>, ...), ...]
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from faceage import hub
from faceage.ages import GROUP_NAMES, check_age
from faceage.checkpoints import load_weights
from faceage.devices import pick_device
from faceage.errors import NoFaceError, WeightsError
from faceage.faces.alignment import Face, crop_face, face_mask, native_size, paste_change
from faceage.faces.detection import MIN_SCORE, Detector, make_detector, no_face_error
from faceage.faces.selection import parse_faces
from faceage.imaging.photos import Photo, as_photo
from faceage.models.generator import Change, Decomposed, FaceAgeModel, apply_change
from faceage.models.tta import (
    CHUNK,
    decode_tta,
    encode_tta,
    nearest_group,
    predict_distributions,
    summarize_distribution,
)

GREY = (
    1.5  # mean difference of the colour channels, in levels, below which a crop is black and white
)

NumberedFace = tuple[int, Face]
PhotoLike = str | Path | Image.Image | np.ndarray | Photo


@dataclass(frozen=True)
class Prediction:
    """The age of one face.

    Attributes:
        age: years, the median of the predicted distribution.
        interval: years; the middle 80 % of the distribution lies between the two.
        group: the age group that the age lies in, as "30-39". Mostly the likeliest one.
        probabilities: of all ten groups, by name; they sum to 1.
        face: where the face is.
        number: its place in the photo, 1 for the largest face.
    """

    age: float
    interval: tuple[float, float]
    group: str
    probabilities: dict[str, float]
    face: Face
    number: int


@dataclass(frozen=True, eq=False)
class Aged:
    """One photo at one target age, with every chosen face changed.

    Attributes:
        age: the target, in years.
        pixels: the photo, uint8 (H,W,3) RGB; outside the face masks as it was, bit for bit.
        alpha: the photo's own transparency, uint8 (H,W), or None.
        crops: the changed faces alone, each uint8 (S,S,3) at the model's size.
        faces: where they are, in the order of `crops`.
        numbers: their places in the photo, 1 for the largest face.
    """

    age: float
    pixels: np.ndarray
    alpha: np.ndarray | None
    crops: tuple[np.ndarray, ...]
    faces: tuple[Face, ...]
    numbers: tuple[int, ...]

    @property
    def photo(self) -> Image.Image:
        """The photo as a PIL image, RGB or RGBA."""
        image = Image.fromarray(self.pixels)
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        return image

    @property
    def face(self) -> Face:
        """The first (largest) changed face."""
        return self.faces[0]

    @property
    def crop(self) -> Image.Image:
        """The first changed face at the model's size."""
        return Image.fromarray(self.crops[0])


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    detector: str = "yunet",
    min_score: float = MIN_SCORE,
) -> "FaceAger":
    """Load a model and a face detector.

    Args:
        weights: a name (`faceage weights list`) or a path; None is the model of the package.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        detector: "yunet" or "retinaface".
        min_score: from 0 to 1; less certain faces are ignored.

    Raises:
        WeightsError: the weights are missing, damaged, or of another architecture.
        ConfigError: there is no such device.
    """
    where = pick_device(device)
    finder = load_detector(detector, min_score)
    path = hub.find(weights)
    model, _ = load_weights(path, device=where)
    return FaceAger(model, finder, where, hub.file_sha256(path))


def load_detector(name: str = "yunet", min_score: float = MIN_SCORE) -> Detector:
    """A face detector, with its weights where they are on this machine.

    Raises:
        ConfigError: no such detector, or the score is out of range.
        WeightsError: its weights are missing or damaged.
    """
    needs_file = name in hub.REGISTRY
    return make_detector(name, min_score, hub.find(name) if needs_file else None)


class FaceAger:
    """Predicts the age of faces in photos, and changes it. Make one with `load()`.

    A photo is a path, a PIL image, a uint8 array (H,W,3) RGB, or a `Photo`. `faces` says which of
    its faces are meant: "all", "largest", or a number from 1 on, the largest face being 1.

    Args:
        model: on `device`, in eval mode.
        weights_sha: the sha256 of the model's file, written into every result.

    Raises:
        WeightsError: the model is the baseline without an age classifier.
    """

    def __init__(
        self, model: FaceAgeModel, detector: Detector, device: torch.device, weights_sha: str = ""
    ) -> None:
        if not model.config.decomposition:
            raise WeightsError(
                "These weights are a RAGAN baseline, which cannot tell an age.",
                "Use weights trained with decomposition, or faceage evaluate to compare the two.",
            )
        self.model = model
        self.detector = detector
        self.device = device
        self.weights_sha = weights_sha

    def predict(self, photo: PhotoLike, faces: str | int = "all") -> list[Prediction]:
        """The age of every chosen face, largest first.

        Raises:
            PhotoError: the photo cannot be opened.
            NoFaceError: there is no face, or not so many.
        """
        photo = as_photo(photo)
        found = choose_faces(photo, self.detector, faces)
        side = self.model.config.classifier_crop
        years = self._years([crop_face(photo.pixels, face, side) for _, face in found])
        return [
            _prediction(p, face, number) for p, (number, face) in zip(years, found, strict=True)
        ]

    def age(
        self, photo: PhotoLike, to: float | Iterable[float], faces: str | int = "all"
    ) -> list[Aged]:
        """The photo at each target age (years from 0 to 100), in the order asked for.

        Raises:
            AgeError: a target is out of range.
            PhotoError: the photo cannot be opened.
            NoFaceError: there is no face, or not so many.
        """
        photo = as_photo(photo)
        return list(self.iter_age(photo, to, choose_faces(photo, self.detector, faces)))

    @torch.inference_mode()
    def iter_age(
        self, photo: Photo, to: float | Iterable[float], found: Sequence[NumberedFace]
    ) -> Iterator[Aged]:
        """As `age`, for faces already found, one result at a time: a photo may be large.

        Each face is encoded once and decoded to all ages together.
        """
        targets = [check_age(age) for age in ([to] if isinstance(to, int | float) else to)]
        numbers, places = zip(*found, strict=True)
        side = self.model.config.size
        faces = self._tensor([crop_face(photo.pixels, face, side) for face in places])
        views = encode_tta(self.model, faces)
        changes = [self._decode(views, i, targets) for i in range(len(places))]
        sharp = [crop_face(photo.pixels, face, native_size(face)) for face in places]
        for i, age in enumerate(targets):
            pixels, crops = photo.pixels, []
            for face, place, own, (residual, flow) in zip(
                faces.split(1), places, sharp, changes, strict=True
            ):
                change = Change(residual[i : i + 1], flow[i : i + 1])
                pixels = paste_change(pixels, place, self._levels(own, place, change))
                crops.append(_to_pixels(apply_change(face, change, "bicubic")[0]))
            yield Aged(age, pixels, photo.alpha, tuple(crops), places, numbers)

    def _decode(self, views: Decomposed, face: int, targets: list[float]) -> Change:
        """The changes of one encoded face to all targets, in batches of `CHUNK`."""
        ages = torch.tensor(targets, dtype=torch.float32, device=self.device)
        parts = []
        for part in ages.split(CHUNK):
            index = torch.full((len(part),), face, device=self.device)
            parts.append(decode_tta(self.model, views, index, part))
        return Change(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def _levels(self, crop: np.ndarray, place: Face, change: Change) -> np.ndarray:
        """What a change does to a crop (R,R,3), as float32 (R,R,3) in levels of 0-255."""
        face = self._tensor([crop])
        # Displaced content and the photo must not be blended: that shows everything twice. So the
        # displacement itself fades out where the mask of the paste does.
        mask = torch.from_numpy(face_mask(place.landmarks, change.flow.shape[-1]))
        change = change._replace(flow=change.flow * mask.to(self.device))
        delta = (
            ((apply_change(face, change, "bicubic") - face)[0] * 127.5)
            .permute(1, 2, 0)
            .float()
            .cpu()
            .numpy()
        )
        if np.ptp(crop.astype(np.int16), axis=2).mean() < GREY:
            # A black-and-white photo stays one: the change may lighten and darken, not colour.
            delta = np.repeat(delta.mean(axis=2, keepdims=True), 3, axis=2)
        return delta

    def _years(self, crops: list[np.ndarray]) -> np.ndarray:
        """Distributions over whole years, (F,101), of uint8 crops (R,R,3)."""
        return predict_distributions(self.model, self._tensor(crops))

    def _tensor(self, crops: list[np.ndarray]) -> torch.Tensor:
        """uint8 crops (S,S,3) as faces (N,3,S,S) in [-1, 1]."""
        stack = torch.from_numpy(np.stack(crops)).to(self.device)
        return stack.permute(0, 3, 1, 2).float() / 127.5 - 1


def prediction_row(file: str, prediction: Prediction) -> dict[str, Any]:
    """A prediction as the object that `--json` prints."""
    return {
        "file": file,
        "face": prediction.number,
        "age": round(prediction.age, 2),
        "interval": [round(year, 2) for year in prediction.interval],
        "group": prediction.group,
        "probabilities": {name: round(p, 5) for name, p in prediction.probabilities.items()},
        "box": [round(float(v), 1) for v in prediction.face.box],
        "score": round(float(prediction.face.score), 4),
    }


def _prediction(years: np.ndarray, face: Face, number: int) -> Prediction:
    age, interval, sums = summarize_distribution(years)
    return Prediction(
        age=age,
        interval=interval,
        group=GROUP_NAMES[nearest_group(age)],
        probabilities={n: float(p) for n, p in zip(GROUP_NAMES, sums, strict=True)},
        face=face,
        number=number,
    )


def choose_faces(photo: Photo, detector: Detector, faces: str | int = "all") -> list[NumberedFace]:
    """The chosen faces with their numbers, 1 for the largest.

    Raises:
        NoFaceError: there is no face, or not so many.
        ConfigError: `faces` is neither "all" nor "largest" nor a number from 1 on.
    """
    which = parse_faces(faces)
    found = detector.detect(photo.pixels)
    if not found:
        raise no_face_error(photo.name, detector)
    numbered = list(enumerate(found, 1))
    if which == "all":
        return numbered
    number = 1 if which == "largest" else int(which)
    if number > len(numbered):
        faces_here = "1 face" if len(found) == 1 else f"{len(found)} faces"
        raise NoFaceError(
            f"There is no face {number} in {photo.name}, only {faces_here}.", "1 is the largest."
        )
    return [numbered[number - 1]]


def _to_pixels(face: torch.Tensor) -> np.ndarray:
    levels = ((face + 1) * 127.5).round().permute(1, 2, 0)
    return levels.to(torch.uint8).cpu().numpy()
