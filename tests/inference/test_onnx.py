"""Export as ONNX, and the backend that runs it without torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faceage
from faceage.checkpoints import load_weights
from faceage.errors import ConfigError, OutputError, WeightsError
from faceage.inference.backend import FaceChange
from faceage.inference.torch_backend import TorchBackend

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

from faceage.inference import export as exporting  # noqa: E402
from faceage.inference.onnx_backend import GRAPHS, PROVIDERS, REFINE, OnnxBackend  # noqa: E402


@pytest.fixture(scope="module")
def folder(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("onnx") / "exported"
    files = exporting.export_model(tiny_weights, folder)
    assert [file.name for file in files] == [*GRAPHS, "model.json"]
    return folder


@pytest.fixture(scope="module")
def reference(tiny_weights: Path) -> TorchBackend:
    return TorchBackend.load(tiny_weights, "cpu")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "exported"))


def random_crops(count: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    small = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return small.repeat(side // 8, 1).repeat(side // 8, 2)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_predictions_are_those_of_torch(folder: Path, reference: TorchBackend, count: int) -> None:
    crops = random_crops(count, reference.classifier_crop)
    found = OnnxBackend(folder).predict(crops)
    assert found.shape == (count, 101)
    np.testing.assert_allclose(found, reference.predict(crops), atol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_changes_are_those_of_torch(folder: Path, reference: TorchBackend, count: int) -> None:
    backend, crops = OnnxBackend(folder), random_crops(count, reference.size)
    ages = [float(age) for age in range(0, 100, 5)]  # more than one batch
    encoded, expected = backend.encode(crops), reference.encode(crops)
    for index in range(count):
        found = backend.decode(encoded, index, ages)
        for a, b in zip(found, reference.decode(expected, index, ages), strict=True):
            np.testing.assert_allclose(a.residual, b.residual, atol=1e-3)
            np.testing.assert_allclose(a.flow, b.flow, atol=1e-3)


@pytest.mark.parametrize("scale", [1, 6])
def test_a_change_is_applied_as_by_torch(
    folder: Path, reference: TorchBackend, portrait: np.ndarray, scale: int
) -> None:
    side = scale * reference.size
    crop = np.ascontiguousarray(portrait[40 : 40 + side, 130 : 130 + side])
    rng = np.random.default_rng(0)
    change = FaceChange(
        rng.normal(0, 0.2, (3, reference.size, reference.size)).astype(np.float32),
        rng.normal(0, 0.05, (2, 4, 4)).astype(np.float32),
    )
    found, expected = (b.apply(crop, change) for b in (OnnxBackend(folder), reference))
    levels = np.abs(found - expected) * 127.5
    assert levels.mean() < 0.5
    assert (levels > 4).mean() < 0.02  # OpenCV rounds positions to 1/32 px


def test_photos_are_those_of_torch(folder: Path, tiny_weights: Path, couple: Path) -> None:
    exported, original = faceage.load(folder), faceage.load(tiny_weights, device="cpu")
    assert exported.weights_sha == original.weights_sha
    for a, b in zip(exported.predict(couple), original.predict(couple), strict=True):
        assert a.age == pytest.approx(b.age, abs=0.01)
    for a, b in zip(exported.age(couple, [5, 70]), original.age(couple, [5, 70]), strict=True):
        difference = np.abs(a.pixels.astype(int) - b.pixels)
        assert (difference > 1).mean() < 0.001


def test_details_are_those_of_torch(
    fine_weights: Path, tiny_weights: Path, astronaut: Path, tmp_path: Path
) -> None:
    files = exporting.export_model(fine_weights, tmp_path)
    assert [file.name for file in files] == [*GRAPHS, REFINE, "model.json"]
    exported, original = faceage.load(tmp_path), faceage.load(fine_weights, device="cpu")
    assert exported.backend.fine_size == original.backend.fine_size == 128
    found, expected = (ager.age(astronaut, 70)[0].pixels for ager in (exported, original))
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 0.2
    assert (difference > 8).mean() < 0.01  # OpenCV rounds positions to 1/32 px
    without = faceage.load(tiny_weights, device="cpu").age(astronaut, 70)[0].pixels
    assert np.abs(without.astype(int) - expected).mean() > 4 * difference.mean()


@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-3), ("int8", 0.05)])
def test_smaller_precisions(
    folder: Path, reference: TorchBackend, tmp_path: Path, precision: str, most: float
) -> None:
    small = Path(shutil.copytree(folder, tmp_path / "small"))
    description = json.loads((small / "model.json").read_text())
    for name in GRAPHS:
        exporting._write(onnx.load(str(folder / name)), precision, small / name)
        description["files"][name] = exporting.hub.file_sha256(small / name)
        assert (small / name).stat().st_size < 0.95 * (folder / name).stat().st_size
    (small / "model.json").write_text(json.dumps(description))
    crops = random_crops(2, reference.classifier_crop)
    difference = np.abs(OnnxBackend(small).predict(crops) - reference.predict(crops))
    assert 0 < difference.max() < most


def test_commands_run_without_torch(folder: Path, portrait_png: Path) -> None:
    absent = dict.fromkeys(("torch", "torchvision", "safetensors", "facexlib"))
    code = f"import sys; sys.modules.update({absent!r})\nfrom faceage.cli import main; main()"
    for arguments in (
        ["predict", portrait_png, "--json"],
        ["age", portrait_png, "--to", "5,70", "--crop"],
    ):
        answer = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments), "--weights", str(folder)],
            capture_output=True,
            text=True,
            env=os.environ,
        )
        assert answer.returncode == 0, answer.stderr
    assert len(list(portrait_png.parent.glob("me.*.png"))) == 2


def test_shards_name_the_exported_model(run, folder: Path, portrait_png: Path, copy: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra scale")
    out = portrait_png.parent / "out"
    arguments = ("predict", portrait_png, "--out", out, "--shards", 1, "--weights")
    assert run(*arguments, folder).code == 0
    assert (out / "predictions" / "00001-of-00001.parquet").is_file()
    assert run(*arguments, copy).code == 0  # the same model in another place
    (copy / "model.json").unlink()
    assert "model.json" in run(*arguments, copy).err


def test_files_that_are_missing_or_damaged(copy: Path) -> None:
    (copy / "decode.onnx").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"decode\.onnx is damaged"):
        OnnxBackend(copy)
    (copy / "decode.onnx").unlink()
    with pytest.raises(WeightsError, match=r"no decode\.onnx"):
        OnnxBackend(copy)
    for text in ("{", "[]", '{"format": "other"}'):
        (copy / "model.json").write_text(text)
        with pytest.raises(WeightsError, match="damaged"):
            OnnxBackend(copy)
    (copy / "model.json").unlink()
    with pytest.raises(WeightsError, match=r"no model\.json"):
        OnnxBackend(copy)


def test_a_folder_of_another_format(copy: Path) -> None:
    description: dict[str, Any] = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(description | {"format": "faceage-onnx-9"}))
    with pytest.raises(WeightsError, match="faceage-onnx-9"):
        OnnxBackend(copy)


def test_devices_that_are_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="mps"):
        OnnxBackend(folder, "mps")
    import onnxruntime

    for device, provider in PROVIDERS.items():
        if provider not in onnxruntime.get_available_providers():
            with pytest.raises(ConfigError, match=device):
                OnnxBackend(folder, device)


def test_export_does_not_overwrite(folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    before = (folder / "model.json").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        exporting.export_model(tiny_weights, folder)
    assert (folder / "model.json").read_bytes() == before
    with pytest.raises(ConfigError, match="fp8"):
        exporting.export_model(tiny_weights, tmp_path, "fp8")


@pytest.mark.slow
def test_export_of_the_packaged_weights(tmp_path: Path, astronaut: Path) -> None:
    exporting.export_model(None, tmp_path, "fp16")
    model, _ = load_weights(faceage.hub.find())
    exported, original = faceage.load(tmp_path), faceage.load(device="cpu")
    assert exported.backend.size == model.config.size
    assert exported.predict(astronaut)[0].age == pytest.approx(
        original.predict(astronaut)[0].age, abs=0.1
    )
    a, b = (ager.age(astronaut, 70)[0].pixels.astype(int) for ager in (exported, original))
    assert (np.abs(a - b) > 2).mean() < 0.001
