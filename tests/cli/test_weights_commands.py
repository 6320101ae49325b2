"""faceage weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from faceage.checkpoints import read_metadata, save_weights
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel


def _weights(kind: str, good: Path, model: FaceAgeModel, path: Path) -> None:
    content = good.read_bytes()
    match kind:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.touch()
        case "text":
            path.write_text("not weights " * 100)
        case "foreign":
            save_file({"layer.weight": torch.zeros(3, 3)}, path)
        case "pickle":
            torch.save(model.state_dict(), path)
        case "architecture":  # wider than its metadata say
            config = ModelConfig(**(vars(model.config) | {"width": 32}))
            wide = FaceAgeModel(config)
            save_weights(path, wide, {})
            metadata = read_metadata(path) | {"config": read_metadata(good)["config"]}
            save_file(load_file(path), path, metadata)
        case "future":
            config = json.dumps({"size": 32, "telepathy": True})
            save_file(load_file(good), path, read_metadata(good) | {"config": config})
        case "baseline":
            config = ModelConfig(**(vars(model.config) | {"decomposition": False}))
            save_weights(path, FaceAgeModel(config), {})


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "truncated",
        "empty",
        "text",
        "foreign",
        "pickle",
        "architecture",
        "future",
        "baseline",
    ],
)
def test_bad_weights(
    run, snapshot, astronaut: Path, tiny_weights: Path, tiny_model, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"{kind}.safetensors"
    _weights(kind, tiny_weights, tiny_model, path)
    before = snapshot(tmp_path)
    for arguments in (["predict"], ["age", "--to", 5, "--out", tmp_path]):
        answer = run(*arguments, astronaut, "--weights", path)
        assert answer.code == 1
        assert answer.out == ""
        assert len(answer.errors) == 1
        assert path.name in answer.err or kind == "baseline"
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["missing", "truncated", "text"])
def test_bad_weights_info(run, tiny_weights: Path, tiny_model, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.safetensors"
    _weights(kind, tiny_weights, tiny_model, path)
    answer = run("weights", "info", path)
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert str(path) in answer.err


def test_retinaface_that_was_not_fetched(run, astronaut: Path, tiny_weights: Path) -> None:
    answer = run("predict", astronaut, "--weights", tiny_weights, "--detector", "retinaface")
    assert answer.code == 1
    assert answer.errors == [
        "error: The weights 'retinaface' are not on this machine."
        " Get them with: faceage weights fetch retinaface"
    ]


def test_interpolation_takes_names_and_files(run, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    answer = run("weights", "interpolate", "compact-128", "compact-128", "--out", out)
    assert (answer.code, answer.out.strip()) == (0, str(out))
    answer = run("weights", "interpolate", "compact-129", tiny_weights, "--out", out, "--force")
    assert answer.code == 1
    assert "No weights file compact-129" in answer.err
    assert len(answer.err.strip().splitlines()) == 1
