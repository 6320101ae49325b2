"""Small evaluators, written byte by byte: testing with them does not need the `onnx` package."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faceage.errors import WeightsError

RED_PER_YEAR = 4.0  # levels: the estimate is a quarter of the window's mean red
SPREAD = 2.0  # years: standard deviation of the distribution

_FLOAT = 1


def check_refusals(
    open_evaluator: Callable[[Path], object], folder: Path, problems: dict[str, str]
) -> None:
    """Each file is refused in one line that names it and its problem (a pattern)."""
    for name, problem in problems.items():
        with pytest.raises(WeightsError, match=problem) as caught:
            open_evaluator(folder / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def write_age_evaluator(path: Path, side: int = 64, years: int = 81) -> Path:
    """Write a network with the shapes of age-v1: mean colours -> linear -> softmax over years."""
    k = np.arange(years)
    # Scaled red is (level - 122.782) / 256; the logits make a bell round a quarter of the level.
    weights = np.zeros((3, years))
    weights[0] = k * (256 / RED_PER_YEAR) / SPREAD**2
    bias = (k * (122.782 / RED_PER_YEAR) - k**2 / 2) / SPREAD**2
    nodes = [
        _node("GlobalAveragePool", ["images"], "pooled"),
        _node("Flatten", ["pooled"], "colours"),
        _node("Gemm", ["colours", "weights", "bias"], "logits"),
        _node("Softmax", ["logits"], "probabilities"),
    ]
    graph = b"".join(_bytes(1, node) for node in nodes)
    graph += _bytes(5, _tensor("weights", weights)) + _bytes(5, _tensor("bias", bias))
    graph += _bytes(11, _value("images", ["N", 3, side, side]))
    graph += _bytes(12, _value("probabilities", ["N", years]))
    return _write(path, graph)


def write_embedder(path: Path, side: int = 112, batch: str | int = "N", cells: int = 4) -> Path:
    """Write an embedder: the mean colours of `cells` x `cells` parts of the picture."""
    step = side // cells
    pool = _node("AveragePool", ["input0"], "pooled")
    pool += _bytes(5, _whole_numbers("kernel_shape", [step, step]))
    pool += _bytes(5, _whole_numbers("strides", [step, step]))
    graph = _bytes(1, pool) + _bytes(1, _node("Flatten", ["pooled"], "output0"))
    graph += _bytes(11, _value("input0", [batch, 3, side, side]))
    graph += _bytes(12, _value("output0", [batch, 3 * cells * cells]))
    return _write(path, graph)


def _write(path: Path, graph: bytes) -> Path:
    graph += _bytes(2, b"evaluator")  # its name
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13)))  # opset 13
    return path


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _node(kind: str, inputs: list[str], output: str) -> bytes:
    names = b"".join(_bytes(1, name.encode()) for name in inputs)
    return names + _bytes(2, output.encode()) + _bytes(4, kind.encode())


def _whole_numbers(name: str, values: list[int]) -> bytes:
    return _bytes(1, name.encode()) + b"".join(_number(8, v) for v in values) + _number(20, 7)


def _tensor(name: str, values: np.ndarray) -> bytes:
    shape = b"".join(_number(1, length) for length in values.shape)
    data = values.astype("<f4").tobytes()
    return shape + _number(2, _FLOAT) + _bytes(8, name.encode()) + _bytes(9, data)


def _value(name: str, shape: list[str | int]) -> bytes:
    dims = b"".join(
        _bytes(1, _bytes(2, d.encode()) if isinstance(d, str) else _number(1, d)) for d in shape
    )
    kind = _number(1, _FLOAT) + _bytes(2, dims)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, kind))
