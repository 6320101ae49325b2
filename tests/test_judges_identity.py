"""How the identity judges align, scale and normalise, with networks of a few numbers."""

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from onnx_files import check_refusals, write_embedder, write_judge

from faceage.errors import ConfigError
from faceage.evaluation.evaluators import (
    ArcFaceIdentityJudge,
    OnnxIdentityJudge,
    open_identity_judge,
)
from faceage.evaluation.evaluators import identity as module
from faceage.evaluation.evaluators.identity import align, similarity

TEMPLATE = module._TEMPLATE


@pytest.fixture
def judge(tmp_path: Path) -> OnnxIdentityJudge:
    """Its embedding is the mean colours of 4x4 parts of the aligned face."""
    pytest.importorskip("onnxruntime")
    return OnnxIdentityJudge(write_embedder(tmp_path / "embedder.onnx"))


def moved(points: np.ndarray, degrees: float, scale: float, shift: tuple) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)) * scale, np.sin(np.radians(degrees)) * scale
    return points @ np.array([[c, -s], [s, c]]).T + shift


def smooth(side: int, seed: int = 0) -> np.ndarray:
    """A soft colourful picture (side,side,3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


# --- alignment -------------------------------------------------------------------------------


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (33, 0.4), (-170, 2.5)])
def test_similarity_undoes_a_move(degrees: float, scale: float) -> None:
    points = moved(TEMPLATE, degrees, scale, (40, -7))
    matrix = similarity(points, TEMPLATE)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)


def test_similarity_worked_out_by_hand() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
    wide = square * [3, 1]  # no similarity reaches it: the nearest is twice as large, centred
    np.testing.assert_allclose(similarity(square, wide), [[2, 0, 1], [0, 2, -1]], atol=1e-12)


def test_similarity_never_mirrors_nor_divides_by_zero() -> None:
    matrix = similarity(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) >= 0
    assert np.isfinite(similarity(np.full((5, 2), 7.0), TEMPLATE)).all()


def test_an_aligned_picture_stays_as_it_is() -> None:
    picture = smooth(112)
    np.testing.assert_array_equal(align(picture, TEMPLATE), picture)


def test_a_mirrored_view_is_as_good_as_a_copy() -> None:
    view = smooth(112)[:, ::-1]
    np.testing.assert_array_equal(align(view, TEMPLATE), align(view.copy(), TEMPLATE))


@pytest.mark.parametrize("times", [2, 3, 7])
def test_a_large_face_is_averaged_to_size(times: int) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (112 * times, 112 * times, 3), np.uint8)
    wanted = cv2.resize(picture, (112, 112), interpolation=cv2.INTER_AREA)
    points = TEMPLATE * times + (times - 1) / 2  # a pixel's centre is a whole number
    np.testing.assert_allclose(align(picture, points), wanted, atol=1)


def test_a_turned_and_smaller_face_comes_back() -> None:
    picture = smooth(112)
    points = moved(TEMPLATE, 20, 0.9, (60, 30))
    inverse = similarity(TEMPLATE, points)
    crop = cv2.warpAffine(picture, inverse, (256, 256), flags=cv2.INTER_CUBIC)
    difference = align(crop, points).astype(int) - picture
    assert np.abs(difference[3:-3, 3:-3]).mean() < 2


# --- embedding -------------------------------------------------------------------------------


def expected(crop: np.ndarray, points: np.ndarray, mean: object, std: object) -> np.ndarray:
    parts = align(crop, points).reshape(4, 28, 4, 28, 3).mean((1, 3))  # 4,4,3
    vector = ((parts - mean) / std).transpose(2, 0, 1).ravel()
    return vector / np.linalg.norm(vector)


def test_embedding(judge: OnnxIdentityJudge) -> None:
    crops = np.stack([smooth(200, seed) for seed in range(40)])  # more than a batch
    points = np.stack([moved(TEMPLATE, 3 * i - 50, 1.2, (40, 30)) for i in range(40)])
    found = judge.embed(crops, points)
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-9)
    for i in (0, 31, 32, 39):
        wanted = expected(crops[i], points[i], 127.5, 127.5)
        np.testing.assert_allclose(found[i], wanted, atol=1e-5)


def test_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    path = write_embedder(tmp_path / "mobilefacenet.onnx")
    crop = smooth(112)

    def mean_and_std(judge: OnnxIdentityJudge) -> str:
        found = judge.embed(crop[None], TEMPLATE[None])[0]
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        wanted = {"imagenet": (mean, std), "arcface": (127.5, 127.5)}
        (name,) = (
            name
            for name, scaling in wanted.items()
            if np.allclose(found, expected(crop, TEMPLATE, *scaling), atol=1e-5)
        )
        return name

    assert mean_and_std(OnnxIdentityJudge(path)) == "arcface"  # its name does not count
    assert mean_and_std(OnnxIdentityJudge(path, "imagenet")) == "imagenet"
    monkeypatch.setitem(module._KNOWN, hashlib.sha256(path.read_bytes()).hexdigest(), "imagenet")
    assert mean_and_std(OnnxIdentityJudge(path)) == "imagenet"
    assert mean_and_std(OnnxIdentityJudge(path, "arcface")) == "arcface"


def test_a_network_for_one_face_at_a_time(tmp_path: Path, judge: OnnxIdentityJudge) -> None:
    single = OnnxIdentityJudge(write_embedder(tmp_path / "single.onnx", batch=1))
    crops, points = np.stack([smooth(112, s) for s in range(3)]), np.stack([TEMPLATE] * 3)
    np.testing.assert_allclose(single.embed(crops, points), judge.embed(crops, points), atol=1e-6)


def test_no_faces_and_faces_not_found(judge: OnnxIdentityJudge) -> None:
    crops, points = np.stack([smooth(112, s) for s in range(3)]), np.stack([TEMPLATE] * 3)
    points[1, 3] = np.nan
    found = judge.embed(crops, points)
    assert np.isnan(found).all(1).tolist() == [False, True, False]
    assert judge.embed(crops[:0], points[:0]).shape == (0, 48)


# --- files -----------------------------------------------------------------------------------


def test_wrong_onnx_files(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_judge(tmp_path / "age.onnx")
    write_embedder(tmp_path / "small.onnx", side=64)
    write_embedder(tmp_path / "eights.onnx", batch=8)
    (tmp_path / "text.onnx").write_text("no network")
    problems = {
        "missing.onnx": "No identity judge",
        "text.onnx": "not a readable ONNX file",
        "age.onnx": "no embedder of faces of 112 px",
        "small.onnx": "no embedder of faces of 112 px",
        "eights.onnx": "no embedder of faces of 112 px",
    }
    check_refusals(open_identity_judge, tmp_path, problems)


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="identity judge needs onnxruntime"):
        OnnxIdentityJudge(write_embedder(tmp_path / "embedder.onnx"))


class TinyBackbone(torch.nn.Module):
    """Stands for facexlib's, which has 44 million weights: the mean colour, times a matrix."""

    def __init__(self, num_layers: int, drop_ratio: float, mode: str) -> None:
        super().__init__()
        assert (num_layers, mode) == (50, "ir_se")
        self.output_layer = torch.nn.Linear(3, 512, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.output_layer(x.mean((2, 3)))


@pytest.fixture
def arcface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from facexlib.recognition import arcface_arch

    monkeypatch.setattr(arcface_arch, "Backbone", TinyBackbone)
    path = tmp_path / "recognition_arcface_ir_se50.pth"
    torch.save(TinyBackbone(50, 0.6, "ir_se").state_dict(), path)
    return path


def test_arcface(arcface: Path) -> None:
    judge = open_identity_judge(arcface)
    assert isinstance(judge, ArcFaceIdentityJudge)
    assert judge.name == "recognition_arcface_ir_se50"
    assert judge.sha256 == hashlib.sha256(arcface.read_bytes()).hexdigest()
    crop = smooth(112)
    weight = torch.load(arcface, weights_only=True)["output_layer.weight"].numpy()  # 512,3
    wanted = weight @ (crop.mean((0, 1)) / 127.5 - 1)
    found = judge.embed(crop[None], TEMPLATE[None])[0]
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_wrong_arcface_files(arcface: Path, tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no network")
    problems = {
        "missing.pth": "No identity judge",
        "text.pth": "Cannot read",
        "other.pth": "another network",
    }
    check_refusals(open_identity_judge, tmp_path, problems)


@pytest.mark.slow
def test_arcface_in_full_size(tmp_path: Path) -> None:
    from facexlib.recognition.arcface_arch import Backbone

    path = tmp_path / "random.pth"
    torch.save(Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se").state_dict(), path)
    crops, points = np.stack([smooth(112, s) for s in range(2)]), np.stack([TEMPLATE] * 2)
    found = ArcFaceIdentityJudge(path).embed(crops, points)
    assert found.shape == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-9)
