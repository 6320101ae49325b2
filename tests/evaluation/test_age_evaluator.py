"""The input of the age evaluator, and how its output becomes an age."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_files import SPREAD, check_refusals, write_age_evaluator

import faceage
from faceage.errors import ConfigError
from faceage.evaluation.evaluators import AgeEvaluator

PACKAGE = Path(faceage.__file__).parent


@pytest.fixture
def evaluator(tmp_path: Path) -> AgeEvaluator:
    """Its estimate is a quarter of the mean red of its input."""
    pytest.importorskip("onnxruntime")
    return AgeEvaluator(write_age_evaluator(tmp_path / "age-v1.onnx"))


def crop(side: int = 256, red: float | np.ndarray = 160) -> np.ndarray:
    """A crop (side,side,3) of one red (a number, or a picture of it); green and blue differ."""
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = red, 30, 220
    return pixels


def test_colours_are_scaled_and_in_order(evaluator: AgeEvaluator) -> None:
    ages = evaluator.ages(np.stack([crop(red=160), crop(red=80)]))
    np.testing.assert_allclose(ages, [40, 20], atol=1e-3)


def test_window(evaluator: AgeEvaluator) -> None:
    """x 45.3-213.1, y 69.6-237.3: means of ramps, a pixel's centre lying half a pixel in."""
    ramp = np.arange(256)
    across, down = crop(red=ramp[None]), crop(red=ramp[:, None])
    expected = [(45.3 + 213.1 - 1) / 8, (69.6 + 237.3 - 1) / 8]  # half the sum, a quarter of it
    np.testing.assert_allclose(evaluator.ages(np.stack([across, down])), expected, atol=0.06)


def test_nothing_outside_the_window_counts(evaluator: AgeEvaluator) -> None:
    framed = np.zeros((256, 256, 3), np.uint8)
    framed[69:238, 45:214] = crop(red=120)[:1, :1]
    assert evaluator.ages(framed[None]) == pytest.approx(30, abs=1e-3)


@pytest.mark.parametrize("side", [64, 128, 256, 1024])
def test_crops_of_any_size(evaluator: AgeEvaluator, side: int) -> None:
    ramp = np.linspace(0, 255, side)[:, None]
    expected = evaluator.ages(crop(256, np.linspace(0, 255, 256)[:, None])[None])
    assert evaluator.ages(crop(side, ramp)[None]) == pytest.approx(expected, abs=0.15)


def test_the_age_is_the_mean_and_the_first_class_is_a_quarter_year(evaluator: AgeEvaluator) -> None:
    years = np.arange(81)
    bell = np.exp(-(years**2) / 2 / SPREAD**2)  # round 0, where red is 0
    years = np.where(years == 0, 0.25, years)
    assert evaluator.ages(crop(red=0)[None]) == pytest.approx((bell @ years) / bell.sum(), abs=1e-3)


def test_batches_and_none(evaluator: AgeEvaluator) -> None:
    reds = np.arange(60, 200)
    ages = evaluator.ages(np.stack([crop(32, red) for red in reds]))
    np.testing.assert_allclose(ages, reds / 4, atol=1e-3)
    assert evaluator.ages(np.empty((0, 32, 32, 3), np.uint8)).shape == (0,)


def test_it_names_itself(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = write_age_evaluator(tmp_path / "some evaluator.onnx")
    evaluator = AgeEvaluator(path)
    assert evaluator.name == "some evaluator"
    assert evaluator.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_wrong_files(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    good = write_age_evaluator(tmp_path / "good.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.onnx").write_bytes(b"")
    write_age_evaluator(tmp_path / "other.onnx", years=10)
    problems = {
        "missing.onnx": "No age evaluator",
        "cut.onnx": "not a readable ONNX file",
        "empty.onnx": "not a readable ONNX file|not age-v1",
        "other.onnx": "not age-v1",
    }
    check_refusals(AgeEvaluator, tmp_path, problems)


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'faceage\[evaluate\]'"):
        AgeEvaluator(write_age_evaluator(tmp_path / "age-v1.onnx"))


def test_few_modules_use_the_optional_libraries() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name not in ("evaluators.py", "onnx_backend.py"):
            text = path.read_text(encoding="utf-8")
            assert "onnxruntime" not in text, path
            assert "lpips." not in text, path
