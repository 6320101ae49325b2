"""What is evaluated: a weights file of this package, or a folder of another method's results."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from faceage import hub
from faceage.ages import MAX_AGE
from faceage.checkpoints import load_weights
from faceage.errors import ConfigError, DataError
from faceage.evaluation.common import CROP, Flags, Floats, Indices, Inputs, Pixels
from faceage.evaluation.results import MethodInfo, clean_text
from faceage.faces.alignment import Face, apply, crop_face, to_crop
from faceage.imaging.conversion import resize_images, to_tensor, to_uint8
from faceage.imaging.photos import open_photo
from faceage.models.generator import FaceAgeModel, apply_change
from faceage.models.tta import decode_tta, encode_tta, predict_distributions

TOLERANCE = 0.5  # years between a target and the age in a result's name
SAME_PLACE = 0.04  # of the crop's side: mean distance of landmarks that count as equal

_RESULT = re.compile(r"(.+)_(\d{1,3}(?:\.\d+)?)\.(?:png|jpe?g|webp)", re.IGNORECASE)


class FaceBatch(NamedTuple):
    """N faces to be aged."""

    indices: Indices  # (N,) of the inputs
    images: Pixels  # N,R,R,3 with R = `CROP`
    ages: Floats  # (N,) source ages, years


class AgedBatch(NamedTuple):
    """N faces at another age."""

    images: Pixels  # N,R,R,3; arbitrary where no face was found
    exists: Flags  # (N,) whether there is a result
    found: Flags  # (N,) whether a face was found in it
    landmarks: Floats | None = None  # (N,5,2) px, nan without a face; None: those of the inputs


class WeightsMethod:
    """A model of this package (on `device`, in eval mode): it ages crops as faces in photos."""

    def __init__(self, info: MethodInfo, model: FaceAgeModel, device: torch.device) -> None:
        self.info, self.model, self.device = info, model, device

    @torch.inference_mode()
    def age(self, faces: FaceBatch, targets: Sequence[Floats]) -> Iterator[AgedBatch]:
        """The faces at each of the targets, (N,) years; they are encoded once.

        As in photos, the change is computed at the model's size and applied to the larger crop. A
        fine level has no effect on crops of this size: see `editing.refine_change`.
        """
        config, every = self.model.config, np.ones(len(faces.images), bool)
        small = to_tensor(resize_images(faces.images, config.size), self.device)
        views, index = encode_tta(self.model, small), torch.arange(len(small), device=self.device)
        source = None if config.decomposition else self._years(faces.ages)
        for ages in targets:
            change = decode_tta(self.model, views, index, self._years(ages), source)
            aged = apply_change(to_tensor(faces.images, self.device), change, "bicubic")
            yield AgedBatch(to_uint8(aged), every, every)

    def predict(self, images: Pixels) -> Floats:
        """Distributions over whole years, (N,101), of crops of `config.classifier_crop` px."""
        return predict_distributions(self.model, to_tensor(images, self.device))

    def _years(self, ages: Floats) -> torch.Tensor:
        return torch.from_numpy(ages).float().clamp(max=MAX_AGE).to(self.device)


def open_weights(names: Sequence[str | Path], device: torch.device) -> list[WeightsMethod]:
    """The models of these names or files; files of one name are numbered: "a", "a-2"."""
    methods: list[WeightsMethod] = []
    for path in map(hub.find, names):
        model, metadata = load_weights(path, device)
        stem, taken = clean_text(path.stem), {method.info.name for method in methods}
        free = (f"{stem}-{n}" if n > 1 else stem for n in range(1, len(names) + 1))
        name = next(text for text in free if text not in taken)
        # The figures that a file claims for itself have no place beside measured ones.
        shown = {k: metadata[k] for k in sorted(metadata) if k not in ("config", "figures")}
        sha256, size = hub.file_sha256(path), model.config.size
        info = MethodInfo(name, "weights", path.name, sha256, size, shown)
        methods.append(WeightsMethod(info, model, device))
    return methods


class FolderMethod:
    """A folder of result pictures, named `<input>_<age>.png` (jpg, webp) as the dataset's pictures.

    A face at the same place as its input's is cropped exactly as the input, so that no difference
    of alignment counts as a change of the face. Any other is aligned by its own landmarks.

    Args:
        name: for the report and file names; letters, digits, "_", "-" and ".".
        folder: with subfolders.

    Raises:
        ConfigError: the name has other characters.
        DataError: there is no such folder, no result in it, or two for one input and age.
    """

    def __init__(self, name: str, folder: str | Path, inputs: Inputs) -> None:
        if not re.fullmatch(r"\w[\w.-]*", name):
            problem = f"{name!r} cannot be the name of a method."
            raise ConfigError(problem, "Use letters, digits, '_', '-' and '.': other=DIR.")
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise DataError(f"No folder {folder}.", "Write --images NAME=DIR.")
        self.info, self._inputs = MethodInfo(name, "pictures", folder.name), inputs
        self._results, self.unmatched = _find_results(folder, inputs)
        if not self._results:
            problem = f"{folder} has no results named as <input>_<age>.png."
            raise DataError(problem, "<input> is the name of a picture of the dataset.")
        self.available = np.array(sorted(self._results))  # indices of the inputs with results
        self.ages = sorted({age for results in self._results.values() for age in results})

    def covers(self, target: float) -> bool:
        """Whether at least half of the inputs with results have one at this target."""
        found = [index for index in self._results if self._find(index, target)]
        return 2 * len(found) >= len(self._results)

    def age(self, faces: FaceBatch, targets: Sequence[Floats]) -> Iterator[AgedBatch]:
        """The results of the faces at each of the targets, (N,) years."""
        for ages in targets:
            exists, found = np.zeros((2, len(ages)), bool)
            images, landmarks = np.zeros_like(faces.images), np.full((len(ages), 5, 2), np.nan)
            for i, (index, target) in enumerate(zip(faces.indices, ages, strict=True)):
                if path := self._find(int(index), target):
                    exists[i] = True
                    if aligned := self._align(path, index):
                        found[i] = True
                        images[i], landmarks[i] = aligned
            yield AgedBatch(images, exists, found, landmarks)

    def _find(self, index: int, target: float) -> Path | None:
        results = self._results.get(index, {})
        near = min(results, key=lambda age: abs(age - target), default=np.inf)
        return results[near] if abs(near - target) <= TOLERANCE else None

    def _align(self, path: Path, index: np.intp) -> tuple[Pixels, Floats] | None:
        """The crop of a result and the landmarks in it; None if no face is found."""
        pixels = open_photo(path).pixels
        faces = self._inputs.detector.detect(pixels)
        own, side = self._inputs.landmarks(np.array([index]))[0], pixels.shape[0]
        if side == pixels.shape[1] and np.isfinite(own).all():
            expected = (own + 0.5) * (side / CROP) - 0.5
            reach = SAME_PLACE * Face((0, 0, side, side), expected, 1.0).side
            for face in faces:
                if np.linalg.norm(face.landmarks - expected, axis=1).mean() < reach:
                    return resize_images(pixels[None], CROP)[0], own
        if not faces:
            return None
        points = faces[0].landmarks
        return crop_face(pixels, faces[0], CROP), apply(to_crop(points, CROP), points)


Method = WeightsMethod | FolderMethod


def _find_results(folder: Path, inputs: Inputs) -> tuple[dict[int, dict[float, Path]], int]:
    """The results of every input by age, and how many results have no input."""
    indices: dict[str, list[int]] = {}
    for i, sample in enumerate(inputs.dataset.samples):
        indices.setdefault(Path(sample.file).stem, []).append(i)
    results: dict[int, dict[float, Path]] = {}
    unmatched = 0
    for file in sorted(folder.rglob("*")):
        match = _RESULT.fullmatch(file.name)
        if not match or (age := float(match[2])) > MAX_AGE:
            continue
        found = indices.get(match[1], [])
        unmatched += not found
        if len(found) > 1:
            raise DataError(f"{file} may be of either of two inputs of one name.", "Rename them.")
        for ages in (results.setdefault(index, {}) for index in found):
            if age in ages:
                raise DataError(f"{ages[age]} and {file} are one face and age.", "Remove one.")
            ages[age] = file
    return results, unmatched
