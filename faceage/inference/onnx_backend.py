"""The networks executed by ONNX Runtime, without torch."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceage.errors import ConfigError, WeightsError
from faceage.hub import EXPORT_DESCRIPTION, file_sha256
from faceage.inference.backend import FaceChange, Floats, Pixels

FORMAT = "faceage-onnx-2"
GRAPHS = ("predict.onnx", "encode.onnx", "decode.onnx")
REFINE = "refine.onnx"  # only of models with a fine level
# The execution provider of each device; "auto" takes CUDA if there is one, else the CPU.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
CHUNK = 16  # faces in one batch; bounds the memory


class OnnxBackend:
    """A `Backend` that runs the graphs in a folder written by `faceage export`.

    Args:
        folder: with the graphs and `model.json`.
        device: "auto", "cpu", "cuda", "coreml" or "directml".

    Raises:
        ConfigError: ONNX Runtime is not installed, or has no such device.
        WeightsError: a file is missing, damaged, or of another version.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        description = _read_description(folder)
        self.size: int = description["size"]
        self.fine_size: int = description["fine_size"]
        self.classifier_crop: int = description["classifier_crop"]
        self.weights_sha: str = description["weights"]
        providers = _find_providers(device)

        def load(name: str) -> Any:
            return _load(folder / name, description["files"].get(name, ""), providers)

        self._predict, self._encode, self._decode = map(load, GRAPHS)
        self._refine = load(REFINE) if self.fine_size else None

    def predict(self, crops: Pixels) -> NDArray[np.float64]:
        parts = np.split(_normalise(crops), range(CHUNK, len(crops), CHUNK))
        rows = [self._predict.run(None, {"crops": part})[0] for part in parts]
        return np.concatenate(rows).astype(np.float64)

    def encode(self, crops: Pixels) -> dict[str, Floats]:
        outputs = self._encode.run(None, {"faces": _normalise(crops)})
        return dict(zip(("identity", "skip", "views"), outputs, strict=True))

    def decode(
        self, encoded: dict[str, Floats], index: int, ages: Sequence[float]
    ) -> list[FaceChange]:
        used = {node.name for node in self._decode.get_inputs()}
        changes = []
        for start in range(0, len(ages), CHUNK):
            years = np.asarray(ages[start : start + CHUNK], np.float32)
            inputs = {**encoded, "index": np.full(len(years), index), "ages": years}
            outputs = self._decode.run(None, {k: v for k, v in inputs.items() if k in used})
            changes += [FaceChange(*pair) for pair in zip(*outputs, strict=True)]
        return changes

    def refine(self, crop: Pixels, change: FaceChange) -> FaceChange:
        assert self._refine
        moved = _displace(crop, change.flow, cv2.INTER_LINEAR).transpose(2, 0, 1)[None]
        inputs = {"moved": np.ascontiguousarray(moved), "residual": change.residual[None]}
        return change._replace(residual=self._refine.run(None, inputs)[0][0])

    def apply(self, crop: Pixels, change: FaceChange) -> Floats:
        side = crop.shape[0]
        moved = _displace(crop, change.flow, cv2.INTER_CUBIC)
        # Pillow's bicubic filter is the one that torch uses with antialiasing; OpenCV's is not.
        residual = [
            np.asarray(Image.fromarray(layer).resize((side, side), Image.Resampling.BICUBIC))
            for layer in change.residual
        ]
        aged: Floats = np.clip(moved + np.stack(residual, -1), -1, 1)
        return aged


def _displace(crop: Pixels, flow: Floats, interpolation: int) -> Floats:  # R,R,3 -> R,R,3
    """A crop in [-1, 1], displaced."""
    side = len(crop)
    offsets = cv2.resize(flow.transpose(1, 2, 0), (side, side), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(*[np.arange(side, dtype=np.float32)] * 2)
    moved = cv2.remap(
        _normalise(crop[None])[0].transpose(1, 2, 0),
        np.clip(x + offsets[..., 0] * side / 2, 0, side - 1),
        np.clip(y + offsets[..., 1] * side / 2, 0, side - 1),
        interpolation,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.float32)


def _normalise(crops: Pixels) -> Floats:  # N,R,R,3 -> N,3,R,R in [-1, 1]
    faces = crops.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
    return np.ascontiguousarray(faces, np.float32)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / EXPORT_DESCRIPTION
    hint = "Write the folder again with faceage export."
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise WeightsError(f"There is no {EXPORT_DESCRIPTION} in {folder}.", hint) from None
    except ValueError:
        raise WeightsError(f"{path} is damaged.", hint) from None
    numbers = ("size", "fine_size", "classifier_crop")
    expected = {"format": str, "weights": str, "files": dict} | dict.fromkeys(numbers, int)
    if not isinstance(description, dict) or any(
        not isinstance(description.get(key), kind) for key, kind in expected.items()
    ):
        raise WeightsError(f"{path} is damaged.", hint)
    if description["format"] != FORMAT:
        raise WeightsError(f"{path} has the format {description['format']!r:.40}.", hint)
    return description


def _find_providers(device: str) -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(
            "Exported models need ONNX Runtime.", "Install it: pip install onnxruntime"
        ) from None
    available = onnxruntime.get_available_providers()
    if device == "auto":
        wanted = "cuda" if PROVIDERS["cuda"] in available else "cpu"
    else:
        wanted = device.partition(":")[0]
    if PROVIDERS.get(wanted) not in available:
        known = [name for name, provider in PROVIDERS.items() if provider in available]
        raise ConfigError(
            f"ONNX Runtime has no device {device!r} here.", f"Use {' or '.join(known)}."
        )
    return [PROVIDERS[wanted]]


def _load(path: Path, sha256: str, providers: list[str]) -> Any:
    import onnxruntime

    hint = "Write the folder again with faceage export."
    if not path.is_file():
        raise WeightsError(f"There is no {path.name} in {path.parent}.", hint)
    if file_sha256(path) != sha256:
        raise WeightsError(f"{path} is damaged: its checksum differs.", hint)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime has many classes of errors
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} cannot be used: {reason}.", hint) from None
