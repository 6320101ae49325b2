"""What is measured: systems that age faces. One kind is a file of weights of this package.

The other kind, finished pictures of any other system, is `faceage.evaluate.folders`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from faceage import hub
from faceage.ages import MAX_AGE
from faceage.checkpoints import load_weights
from faceage.evaluation.inputs import Indices, Inputs, LabelledInputs
from faceage.models.generator import FaceAgeModel, apply_change
from faceage.models.tta import decode_tta, encode_tta, predict_distributions

_NOT_TOLD = ("config", "figures")


@dataclass(frozen=True, eq=False)
class Crops:
    """Some faces to be aged.

    Attributes:
        places: (N,) where they stand among the inputs.
        images: uint8 (N,R,R,3) RGB FFHQ crops, R = `CROP`.
        landmarks: (N,5,2) px of the crops; nan where unknown.
        ages: (N,) their own ages, years; nan where unknown.
    """

    places: Indices
    images: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    ages: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Aged:
    """The same faces at another age.

    Attributes:
        images: uint8 (N,R,R,3) RGB; of any content where no face was found.
        landmarks: (N,5,2) px of the crops; nan where unknown.
        made: (N,) bool, whether the system gave a picture at all.
        found: (N,) bool, whether there is a face in it.
    """

    images: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    made: NDArray[np.bool_]
    found: NDArray[np.bool_]


class System(Protocol):
    """Anything that ages faces.

    Attributes:
        name: tells the measured systems apart; fit for a file name.
        inputs: the faces it has aged, where they are its own; None: the dataset's.
        available: the places of the inputs it has aged; None: it ages any.
        repeats: whether it ages its own results again.
        mark: what a contact sheet says in its metadata of how its pictures were made.
    """

    name: str
    inputs: Inputs | None
    available: Indices | None
    repeats: bool
    mark: dict[str, object]

    def describe(self) -> dict[str, Any]:
        """Its entry in the report, without figures."""
        ...

    def age(self, faces: Crops, targets: Sequence[NDArray[np.float64]]) -> Iterator[Aged]:
        """The faces at each of the targets, (N,) years, one target after the other."""
        ...

    def tell(self, inputs: LabelledInputs, chosen: Indices) -> NDArray[np.float64] | None:
        """Distributions over whole years, (N,101), as `faceage predict` makes them; or None."""
        ...


class Weights:
    """A model of this package: it ages crops as it ages the faces in photos.

    Args:
        model: on `device`, in eval mode.
    """

    inputs: Inputs | None = None
    available: Indices | None = None
    repeats = True

    def __init__(
        self,
        name: str,
        file: Path,
        sha256: str,
        model: FaceAgeModel,
        metadata: dict[str, str],
        device: torch.device,
    ) -> None:
        self.name, self.file, self.sha256 = name, file, sha256
        self.model, self.metadata, self.device = model, metadata, device
        self.mark: dict[str, object] = {"weights": sha256[:16]}

    def describe(self) -> dict[str, Any]:
        # What a file says about its own figures has no place beside measured ones. Sorted, as
        # safetensors gives them in another order every time.
        told = {k: self.metadata[k] for k in sorted(self.metadata) if k not in _NOT_TOLD}
        return {
            "name": self.name,
            "kind": "weights",
            "file": self.file.name,
            "sha256": self.sha256,
            "size": self.model.config.size,
            "metadata": told,
        }

    @torch.inference_mode()
    def age(self, faces: Crops, targets: Sequence[NDArray[np.float64]]) -> Iterator[Aged]:
        """The faces at each of the targets; they are encoded once.

        As in photos, the change is made at the model's size and applied to the larger crop.
        """
        config, every = self.model.config, np.ones(len(faces), bool)
        views = encode_tta(self.model, self._tensor(resized(faces.images, config.size)))
        crops, index = self._tensor(faces.images), torch.arange(len(faces), device=self.device)
        source = None if config.decomposition else self._years(faces.ages)
        for ages in targets:
            change = decode_tta(self.model, views, index, self._years(ages), source)
            images = to_pixels(apply_change(crops, change, "bicubic"))
            yield Aged(images, faces.landmarks, every, every)

    def tell(self, inputs: LabelledInputs, chosen: Indices) -> NDArray[np.float64] | None:
        if not self.model.config.decomposition:
            return None
        crops = inputs.crops(chosen, self.model.config.classifier_crop)
        return predict_distributions(self.model, self._tensor(crops))

    def _years(self, ages: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(ages).float().clamp(max=MAX_AGE).to(self.device)

    def _tensor(self, images: NDArray[np.uint8]) -> torch.Tensor:  # N,3,R,R in [-1, 1]
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1


def open_weights(names: Sequence[str | Path], device: torch.device) -> list[Weights]:
    """The models of these names or files, under names that tell them apart.

    Raises:
        WeightsError: a file is missing, damaged, or of another architecture.
    """
    systems: list[Weights] = []
    for name in names:
        path = hub.find(name)
        model, metadata = load_weights(path, device)
        taken = {system.name for system in systems}
        free = (f"{path.stem}-{n}" if n > 1 else path.stem for n in range(1, len(names) + 1))
        unique = next(text for text in free if text not in taken)
        sha256 = hub.file_sha256(path)
        systems.append(Weights(unique, path, sha256, model, metadata, device))
    return systems


def resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Pictures (N,R,R,3) at another size: shrunk by area, enlarged by cubic interpolation."""
    side = images.shape[1]
    if side == size:
        return images
    how = Image.Resampling.BICUBIC if side < size else Image.Resampling.BOX
    small = [np.asarray(Image.fromarray(image).resize((size, size), how)) for image in images]
    return np.stack(small)


def to_pixels(faces: torch.Tensor) -> NDArray[np.uint8]:  # N,3,R,R in [-1, 1] -> N,R,R,3 uint8
    """Faces as pictures."""
    levels = ((faces.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()
