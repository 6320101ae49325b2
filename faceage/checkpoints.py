"""Files of the model: weights (to use, .safetensors) and state (to resume training).

The metadata of a weights file hold the architecture (`ModelConfig`) and what users should know:
data, images seen, licence, figures. Matrices and kernels are stored as float16, the rest as
float32.

Files are not trusted. Before memory is allocated for a network, its options are checked against
`LIMITS` and its tensors' names and shapes against the file; nothing in a file is executed.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from faceage import hub
from faceage.errors import WeightsError
from faceage.files import replace_file
from faceage.models.architecture import ModelConfig
from faceage.models.generator import SHARED, FaceAgeModel
from faceage.models.windows import CLASSIFIER_WINDOWS

FORMAT = "faceage-1"

CHOICES = {"encoder": tuple(CLASSIFIER_WINDOWS), "decoder": ("residual", "unet")}

# Smallest and largest value of an option of `ModelConfig`, and what it is a multiple of. FFHQ's
# pictures have 1024 px, of which the inner face is half; the classifier halves five times. The
# widest and deepest network allowed is four times as wide and five times as deep as the paper's.
LIMITS = {
    "size": (32, 1024, 32),
    "classifier_size": (32, 512, 32),
    "width": (16, 256, 16),
    "encoder_blocks": (1, 16, 1),
    "classifier_blocks": (1, 16, 1),
    "decoder_blocks": (0, 16, 1),
}

FINE_LIMIT = 256  # px; largest `size` with a fine level, which works at four times as many

BatchNorm = nn.BatchNorm2d | nn.SyncBatchNorm


def save_weights(path: str | Path, model: FaceAgeModel, metadata: dict[str, str]) -> Path:
    """Write a model's weights, atomically.

    Args:
        path: the .safetensors file; replaced if it exists.
        model: the source of parameters and buffers; matrices and kernels become float16.
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


def interpolate_weights(before: Path, after: Path, fraction: float, out: Path) -> Path:
    """Write the mean of a model's weights before and after fine-tuning.

    Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", CVPR 2022: weights on one path of
    training can be interpolated, and often combine the strengths of both ends.

    Args:
        before, after: of one architecture; a fine level that only one of them has is kept as it is.
        fraction: the weight of `after`, from 0 to 1.
        out: the file to write, with the metadata of `after`; the figures, which are of age
            estimation, only if both have the same classifier.

    Raises:
        WeightsError: a file is missing or damaged, or the models differ in their architecture.
        OutputError: `out` cannot be written.
    """
    (first, former), (second, metadata) = load_weights(before), load_weights(after)
    if replace(first.config, fine_level=second.config.fine_level) != second.config:
        raise WeightsError(f"{before} and {after} differ in architecture.", "Give related weights.")
    ends = first.state_dict(), second.state_dict()
    shared = [name for name in ends[1] if name.split(".")[0] in SHARED]
    if not all(torch.equal(ends[0][name], ends[1][name]) for name in shared):
        metadata.pop("figures", None)
    model = second
    if first.config.fine_level and not second.config.fine_level:
        model = first
        metadata |= {k: v for k, v in former.items() if k == "fine_level"}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name not in ends[0] or name not in ends[1]:
                continue  # of a fine level that one of the two has
            a, b = (end[name].clone() for end in ends)
            value.copy_(torch.lerp(a, b, fraction) if value.dtype.is_floating_point else b)
    described = {"before": hub.file_sha256(before), "after": hub.file_sha256(after)}
    metadata["interpolated"] = json.dumps(described | {"fraction": fraction})
    return save_weights(out, model, metadata)


def load_weights(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[FaceAgeModel, dict[str, str]]:
    """Read a model, ready to use.

    Returns:
        The model in eval mode on `device`, and the file's metadata.

    Raises:
        WeightsError: missing, damaged, not written by this package, another architecture, or
            values that are not finite.
    """
    path = Path(path)
    metadata = read_metadata(path)
    config = _parse_config(path, metadata.get("config", ""))
    expected = _tensor_shapes(config)
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            problem = _mismatch(expected, {n: tuple(s.get_shape()) for n, s in slices.items()})
            for name, tensor in slices.items():
                if tensor.get_dtype() not in ("F16", "BF16", "F32"):
                    problem = f"{name:.80} has values of type {tensor.get_dtype()}"
            if not problem:
                tensors = {name: file.get_tensor(name).float() for name in expected}
                problem = _invalid_values(tensors)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}).", "Copy or fetch it again.") from None
    if problem:
        raise WeightsError(
            f"{path} cannot be used: {problem}.", "Copy or fetch it again, or use other weights."
        )
    model = FaceAgeModel(config)
    model.load_state_dict(tensors, strict=False)  # batch norm's counters are not in the file
    model.eval().to(device).to(memory_format=torch.channels_last)
    return model.requires_grad_(False), metadata


def check_config(config: ModelConfig) -> list[str]:
    """What keeps an architecture from being built; an empty list if nothing does.

    Every option must have the type of its default and be within `LIMITS`; `size` must also be a
    power of two.
    """
    problems: list[str] = []
    defaults = vars(ModelConfig())
    for name, value in vars(config).items():
        expected = type(defaults[name])
        if type(value) is not expected:
            problems.append(f"{name} is {value!r:.40}, which is not of type {expected.__name__}")
        elif name in CHOICES and value not in CHOICES[name]:
            problems.append(f"{name} is {value!r:.40}, must be {' or '.join(CHOICES[name])}")
        elif name in LIMITS:
            low, high, step = LIMITS[name]
            if not low <= value <= high:
                problems.append(f"{name} is {value!s:.40}, must be from {low} to {high}")
            elif value % step:
                problems.append(f"{name} is {value}, must be a multiple of {step}")
            elif name == "size" and value & (value - 1):
                problems.append(f"{name} is {value}, must be a power of two")
    if not problems and config.fine_level and config.size > FINE_LIMIT:
        problems.append(f"size is {config.size}, must be at most {FINE_LIMIT} with a fine level")
    return problems


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
        WeightsError: missing, damaged or not a training state.
    """
    path = Path(path)
    try:
        hub.check_file(path)
        _check_archive(path)
        state = torch.load(path, map_location=device, weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # torch and zipfile raise many kinds
        raise WeightsError(
            f"{path} is not a readable training state ({_first_line(error)}).",
            "Remove it to start over, or give another --out.",
        ) from None
    if not isinstance(state, dict) or not {"images_seen", "config"} <= state.keys():
        raise WeightsError(f"{path} is not a training state.", "Give another --out.")
    return state


def recalibrate(norms: Iterable[BatchNorm], run: Callable[[int], None], batches: int) -> None:
    """Measure batch-norm statistics anew, for averaged (EMA) weights.

    Averaged weights produce other activations than the weights that were trained.

    Args:
        norms: the batch norms; their statistics become the mean over the batches, their mode eval.
        run: called with 0 ... batches - 1; passes a batch through the model.
        batches: number of batches.
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


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a state dict saved by torch, as float32.

    Raises:
        WeightsError: missing or damaged.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            hub.read_metadata(path)  # refuses large headers
            tensors = load_file(path)
        else:
            hub.check_file(path)
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.float() for name, value in tensors.items()}
    except WeightsError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds
        raise WeightsError(
            f"Cannot read {path} ({_first_line(error)}).", "Give another file."
        ) from None


class _SkipRandomInit(TorchFunctionMode):
    """Skips `normal_`, for which the meta device imports torch's compiler: 250 MB, a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _parse_config(path: Path, text: str) -> ModelConfig:
    try:
        config = ModelConfig(**json.loads(text))
        problems = check_config(config)
    except (TypeError, ValueError, RecursionError) as error:
        problems = [_first_line(error)]
    if problems:
        raise WeightsError(
            f"{path} has an architecture that this version cannot build: {'; '.join(problems)}.",
            "Update faceage, or use weights made for this version.",
        )
    return config


def _tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a weights file; allocates none of them."""
    with torch.device("meta"), _SkipRandomInit():
        state = FaceAgeModel(config).state_dict()
    return {n: tuple(v.shape) for n, v in state.items() if not n.endswith("num_batches_tracked")}


def _mismatch(expected: Mapping[str, object], found: Mapping[str, object]) -> str:
    """The first difference in names or shapes; "" if there is none."""
    for name in sorted(expected.keys() ^ found.keys()):
        return f"{name:.80} is {'missing' if name in expected else 'not part of its architecture'}"
    for name, shape in expected.items():
        if shape != found[name]:
            return f"{name} has shape {found[name]}, not {shape}"
    return ""


def _invalid_values(tensors: dict[str, Tensor]) -> str:
    """The first tensor with which a network computes NaN; "" if there is none."""
    for name, value in tensors.items():
        if not value.sum().isfinite():  # one pass; NaN and infinities remain in the sum
            return f"{name} has values that are not finite, or too large"
        if name.endswith("running_var") and (value < 0).any():
            return f"{name} has negative variances"
    return ""


def _check_archive(path: Path) -> None:
    """Compare the checksums in a file written by `torch.save`, which torch does not do itself."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("larger than its file")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")


def _first_line(error: Exception) -> str:
    """An error of a library, in one short line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
