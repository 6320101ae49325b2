"""LPIPS and features of AlexNet, and features of Inception, on networks of random numbers."""

import hashlib
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import check_refusals
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import inception_v3

from faceage.errors import ConfigError
from faceage.evaluation.evaluators import InceptionEvaluator, PerceptualEvaluator

# AlexNet's convolutions: number, channels, channels before, side, stride, padding.
CONVOLUTIONS = (
    (0, 64, 3, 11, 4, 2),
    (3, 192, 64, 5, 1, 2),
    (6, 384, 192, 3, 1, 1),
    (8, 256, 384, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for number, channels, before, side, *_ in CONVOLUTIONS:
        weight = torch.randn(channels, before, side, side, generator=generator)
        found[f"features.{number}.weight"] = weight * (2 / (before * side**2)) ** 0.5
        found[f"features.{number}.bias"] = torch.randn(channels, generator=generator) / 10
    return found


@pytest.fixture(scope="module")
def path(tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def evaluator(path: Path) -> PerceptualEvaluator:
    pytest.importorskip("lpips")
    return PerceptualEvaluator(path)


def pictures(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def layers(tensors: dict[str, torch.Tensor], images: np.ndarray) -> list[torch.Tensor]:
    """AlexNet's features of levels (N,R,R,3), after each of its five convolutions."""
    mean, std = (torch.tensor(v) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = ((torch.from_numpy(images).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    found = []
    for number, *_, stride, padding in CONVOLUTIONS:
        if number in (3, 6):
            x = F.max_pool2d(x, 3, 2)
        weight, bias = (tensors[f"features.{number}.{part}"] for part in ("weight", "bias"))
        x = F.conv2d(x, weight, bias, stride, padding).relu()
        found.append(x)
    return found


def test_distances_are_those_of_the_paper(
    evaluator: PerceptualEvaluator, tensors: dict[str, torch.Tensor]
) -> None:
    import lpips

    file = Path(lpips.__file__).parent / "weights/v0.1/alex.pth"
    heads = torch.load(file, map_location="cpu", weights_only=True)
    a, b = pictures(2, 96), pictures(2, 96, seed=1)
    wanted = torch.zeros(2)
    for i, (x, y) in enumerate(zip(layers(tensors, a), layers(tensors, b), strict=True)):
        difference = (F.normalize(x, dim=1) - F.normalize(y, dim=1)) ** 2
        wanted += F.conv2d(difference, heads[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
    found = evaluator.distances(a, b)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4)


def test_distances_of_the_same_batches_and_none(evaluator: PerceptualEvaluator) -> None:
    a, b = pictures(40), pictures(40, seed=1)
    assert evaluator.distances(a, a).tolist() == [0] * 40
    found = evaluator.distances(a, b)
    assert (found > 0).all()
    np.testing.assert_allclose(found[33:35], evaluator.distances(a[33:35], b[33:35]), rtol=1e-4)
    assert evaluator.distances(a[:0], b[:0]).shape == (0,)


def test_mirrored_and_read_only_pictures(evaluator: PerceptualEvaluator) -> None:
    a, b = pictures(2), pictures(2, seed=1)
    wanted = evaluator.distances(a[:, :, ::-1].copy(), b)
    b.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluator.distances(a[:, :, ::-1], b).tolist() == wanted.tolist()


def test_features_are_of_the_inner_face(
    evaluator: PerceptualEvaluator, tensors: dict[str, torch.Tensor]
) -> None:
    crops = pictures(2, 256)
    found = evaluator.features(crops)
    assert found.shape == (2, 256)
    wanted = layers(tensors, crops[:, 84:212, 64:192])[-1].mean((2, 3))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-5)
    framed = pictures(2, 256, seed=1)
    framed[:, 84:212, 64:192] = crops[:, 84:212, 64:192]
    np.testing.assert_allclose(evaluator.features(framed), found, atol=1e-6)


def test_features_of_the_whole_crop(
    evaluator: PerceptualEvaluator, tensors: dict[str, torch.Tensor]
) -> None:
    crops = pictures(2, 256)
    found = evaluator.crop_features(crops)
    wanted = layers(tensors, crops)[-1].mean((2, 3))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-5)
    large = crops.repeat(2, 1).repeat(2, 2)  # shrunk to 256 px by area
    np.testing.assert_allclose(evaluator.crop_features(large), found, atol=1e-6)
    assert evaluator.crop_features(crops[:0]).shape == (0, 256)


def test_features_of_other_sizes_and_none(evaluator: PerceptualEvaluator) -> None:
    soft = np.linspace(0, 255, 256)[:, None, None].repeat(256, 1).repeat(3, 2).round()
    crop = soft.astype(np.uint8)[None]
    large = crop.repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(evaluator.features(large), evaluator.features(crop), atol=0.02)
    assert evaluator.features(pictures(1, 128)).shape == (1, 256)
    assert evaluator.features(pictures(0, 256)).shape == (0, 256)


def test_it_names_itself(evaluator: PerceptualEvaluator, path: Path) -> None:
    assert evaluator.name == "LPIPS 0.1 (AlexNet)"
    assert evaluator.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_opening_warns_of_nothing_and_draws_no_random_numbers(path: Path) -> None:
    pytest.importorskip("lpips")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PerceptualEvaluator(path)
    assert torch.rand(1) == expected


def test_torchvisions_file(tensors: dict[str, torch.Tensor], path: Path, tmp_path: Path) -> None:
    """As torchvision has it: with the classifier."""
    pytest.importorskip("lpips")
    whole = tmp_path / "alexnet.pth"
    torch.save(tensors | {"classifier.1.bias": torch.zeros(3)}, whole)
    a, b = pictures(2), pictures(2, seed=1)
    expected = PerceptualEvaluator(path).distances(a, b)
    assert PerceptualEvaluator(whole).distances(a, b).tolist() == expected.tolist()


def test_wrong_files(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    (tmp_path / "text.pth").write_text("no network")
    few = {name: value for name, value in tensors.items() if "10" not in name}
    save_file(few, tmp_path / "few.safetensors")
    save_file(few | {"features.10.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    problems = {
        "missing.safetensors": "No perceptual evaluator",
        "text.pth": "Cannot read",
        "few.safetensors": r"another network .*Missing key.*slice5.10.weight",
        "other.safetensors": r"another network .*slice5.10.bias",
    }
    check_refusals(PerceptualEvaluator, tmp_path, problems)


def test_without_lpips(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ConfigError, match=r"pip install 'faceage\[evaluate\]'"):
        PerceptualEvaluator(path)


# --- Inception -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's network with random weights, and with the parts that are not used."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), path)
    return path


def test_inception_features(inception: Path) -> None:
    evaluator = InceptionEvaluator(inception)
    crops = np.stack([picture.repeat(4, 0).repeat(4, 1) for picture in pictures(2, 64)])
    found = evaluator.features(crops)
    assert found.shape == (2, 2048)
    resized = [
        [Image.fromarray(crop[..., c].astype(np.float32)).resize((299, 299), 3) for c in range(3)]
        for crop in crops
    ]
    levels = np.clip(np.array([[np.asarray(c) for c in crop] for crop in resized]), 0, 255)
    net = inception_v3(weights=None, init_weights=False, transform_input=False)
    net.load_state_dict(torch.load(inception, weights_only=True))
    pooled = []
    net.avgpool.register_forward_hook(lambda _, __, output: pooled.append(output.flatten(1)))
    with torch.inference_mode():
        net.eval()(torch.from_numpy(levels) / 127.5 - 1)
    np.testing.assert_allclose(found, pooled[0].numpy(), rtol=1e-4, atol=1e-5)
    assert evaluator.features(crops[:0]).shape == (0, 2048)
    assert evaluator.sha256 == hashlib.sha256(inception.read_bytes()).hexdigest()


def test_resizing_keeps_the_overshoot_of_the_filter_inside_the_levels(inception: Path) -> None:
    """A bicubic filter overshoots at edges; the overshoot is clipped, as by clean-fid."""
    evaluator, inputs = InceptionEvaluator(inception), []
    evaluator._net.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    edge = np.zeros((1, 64, 64, 3), np.uint8)
    edge[:, :, 32:] = 255
    evaluator.features(edge)
    assert inputs[0].shape == (1, 3, 299, 299)
    assert (inputs[0].min(), inputs[0].max()) == (-1, 1)


def test_wrong_inception_files(tmp_path: Path, path: Path) -> None:
    (tmp_path / "text.pth").write_text("no network")
    (tmp_path / "alexnet.safetensors").write_bytes(path.read_bytes())
    problems = {
        "missing.pth": "No Inception",
        "text.pth": "Cannot read",
        "alexnet.safetensors": "another network",
    }
    check_refusals(InceptionEvaluator, tmp_path, problems)
