"""Files of the model: weights (to use, .safetensors) and state (to resume training).

Weights carry their architecture: the `ModelConfig` and everything a user should know (data,
images seen, licence, measured figures) stand in the file's metadata. Half precision for matrices
and kernels, full precision for the small rest.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from faceage import hub
from faceage.errors import WeightsError
from faceage.files import replace_file
from faceage.models.generator import FaceAgeModel, ModelConfig

FORMAT = "faceage-1"

BatchNorm = nn.BatchNorm2d | nn.SyncBatchNorm


def save_weights(path: str | Path, model: FaceAgeModel, metadata: dict[str, str]) -> Path:
    """Write a model's weights, atomically.

    Args:
        path: the .safetensors file; replaced if it exists.
        model: its parameters and buffers are written, matrices and kernels as float16.
        metadata: str -> str; `format` and `config` are added.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    tensors = {
        name: (value.half() if value.ndim > 1 else value.float()).cpu().contiguous()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    metadata = metadata | {"format": FORMAT, "config": json.dumps(asdict(model.config))}
    return replace_file(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_weights(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[FaceAgeModel, dict[str, str]]:
    """Read a model, ready to use.

    Returns:
        The model in eval mode on `device`, and the file's metadata.

    Raises:
        WeightsError: missing, damaged, not written by this package, or another architecture.
    """
    path = Path(path)
    metadata = read_metadata(path)
    try:
        config = ModelConfig(**json.loads(metadata["config"]))
        for option in fields(ModelConfig):
            if type(value := getattr(config, option.name)) is not option.type:
                raise TypeError(f"{option.name} is {value!r}")
        model = FaceAgeModel(config)
    except (KeyError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(
            f"{path} describes an architecture this version does not know ({error}).",
            "Update faceage, or use weights made for this version.",
        ) from None
    expected = {k: v for k, v in model.state_dict().items() if not k.endswith("batches_tracked")}
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if problem := _mismatch(expected, tensors):
        raise WeightsError(
            f"{path} does not fit its own architecture: {problem}.",
            "The file is damaged or of another version; fetch or train it again.",
        )
    model.load_state_dict(tensors, strict=False)  # counters of batch norm are the only absentees
    model.eval().to(device).to(memory_format=torch.channels_last)
    return model.requires_grad_(False), metadata


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a weights file of this package.

    Raises:
        WeightsError: missing, damaged, or not written by this package.
    """
    metadata = hub.read_metadata(Path(path))
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} was not written by faceage (format {metadata.get('format')!r:.40}).",
            f"Weights made by `faceage train` have the format {FORMAT!r}.",
        )
    return metadata


def save_state(path: str | Path, state: dict[str, Any]) -> Path:
    """Write a training state, atomically. Tensors, numbers, strings, lists and dicts only."""
    return replace_file(Path(path), lambda temporary: torch.save(state, temporary))


def load_state(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a training state. Never runs code from the file (`weights_only`).

    Raises:
        WeightsError: damaged or not a training state.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} is not a readable training state ({reason[:120]}).",
            "Remove it to start over, or give another --out.",
        ) from None
    if not isinstance(state, dict) or not {"images_seen", "config"} <= state.keys():
        raise WeightsError(f"{path} is not a training state.", "Give another --out.")
    return state


def recalibrate(norms: Iterable[BatchNorm], run: Callable[[int], None], batches: int) -> None:
    """Give averaged weights batch statistics of their own.

    Averaged weights produce other activations than the weights whose statistics they carry.

    Args:
        norms: the batch norms to measure; left in eval mode with the mean over the batches.
        run: called with 0 ... batches - 1, passes a batch through the model.
        batches: how many.
    """
    momenta: list[tuple[BatchNorm, float | None]] = []
    for norm in norms:
        momenta.append((norm, norm.momentum))
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    with torch.no_grad():
        for batch in range(batches):
            run(batch)
    for norm, momentum in momenta:
        norm.momentum = momentum
        norm.eval()


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file or of a state dict saved by torch, as float32.

    Raises:
        WeightsError: missing or damaged.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.float() for name, value in tensors.items()}
    except Exception as error:  # half a dozen kinds, of two libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"Cannot read {path} ({reason[:120]}).", "Give another file.") from None


def _mismatch(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> str:
    """The first difference in names or shapes, in words; empty if there is none."""
    for name in sorted(expected.keys() ^ found.keys()):
        return f"{name} is {'missing' if name in expected else 'too many'}"
    for name, value in expected.items():
        if value.shape != found[name].shape:
            return f"{name} has shape {tuple(found[name].shape)}, not {tuple(value.shape)}"
    return ""
