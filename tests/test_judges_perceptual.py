"""LPIPS and the features, on an AlexNet of random numbers."""

import hashlib
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import check_refusals
from safetensors.torch import save_file

from faceage.errors import ConfigError, WeightsError
from faceage.evaluation.evaluators import LpipsJudge
from faceage.evaluation.evaluators import perceptual as module

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
def judge(path: Path) -> LpipsJudge:
    pytest.importorskip("lpips")
    return LpipsJudge(path)


def pictures(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def layers(tensors: dict[str, torch.Tensor], images: np.ndarray) -> list[torch.Tensor]:
    """What AlexNet makes of levels (N,R,R,3), after each of its five convolutions."""
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
    judge: LpipsJudge, tensors: dict[str, torch.Tensor]
) -> None:
    import lpips

    file = Path(lpips.__file__).parent / "weights/v0.1/alex.pth"
    heads = torch.load(file, map_location="cpu", weights_only=True)
    a, b = pictures(2, 96), pictures(2, 96, seed=1)
    wanted = torch.zeros(2)
    for i, (x, y) in enumerate(zip(layers(tensors, a), layers(tensors, b), strict=True)):
        difference = (F.normalize(x, dim=1) - F.normalize(y, dim=1)) ** 2
        wanted += F.conv2d(difference, heads[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
    found = judge.distances(a, b)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4)


def test_distances_of_the_same_batches_and_none(judge: LpipsJudge) -> None:
    a, b = pictures(40), pictures(40, seed=1)
    assert judge.distances(a, a).tolist() == [0] * 40
    found = judge.distances(a, b)
    assert (found > 0).all()
    np.testing.assert_allclose(found[33:35], judge.distances(a[33:35], b[33:35]), rtol=1e-4)
    assert judge.distances(a[:0], b[:0]).shape == (0,)


def test_mirrored_and_read_only_pictures(judge: LpipsJudge) -> None:
    a, b = pictures(2), pictures(2, seed=1)
    wanted = judge.distances(a[:, :, ::-1].copy(), b)
    b.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert judge.distances(a[:, :, ::-1], b).tolist() == wanted.tolist()


def test_features_are_of_the_inner_face(
    judge: LpipsJudge, tensors: dict[str, torch.Tensor]
) -> None:
    crops = pictures(2, 256)
    found = judge.features(crops)
    assert found.shape == (2, 256)
    wanted = layers(tensors, crops[:, 84:212, 64:192])[-1].mean((2, 3))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-5)
    framed = pictures(2, 256, seed=1)
    framed[:, 84:212, 64:192] = crops[:, 84:212, 64:192]
    np.testing.assert_allclose(judge.features(framed), found, atol=1e-6)


def test_features_of_other_sizes_and_none(judge: LpipsJudge) -> None:
    soft = np.linspace(0, 255, 256)[:, None, None].repeat(256, 1).repeat(3, 2).round()
    crop = soft.astype(np.uint8)[None]
    large = crop.repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(judge.features(large), judge.features(crop), atol=0.02)
    assert judge.features(pictures(1, 128)).shape == (1, 256)
    assert judge.features(pictures(0, 256)).shape == (0, 256)


def test_it_names_itself(judge: LpipsJudge, path: Path) -> None:
    assert judge.name == "LPIPS 0.1 (AlexNet)"
    assert judge.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_opening_warns_of_nothing_and_draws_no_random_numbers(path: Path) -> None:
    pytest.importorskip("lpips")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LpipsJudge(path)
    assert torch.rand(1) == expected


def test_torchvisions_file(
    tensors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchvision keeps it: with the classifier, under its own name."""
    pytest.importorskip("lpips")
    fetched = []

    def fetch(url: str, file: str, hash_prefix: str, progress: bool) -> None:
        fetched.append((url, hash_prefix))
        torch.save(tensors | {"classifier.1.bias": torch.zeros(3)}, file)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    judge = LpipsJudge("torchvision")
    assert LpipsJudge("torchvision").sha256 == judge.sha256
    ((url, prefix),) = fetched  # once
    assert url.endswith(f"alexnet-owt-{prefix}.pth")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lpips")

    def fetch(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(WeightsError, match=r"Cannot fetch https.*\(no route to host\)"):
        LpipsJudge(module.TORCHVISION)


def test_wrong_files(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    (tmp_path / "text.pth").write_text("no network")
    few = {name: value for name, value in tensors.items() if "10" not in name}
    save_file(few, tmp_path / "few.safetensors")
    save_file(few | {"features.10.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    problems = {
        "missing.safetensors": "No perceptual judge",
        "text.pth": "Cannot read",
        "few.safetensors": r"does not hold AlexNet: features.10.\w+ is missing",
        "other.safetensors": r"does not hold AlexNet: features.10.",
    }
    check_refusals(LpipsJudge, tmp_path, problems)


def test_without_lpips(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ConfigError, match=r"pip install 'faceage\[evaluate\]'"):
        LpipsJudge(path)
