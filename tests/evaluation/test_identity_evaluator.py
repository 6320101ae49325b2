"""How the identity evaluator aligns, scales and normalises, with networks of a few numbers."""

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx_files import check_refusals, write_age_evaluator, write_embedder

from faceage.errors import ConfigError
from faceage.evaluation import evaluators
from faceage.evaluation.evaluators import TEMPLATE, IdentityEvaluator, align, similarity


@pytest.fixture
def evaluator(tmp_path: Path) -> IdentityEvaluator:
    """Its embedding is the mean colours of 4x4 parts of the aligned face."""
    pytest.importorskip("onnxruntime")
    return IdentityEvaluator(write_embedder(tmp_path / "embedder.onnx"))


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


def test_embedding(evaluator: IdentityEvaluator) -> None:
    crops = np.stack([smooth(200, seed) for seed in range(40)])  # more than a batch
    points = np.stack([moved(TEMPLATE, 3 * i - 50, 1.2, (40, 30)) for i in range(40)])
    found = evaluator.embed(crops, points)
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-9)
    for i in (0, 31, 32, 39):
        wanted = expected(crops[i], points[i], 127.5, 127.5)
        np.testing.assert_allclose(found[i], wanted, atol=1e-5)


def test_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    path = write_embedder(tmp_path / "mobilefacenet.onnx")
    crop = smooth(112)

    def mean_and_std(evaluator: IdentityEvaluator) -> str:
        found = evaluator.embed(crop[None], TEMPLATE[None])[0]
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        wanted = {"imagenet": (mean, std), "arcface": (127.5, 127.5)}
        (name,) = (
            name
            for name, scaling in wanted.items()
            if np.allclose(found, expected(crop, TEMPLATE, *scaling), atol=1e-5)
        )
        return name

    assert mean_and_std(IdentityEvaluator(path)) == "arcface"  # its name does not count
    (imagenet,) = evaluators.KNOWN_SCALINGS.values()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(evaluators.KNOWN_SCALINGS, sha256, imagenet)
    assert mean_and_std(IdentityEvaluator(path)) == "imagenet"


def test_a_network_for_one_face_at_a_time(tmp_path: Path, evaluator: IdentityEvaluator) -> None:
    single = IdentityEvaluator(write_embedder(tmp_path / "single.onnx", batch=1))
    crops, points = np.stack([smooth(112, s) for s in range(3)]), np.stack([TEMPLATE] * 3)
    np.testing.assert_allclose(
        single.embed(crops, points), evaluator.embed(crops, points), atol=1e-6
    )


def test_no_faces_and_faces_not_found(evaluator: IdentityEvaluator) -> None:
    crops, points = np.stack([smooth(112, s) for s in range(3)]), np.stack([TEMPLATE] * 3)
    points[1, 3] = np.nan
    found = evaluator.embed(crops, points)
    assert np.isnan(found).all(1).tolist() == [False, True, False]
    assert evaluator.embed(crops[:0], points[:0]).shape == (0, 48)


# --- files -----------------------------------------------------------------------------------


def test_wrong_onnx_files(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_age_evaluator(tmp_path / "age.onnx")
    write_embedder(tmp_path / "small.onnx", side=64)
    write_embedder(tmp_path / "eights.onnx", batch=8)
    (tmp_path / "text.onnx").write_text("no network")
    problems = {
        "missing.onnx": "No identity evaluator",
        "text.onnx": "not a readable ONNX file",
        "age.onnx": "no face embedder of 112 px",
        "small.onnx": "no face embedder of 112 px",
        "eights.onnx": "no face embedder of 112 px",
    }
    check_refusals(IdentityEvaluator, tmp_path, problems)


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="identity evaluator needs onnxruntime"):
        IdentityEvaluator(write_embedder(tmp_path / "embedder.onnx"))
