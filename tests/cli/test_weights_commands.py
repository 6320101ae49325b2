"""faceage weights."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from faceage import hub
from faceage.checkpoints import read_metadata, save_weights
from faceage.models.generator import FaceAgeModel, ModelConfig


def test_weights_list_and_info(run, tiny_weights: Path) -> None:
    names = [row["name"] for row in json.loads(run("weights", "list", "--json").out)]
    assert {"compact-128", "retinaface"} <= set(names)
    assert "retinaface  not here" in run("weights", "list").out
    info = json.loads(run("weights", "info", tiny_weights, "--json").out)
    assert info["sha256"] == hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    assert json.loads(info["config"])["size"] == 32
    assert "licence: none: random numbers" in run("weights", "info", tiny_weights).lines


def test_weights_fetch_and_verify(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEAGE_CACHE", str(tmp_path / "cache"))
    remote = tmp_path / "remote"
    remote.write_bytes(b"x" * 2_000_000)
    sha = hashlib.sha256(remote.read_bytes()).hexdigest()
    entry = hub.WeightsFile("far.bin", "a test", "none", remote.as_uri(), sha)
    monkeypatch.setitem(hub.REGISTRY, "far", entry)
    answer = run("weights", "fetch", "far")
    path = tmp_path / "cache" / "far.bin"
    assert (answer.code, answer.lines) == (0, [str(path)])
    assert answer.errors[-1] == "far: 2.0 of 2.0 MB"
    assert run("weights", "verify", "far").out == f"{path}: OK\n"
    path.write_bytes(b"changed")
    answer = run("weights", "verify", "far")
    assert (answer.code, answer.out) == (1, "")
    assert "changed" in answer.err


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
