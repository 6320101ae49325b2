"""The networks executed by torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from faceage.checkpoints import load_weights
from faceage.devices import pick_device
from faceage.errors import WeightsError
from faceage.hub import file_sha256
from faceage.imaging.conversion import to_tensor
from faceage.inference.backend import FaceChange, Floats, Pixels
from faceage.models.decoders import Change, Decomposed
from faceage.models.generator import FaceAgeModel, apply_change
from faceage.models.tta import CHUNK, decode_tta, encode_tta, predict_distributions


class TorchBackend:
    """A `Backend` whose networks torch executes.

    Args:
        model: in eval mode, on the device on which it is to run.
        weights_sha: the sha256 of the model's file.

    Raises:
        WeightsError: the model is the baseline without an age classifier.
    """

    def __init__(self, model: FaceAgeModel, weights_sha: str = "") -> None:
        if not model.config.decomposition:
            raise WeightsError(
                "These weights are a RAGAN baseline, which has no age classifier.",
                "Use weights trained with decomposition, or faceage evaluate to compare the two.",
            )
        self.model = model
        self.size = model.config.size
        self.fine_size = model.config.fine_size if model.config.fine_level else 0
        self.classifier_crop = model.config.classifier_crop
        self.weights_sha = weights_sha
        self._device = next(model.parameters()).device

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "TorchBackend":
        """Read a weights file.

        Raises:
            WeightsError: the weights are missing, damaged, or of another architecture.
            ConfigError: there is no such device.
        """
        model, _ = load_weights(path, device=pick_device(device))
        return cls(model, file_sha256(path))

    def predict(self, crops: Pixels) -> NDArray[np.float64]:
        return predict_distributions(self.model, to_tensor(crops, self._device))

    @torch.inference_mode()
    def encode(self, crops: Pixels) -> Decomposed:
        return encode_tta(self.model, to_tensor(crops, self._device))

    @torch.inference_mode()
    def decode(self, encoded: Decomposed, index: int, ages: Sequence[float]) -> list[FaceChange]:
        years = torch.tensor(ages, dtype=torch.float32, device=self._device)
        changes = []
        for part in torch.split(years, CHUNK):
            repeated = torch.full((len(part),), index, device=self._device)
            change = decode_tta(self.model, encoded, repeated, part)
            arrays = (tensor.float().cpu().numpy() for tensor in change)
            changes += [FaceChange(*pair) for pair in zip(*arrays, strict=True)]
        return changes

    @torch.inference_mode()
    def refine(self, crop: Pixels, change: FaceChange) -> FaceChange:
        face = to_tensor(crop[None], self._device)
        refined = self.model.refine(face, self._to_change(change))
        return change._replace(residual=refined.residual[0].float().cpu().numpy())

    @torch.inference_mode()
    def apply(self, crop: Pixels, change: FaceChange) -> Floats:
        tensors = self._to_change(change)
        aged = apply_change(to_tensor(crop[None], self._device), tensors, "bicubic")
        pixels: Floats = aged[0].permute(1, 2, 0).float().cpu().numpy()
        return pixels

    def _to_change(self, change: FaceChange) -> Change:
        return Change(*(torch.from_numpy(part)[None].to(self._device) for part in change))
