"""Export of a trained model as ONNX, for ONNX Runtime."""

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from faceage import hub
from faceage.checkpoints import load_weights, read_metadata
from faceage.errors import ConfigError, WeightsError
from faceage.files import check_free, make_folder, replace_file, write_file
from faceage.inference.onnx_backend import FORMAT, GRAPHS, REFINE
from faceage.models.decoders import Decomposed
from faceage.models.generator import FaceAgeModel
from faceage.models.tta import classify_tta, decode_tta, encode_tta

OPSET = 18
PRECISIONS = ("fp32", "fp16", "int8")
_LEAST_VALUES = 1024  # tensors with fewer values stay float32


def export_model(
    weights: str | Path | None, folder: Path, precision: str = "fp32", force: bool = False
) -> list[Path]:
    """Write a model as ONNX graphs and a description.

    All graphs take any number of faces. `predict.onnx` gives the mean distribution over the views,
    `encode.onnx` the features of faces and of their mirror images, `decode.onnx` the mean change,
    and `refine.onnx`, of models with a fine level, the residual with its details.

    Args:
        weights: a name or a path; None is the packaged model.
        folder: created if it does not exist.
        precision: how matrices and kernels are stored: "fp32", "fp16", or "int8" with a scale for
            each output channel. The computation is in float32.
        force: overwrite existing files.

    Returns:
        The files.

    Raises:
        ConfigError: onnx is not installed, or no such precision.
        WeightsError: the weights are missing, damaged, or have no age classifier.
        OutputError: a file exists and `force` is off, or cannot be written.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"Unknown precision {precision!r}.", f"Use {', '.join(PRECISIONS)}.")
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Exporting needs onnx and onnxscript.", "Install them: pip install 'faceage[export]'"
        ) from None
    path = hub.find(weights)
    model, _ = load_weights(path)
    exports = dict(zip(GRAPHS, (_export_predict, _export_encode, _export_decode), strict=True))
    if model.fine_level:
        exports[REFINE] = _export_refine
    files = [folder / name for name in (*exports, hub.EXPORT_DESCRIPTION)]
    check_free(files, force)
    if not model.config.decomposition:
        raise WeightsError(
            "These weights are a RAGAN baseline, which has no age classifier.",
            "Export weights trained with decomposition.",
        )
    model.to(memory_format=torch.contiguous_format)
    model.decomposition.pools = (_pool_cells(torch.mean), _pool_cells(torch.amax))
    make_folder(folder)
    for file, export in zip(files, exports.values(), strict=False):
        replace_file(file, partial(_write, export(model), precision))
    metadata = read_metadata(path)
    description = {
        "format": FORMAT,
        "size": model.config.size,
        "fine_size": model.config.fine_size if model.fine_level else 0,
        "classifier_crop": model.config.classifier_crop,
        "weights": hub.file_sha256(path),
        "licence": metadata.get("licence", ""),
        "opset": OPSET,
        "precision": precision,
        "files": {file.name: hub.file_sha256(file) for file in files[:-1]},
    }
    write_file(files[-1], json.dumps(description, indent=2).encode() + b"\n", force=force)
    return files


class _Predict(nn.Module):
    def __init__(self, model: FaceAgeModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> Tensor:  # N,3,R,R -> N,101
        return classify_tta(self.model, crops).softmax(2).mean(0)


class _Encode(nn.Module):
    def __init__(self, model: FaceAgeModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # N,3,S,S -> three of 2N
        encoded = encode_tta(self.model, faces)
        return encoded.identity, encoded.skip, encoded.faces


class _Decode(nn.Module):
    def __init__(self, model: FaceAgeModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, identity: Tensor, skip: Tensor, views: Tensor, index: Tensor, ages: Tensor
    ) -> tuple[Tensor, Tensor]:  # of 2N views; (M,) and (M,) -> M,3,S,S and M,2,h,w
        encoded = Decomposed(identity, identity[:, :0], skip, views)
        change = decode_tta(self.model, encoded, index, ages)
        return change.residual, change.flow


def _export_predict(model: FaceAgeModel) -> Any:
    side = model.config.classifier_crop
    return _export(_Predict(model), (torch.zeros(2, 3, side, side),), ["crops"], ["probabilities"])


def _export_encode(model: FaceAgeModel) -> Any:
    side = model.config.size
    outputs = ["identity", "skip", "views"]
    return _export(_Encode(model), (torch.zeros(2, 3, side, side),), ["faces"], outputs)


def _export_decode(model: FaceAgeModel) -> Any:
    side = model.config.size
    with torch.inference_mode():
        encoded = _Encode(model)(torch.zeros(2, 3, side, side))
    inputs = (*(part.clone() for part in encoded), torch.tensor([0, 1, 1]), torch.ones(3))
    names = ["identity", "skip", "views", "index", "ages"]
    return _export(_Decode(model), inputs, names, ["residual", "flow"])


def _export_refine(model: FaceAgeModel) -> Any:
    assert model.fine_level
    inputs = (
        torch.zeros(2, 3, *[model.config.fine_size] * 2),
        torch.zeros(2, 3, *[model.config.size] * 2),
    )
    return _export(model.fine_level, inputs, ["moved", "residual"], ["refined"])


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str]
) -> Any:
    """The graph of a module, as onnx's ModelProto; the first axis of every input is dynamic."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            inputs,
            input_names=names,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=tuple({0: torch.export.Dim.AUTO} for _ in inputs),
            optimize=False,  # its optimiser drops a node of the embedding of the age
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _write(model: Any, precision: str, path: Path) -> None:
    import onnx

    if precision != "fp32":
        _compress(model, precision)
    onnx.save(model, str(path))


def _compress(model: Any, precision: str) -> None:
    """Store the large constants of a graph in fewer bits, and expand them when it is loaded."""
    from onnx import helper, numpy_helper

    graph, added = model.graph, []
    for constant in list(graph.initializer):
        values = numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.ndim < 2 or values.size < _LEAST_VALUES:
            continue
        name = constant.name
        graph.initializer.remove(constant)
        if precision == "fp16":
            stored = {f"{name}.half": values.astype(np.float16)}
            node = helper.make_node("Cast", list(stored), [name], to=1)  # 1 is float32
        else:
            rest = tuple(range(1, values.ndim))
            scale = np.maximum(np.abs(values).max(rest), 1e-12) / 127
            levels = np.rint(values / scale.reshape(-1, *(1 for _ in rest))).astype(np.int8)
            stored = {f"{name}.levels": levels, f"{name}.scale": scale.astype(np.float32)}
            node = helper.make_node("DequantizeLinear", list(stored), [name], axis=0)
        for key, array in stored.items():
            graph.initializer.append(numpy_helper.from_array(array, key))
        added.append(node)
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _pool_cells(reduce: Callable[..., Tensor]) -> Callable[[Tensor, int], Tensor]:
    """Adaptive pooling, cell by cell: ONNX has none for cells of unequal size."""

    def pool(features: Tensor, bins: int) -> Tensor:
        side = features.shape[2]
        ends = [(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)]
        rows = [
            torch.stack([reduce(features[:, :, a:b, c:d], (2, 3)) for c, d in ends], -1)
            for a, b in ends
        ]
        return torch.stack(rows, -2)

    return pool
