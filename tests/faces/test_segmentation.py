"""The head in a face crop."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from faceage import hub
from faceage.errors import WeightsError
from faceage.faces import segmentation
from faceage.faces.alignment import apply, crop_face, to_crop
from faceage.faces.detection import make_detector
from faceage.faces.paste import head_mask
from faceage.faces.segmentation import segment_head


@pytest.fixture(scope="module")
def crop(portrait: np.ndarray) -> np.ndarray:
    return crop_face(portrait, make_detector().detect(portrait)[0], 256)


def test_the_head_of_the_portrait(crop: np.ndarray, portrait: np.ndarray) -> None:
    head = segment_head(crop)
    assert head.shape == (128, 128)
    assert head.dtype == np.float32
    assert 0 <= head.min() < 0.01
    assert 0.99 < head.max() <= 1
    landmarks = make_detector().detect(portrait)[0].landmarks
    for x, y in apply(to_crop(landmarks, 128), landmarks):
        assert head[round(y), round(x)] > 0.9
    assert head_mask(head)[20:30, 50:80].min() > 0.85  # hair
    assert head[4:40, :3].max() < 0.2  # background
    assert head[122:, :20].max() < 0.2  # clothes


def test_the_size_of_the_crop_hardly_matters(crop: np.ndarray) -> None:
    large = np.asarray(Image.fromarray(crop).resize((512, 512), Image.Resampling.BICUBIC))
    assert np.abs(segment_head(large) - segment_head(crop)).mean() < 0.01


@pytest.mark.parametrize("degradation", ["grey", "blurred", "mirrored"])
def test_degraded_pictures(crop: np.ndarray, degradation: str) -> None:
    image = Image.fromarray(crop)
    expected = head_mask(segment_head(crop)) > 0.5
    if degradation == "grey":
        image = image.convert("L").convert("RGB")
    elif degradation == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(4))
    else:
        image, expected = Image.fromarray(crop[:, ::-1]), expected[:, ::-1]
    found = head_mask(segment_head(np.asarray(image))) > 0.5
    assert (found & expected).sum() / (found | expected).sum() > 0.85


@pytest.mark.parametrize(
    ("box", "colour"),
    [
        ((60, 175, 196, 256), (235, 235, 228)),  # a sheet of paper
        ((102, 179, 154, 231), (35, 35, 38)),  # a microphone
        ((60, 90, 110, 190), (20, 20, 25)),  # a phone
        ((0, 125, 256, 150), (60, 110, 190)),  # a bar
    ],
)
def test_objects_in_front_are_not_head(
    crop: np.ndarray, box: tuple[int, int, int, int], colour: tuple[int, int, int]
) -> None:
    x0, y0, x1, y1 = (side // 2 for side in box)
    before = segment_head(crop)
    covered = crop.copy()
    covered[box[1] : box[3], box[0] : box[2]] = colour
    after = segment_head(covered)
    inside = np.s_[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
    hidden = before[inside] > 0.9
    assert hidden.sum() > 300
    assert after[inside][hidden].mean() < 0.25
    elsewhere = before > 0.9
    elsewhere[max(0, y0 - 8) : y1 + 8, max(0, x0 - 8) : x1 + 8] = False
    assert after[elsewhere].mean() > 0.9


def test_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: np.ndarray) -> None:
    file = tmp_path / "head.onnx"
    file.write_bytes(b"no network")
    monkeypatch.setattr(hub, "find", lambda name: file)
    segmentation._load.cache_clear()
    try:
        with pytest.raises(WeightsError, match="damaged"):
            segment_head(crop)
    finally:
        segmentation._load.cache_clear()
