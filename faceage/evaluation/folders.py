"""Finished pictures of any system, measured by the same rules as our own weights.

A folder holds results named `<input>_<age>.png` (jpg, webp). Where `<input>` is the name of a
picture of the dataset, that picture is the input and its labels count. Otherwise the inputs lie in
the folder, too, as `<input>.<ext>`, and what needs a label is not measured.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceage.ages import MAX_AGE
from faceage.data.datasets import WHOLE
from faceage.errors import ConfigError, DataError
from faceage.evaluation.evaluators import CROP
from faceage.evaluation.inputs import Indices, Inputs, LabelledInputs
from faceage.evaluation.systems import Aged, Crops
from faceage.faces.alignment import Face, apply, crop_face, to_crop
from faceage.faces.detection import Detector, make_detector
from faceage.imaging.photos import open_photo

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
HALF_YEAR = 0.5  # a picture counts for a target that is no farther from the age in its name
SAME_PLACE = 0.04  # of the crop's side: mean distance of landmarks that are at the same place

_RESULT = re.compile(r"(.+)_(\d{1,3}(?:\.\d+)?)")
_NAME = re.compile(r"\w[\w.-]*")


class FolderInputs:
    """Unlabelled photos, as `Inputs`: the largest face of each."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files, count = list(files), len(files)
        self.ages = np.full(count, np.nan)
        self.groups = np.full(count, -1)
        self.exact = np.zeros(count, bool)
        self.genders = np.full(count, "")
        self.valid = np.tile(WHOLE, (count, 1))
        self._detector: Detector = make_detector()
        self._seen: dict[int, tuple[NDArray[np.uint8], Face | None, tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self.files)

    def crops(self, chosen: Indices) -> NDArray[np.uint8]:
        """The chosen faces as crops; black where a photo shows none."""
        return np.stack([self._look(int(i))[0] for i in chosen])

    def landmarks(self, chosen: Indices) -> NDArray[np.float64]:
        """Their landmarks, (M,5,2) px of the crop; nan where a photo shows no face."""
        return np.stack([_own_landmarks(self._look(int(i))[1]) for i in chosen])

    def place(self, index: int) -> tuple[Face | None, tuple[int, int]]:
        """Where the face is in the photo, and the photo's width and height in px."""
        return self._look(index)[1:]

    def _look(self, index: int) -> tuple[NDArray[np.uint8], Face | None, tuple[int, int]]:
        if index not in self._seen:
            pixels = open_photo(self.files[index]).pixels
            face = next(iter(self._detector.detect(pixels)), None)
            crop = crop_face(pixels, face, CROP) if face else np.zeros((CROP, CROP, 3), np.uint8)
            self._seen[index] = crop, face, (pixels.shape[1], pixels.shape[0])
        return self._seen[index]


class PictureFolder:
    """A folder of finished pictures, as a system. Their faces are found and aligned here.

    A face that is where its input has it is cut out exactly as the input was: what the alignment
    would differ by is not counted as a change of the face. Any other is aligned by itself.

    Args:
        name: for the report; letters, digits, "_", "-" and ".".
        folder: with subfolders.
        labelled: the dataset.

    Raises:
        ConfigError: the name is not fit for a file name.
        DataError: there is no such folder, no result in it, or two for one input and age.
    """

    repeats = False

    def __init__(self, name: str, folder: str | Path, labelled: LabelledInputs) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be the name of a measured system.",
                "Use letters, digits, '_', '-' and '.', as in --images other=DIR.",
            )
        self.name, self.folder = name, Path(folder).expanduser()
        self.mark: dict[str, object] = {"system": name}
        if not self.folder.is_dir():
            raise DataError(f"No folder {self.folder}.", "Write --images NAME=DIR.")
        files = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        named = {file: (match[1], float(match[2])) for file in files if (match := _match(file))}
        labels: dict[str, list[int]] = {}
        for i, sample in enumerate(labelled.dataset.samples):
            labels.setdefault(Path(sample.file).stem, []).append(i)
        results = {file: key for file, key in named.items() if key[0] in labels}
        self.inputs: Inputs | None = None
        self._own: FolderInputs | None = None
        if not results:
            stems = {file.stem for file in files}
            results = {file: key for file, key in named.items() if key[0] in stems}
            wanted = {stem for stem, _ in results.values()}
            inputs = [file for file in files if file not in results and file.stem in wanted]
            self.inputs = self._own = FolderInputs(inputs)
            labels = {}
            for i, file in enumerate(inputs):
                labels.setdefault(file.stem, []).append(i)
            results = {file: key for file, key in results.items() if key[0] in labels}
        if not results:
            raise DataError(
                f"{self.folder} has no results named as <input>_<age>.png.",
                "<input> is the name of a picture of the dataset, or of one in the same folder.",
            )
        self._labelled = labelled
        self._detector: Detector = make_detector()
        self._results = _by_place(results, labels)
        self.available: Indices | None = np.array(sorted(self._results))
        self.left_out = len(named) - len(results)  # named as results, but of no input

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": "pictures",
            "file": self.folder.name,
            "sha256": None,
            "size": None,
            "metadata": {},
        }

    @property
    def ages(self) -> list[float]:
        """All ages that there are pictures of, in years."""
        return sorted({age for ages in self._results.values() for age in ages})

    def serves(self, target: float) -> bool:
        """Whether at least half of the faces were sent there, who are not of that age anyway.

        A few pictures at their faces' own ages do not make a target.
        """
        inputs: Inputs = self.inputs or self._labelled
        others = [p for p in self._results if not abs(inputs.ages[p] - target) <= HALF_YEAR]
        sent = sum(self._nearest(place, target) is not None for place in others)
        return sent > 0 and 2 * sent >= len(others)

    def age(self, faces: Crops, targets: Sequence[NDArray[np.float64]]) -> Iterator[Aged]:
        """The pictures of the faces at each of the targets.

        Raises:
            PhotoError: a picture is damaged.
        """
        for ages in targets:
            aged = Aged(
                np.zeros_like(faces.images),
                np.full((len(faces), 5, 2), np.nan),
                np.zeros(len(faces), bool),
                np.zeros(len(faces), bool),
            )
            for i, (place, age) in enumerate(zip(faces.places, ages, strict=True)):
                if path := self._nearest(int(place), age):
                    aged.made[i] = True
                    if cut := self._cut(path, int(place), faces.landmarks[i]):
                        aged.images[i], aged.landmarks[i] = cut
                        aged.found[i] = True
            yield aged

    def tell(self, inputs: LabelledInputs, chosen: Indices) -> None:
        return None

    def _nearest(self, place: int, target: float) -> Path | None:
        ages = self._results.get(place, {})
        near = [age for age in ages if abs(age - target) <= HALF_YEAR]
        return ages[min(near, key=lambda age: abs(age - target))] if near else None

    def _cut(
        self, path: Path, place: int, landmarks: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        """The crop of a result and the landmarks in it, or None if no face is found."""
        pixels = open_photo(path).pixels
        found = self._detector.detect(pixels)
        if not found:
            return None
        size = pixels.shape[1], pixels.shape[0]
        expected = self._expected(place, landmarks, size)
        for face in found:
            if expected is None:
                break
            distance = np.linalg.norm(face.landmarks - expected.landmarks, axis=1).mean()
            if distance < SAME_PLACE * expected.side:
                if self._own is None:  # the input is a crop already
                    return _scaled(pixels), landmarks
                return crop_face(pixels, expected, CROP), landmarks
        return crop_face(pixels, found[0], CROP), _own_landmarks(found[0])

    def _expected(
        self, place: int, landmarks: NDArray[np.float64], size: tuple[int, int]
    ) -> Face | None:
        """Where the input's face would be in a picture of this width and height."""
        face: Face | None = Face((0, 0, CROP, CROP), landmarks, 1.0)
        before = (CROP, CROP)
        if self._own is not None:
            face, before = self._own.place(place)
        if face is None or np.isnan(face.landmarks).any():
            return None
        scale = np.array(size) / before
        if abs(scale[0] / scale[1] - 1) > 0.01:
            return None  # cut out differently, or distorted
        return Face(face.box, (face.landmarks + 0.5) * scale - 0.5, face.score)


def _match(file: Path) -> re.Match[str] | None:
    match = _RESULT.fullmatch(file.stem)
    return match if match and float(match[2]) <= MAX_AGE else None


def _by_place(
    results: dict[Path, tuple[str, float]], labels: dict[str, list[int]]
) -> dict[int, dict[float, Path]]:
    """For every input the results of each age."""
    found: dict[int, dict[float, Path]] = {}
    for file, (stem, age) in results.items():
        if len(labels[stem]) > 1:
            raise DataError(f"Two inputs are called {stem}, so {file} may be of either.", "Rename.")
        ages = found.setdefault(labels[stem][0], {})
        if age in ages:
            raise DataError(f"{ages[age]} and {file} are the same face and age.", "Remove one.")
        ages[age] = file
    return found


def _own_landmarks(face: Face | None) -> NDArray[np.float64]:
    """A face's landmarks in its own crop."""
    if face is None:
        return np.full((5, 2), np.nan)
    return apply(to_crop(face.landmarks, CROP), face.landmarks)


def _scaled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of (nearly) equal sides as a crop."""
    image = Image.fromarray(pixels)
    smaller = min(image.size) >= CROP
    how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    return np.asarray(image.resize((CROP, CROP), how))
