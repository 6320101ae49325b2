"""The Python API: `load()` returns a `FaceAger`, which predicts ages and ages faces.

ager = faceage.load()
ager.predict("me.jpg")              # [Prediction(age=34.1, group="30-39", ...)]
ager.age("me.jpg", to=[5, 70])      # [Aged(age=5.0, photo=<PIL.Image>, ...), ...]
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faceage import hub
from faceage.ages import GROUP_NAMES, check_age
from faceage.devices import map_ahead
from faceage.distributions import nearest_group, summarize_distribution
from faceage.editing import PhotoEditor
from faceage.faces.alignment import Face, crop_bounds, crop_face
from faceage.faces.detection import MIN_SCORE, Detector, make_detector
from faceage.faces.hair import widen
from faceage.faces.selection import NumberedFace, choose_faces
from faceage.imaging.decoding import to_8_bit
from faceage.imaging.photos import Photo, PhotoLike, as_photo
from faceage.inference.backend import Backend

MAX_AHEAD = 2**28  # bytes; results of smaller photos are computed ahead, of larger ones in place


@dataclass(frozen=True)
class Prediction:
    """The age of one face.

    Attributes:
        age: years, the median of the predicted distribution.
        interval: years; the bounds of the middle 80 % of the distribution.
        group: the age group that `age` lies in, such as "30-39"; usually the most probable one.
        probabilities: of all ten groups, by name; they sum to 1.
        face: the face's box, landmarks and score.
        number: its number in the photo, 1 for the largest face.
    """

    age: float
    interval: tuple[float, float]
    group: str
    probabilities: dict[str, float]
    face: Face
    number: int

    def as_dict(self) -> dict[str, Any]:
        """The prediction as JSON has it: rounded, with the box in px and the detector's score."""
        return {
            "face": self.number,
            "age": round(self.age, 2),
            "interval": [round(year, 2) for year in self.interval],
            "group": self.group,
            "probabilities": {name: round(p, 5) for name, p in self.probabilities.items()},
            "box": [round(float(v), 1) for v in self.face.box],
            "score": round(float(self.face.score), 4),
        }


@dataclass(frozen=True, eq=False)
class FaceCrops:
    """Faces of one photo, cut out for the age classifier.

    Attributes:
        found: their numbers, boxes, landmarks and scores.
        pixels: uint8 (F,R,R,3) RGB with R = `config.classifier_crop`.
    """

    found: list[NumberedFace]
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class Aged:
    """One photo at one target age, with every chosen face changed.

    Attributes:
        age: the target age, in years.
        pixels: (H,W,3) RGB, uint16 for a photo of 16 bits, else uint8; outside the heads
            bit-identical to the photo.
        alpha: the photo's transparency (H,W), of the type of `pixels`, or None.
        crops: the changed faces alone, each uint8 (R,R,3); R is the model's size, or that of its
            fine level for faces that are large enough for it.
        faces: their boxes, landmarks and scores, in the order of `crops`.
        numbers: their numbers in the photo, 1 for the largest face.
    """

    age: float
    pixels: np.ndarray
    alpha: np.ndarray | None
    crops: tuple[np.ndarray, ...]
    faces: tuple[Face, ...]
    numbers: tuple[int, ...]

    @property
    def photo(self) -> Image.Image:
        """The photo as a PIL image of 8 bits, RGB or RGBA."""
        image = Image.fromarray(to_8_bit(self.pixels))
        if self.alpha is not None:
            image.putalpha(Image.fromarray(to_8_bit(self.alpha)))
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
        weights: a name (`faceage weights list`) or a path; None is the packaged model. A folder
            written by `faceage export` is run by ONNX Runtime, without torch.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps"; for an exported
            model "auto", "cpu", "cuda", "coreml", "directml".
        detector: "yunet" or "retinaface".
        min_score: from 0 to 1; faces with a lower score are ignored.

    Raises:
        WeightsError: the weights are missing, damaged, or of another architecture.
        ConfigError: there is no such device.
    """
    face_detector = load_detector(detector, min_score)
    return FaceAger(_load_backend(weights, device), face_detector)


def _load_backend(weights: str | Path | None, device: str) -> Backend:
    if weights is not None and hub.is_exported(weights):
        from faceage.inference.onnx_backend import OnnxBackend

        return OnnxBackend(Path(weights), device)
    from faceage.inference.torch_backend import TorchBackend  # imports torch

    return TorchBackend.load(hub.find(weights), device)


def load_detector(name: str = "yunet", min_score: float = MIN_SCORE) -> Detector:
    """A face detector, with its weights from the package or the cache.

    Raises:
        ConfigError: no such detector, or the score is out of range.
        WeightsError: its weights are missing or damaged.
    """
    needs_file = name in hub.REGISTRY
    return make_detector(name, min_score, hub.find(name) if needs_file else None)


class FaceAger:
    """Predicts the age of faces in photos, and ages them. Made by `load()`.

    A photo is a path, a PIL image, an array (H,W,3) RGB of 8 or 16 bits, or a `Photo`. `faces`
    chooses among its faces: "all", "largest", or numbers from 1 on, as in 2 or [1, 3]; 1 is the
    largest.

    Args:
        backend: the model, and what executes it.
        detector: finds the faces.
    """

    def __init__(self, backend: Backend, detector: Detector) -> None:
        self.backend = backend
        self.detector = detector

    @property
    def weights_sha(self) -> str:
        """The sha256 of the model's file, written into every result."""
        return self.backend.weights_sha

    def predict(
        self, photo: PhotoLike, faces: str | int | Iterable[int] = "all"
    ) -> list[Prediction]:
        """The age of every chosen face, largest first.

        Raises:
            PhotoError: the photo cannot be opened.
            NoFaceError: there is no face, or not so many.
        """
        return self.predict_crops(self.crop_faces(as_photo(photo), faces))

    def crop_faces(self, photo: Photo, faces: str | int | Iterable[int] = "all") -> FaceCrops:
        """The chosen faces, cut out for the classifier: the part of `predict` without networks.

        Raises:
            NoFaceError: there is no face, or not so many.
        """
        found = choose_faces(photo, self.detector, faces)
        side = self.backend.classifier_crop
        return FaceCrops(
            found, np.stack([crop_face(photo.pixels, face, side) for _, face in found])
        )

    def predict_crops(self, crops: FaceCrops) -> list[Prediction]:
        """The ages of faces from `crop_faces`."""
        distributions = self.backend.predict(crops.pixels)
        return [
            _make_prediction(distribution, face, number)
            for distribution, (number, face) in zip(distributions, crops.found, strict=True)
        ]

    def age(
        self,
        photo: PhotoLike,
        to: float | Iterable[float],
        faces: str | int | Iterable[int] = "all",
    ) -> list[Aged]:
        """The photo at each target age (years from 0 to 100), in the order asked for.

        Raises:
            AgeError: a target age is out of range.
            PhotoError: the photo cannot be opened.
            NoFaceError: there is no face, or not so many.
        """
        photo = as_photo(photo)
        return list(self.iter_age(photo, to, choose_faces(photo, self.detector, faces)))

    def edit(self, photo: PhotoLike, faces: str | int | Iterable[int] = "all") -> PhotoEditor:
        """The photo with the chosen faces encoded, to be shown at any ages without encoding again.

        Raises:
            PhotoError: the photo cannot be opened.
            NoFaceError: there is no face, or not so many.
        """
        photo = as_photo(photo)
        return PhotoEditor(self.backend, photo, choose_faces(photo, self.detector, faces))

    def iter_age(
        self,
        photo: Photo,
        to: float | Iterable[float],
        found: Sequence[NumberedFace],
        in_place: bool = False,
    ) -> Iterator[Aged]:
        """As `age`, for chosen faces, one result at a time, because a photo may be large.

        Each face is encoded once and decoded to all ages together.

        Args:
            in_place: change the photo's own array instead of a copy. The pixels of a result are
                valid until the next one is asked for; the last one stays in the photo.
        """
        targets = [check_age(age) for age in ([to] if isinstance(to, int | float) else to)]
        editor = PhotoEditor(self.backend, photo, found)
        faces = editor.faces
        changes = [editor.decode(index, targets) for index in range(len(faces))]

        def render(i: int) -> Aged:
            pixels, crops = photo.full if in_place else photo.full.copy(), []
            for index in range(len(faces)):
                change = editor.refine(index, changes[index][i])
                editor.paste(pixels, index, change)
                crops.append(editor.crop(index, change))
            return Aged(targets[i], pixels, photo.alpha, tuple(crops), faces, editor.numbers)

        if in_place:
            bounds = [crop_bounds(widen(face), within=photo.full.shape) for face in faces]
            parts = [photo.full[y0:y1, x0:x1] for x0, y0, x1, y1 in bounds]
            originals = [part.copy() for part in parts]

            def restore() -> None:  # as a function, so that no variable holds a part for longer
                for part, original in zip(parts, originals, strict=True):
                    part[:] = original

            for i in range(len(targets)):
                if i > 0:
                    restore()
                if i == len(targets) - 1:
                    originals.clear()  # as large as the faces
                yield render(i)
            return
        # While one result is written, the next two are computed, if there is memory for them.
        threads = 2 if photo.full.nbytes < MAX_AHEAD else 0
        for result in map_ahead(render, range(len(targets)), threads):
            yield result()


def _make_prediction(distribution: np.ndarray, face: Face, number: int) -> Prediction:
    age, interval, sums = summarize_distribution(distribution)
    return Prediction(
        age=age,
        interval=interval,
        group=GROUP_NAMES[nearest_group(age)],
        probabilities={n: float(p) for n, p in zip(GROUP_NAMES, sums, strict=True)},
        face=face,
        number=number,
    )
