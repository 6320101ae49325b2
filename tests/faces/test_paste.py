"""Masks, and pasting a change back."""

import time

import numpy as np
import pytest
from face_geometry import FFHQ, face_at, moved, turned, waves

from faceage.faces.alignment import to_photo
from faceage.faces.paste import face_mask, head_mask, paste_change, photo_mask

FULL = np.ones((128, 128), np.float32)


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("degrees", [0, 40])
def test_mask(size: int, degrees: float) -> None:
    landmarks = turned(FFHQ, degrees, 2.2)
    mask = face_mask(landmarks, size)
    assert mask.shape == (size, size)
    assert mask.dtype == np.float32
    assert (mask.min(), mask.max()) == (0, 1)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    assert (border == 0).all()
    assert np.abs(np.diff(mask, axis=0)).max() < 24 / size  # no edge anywhere
    assert np.abs(np.diff(mask, axis=1)).max() < 24 / size
    for x, y in (*(FFHQ / 256), (0.5, 0.87), (0.5, 0.2), (0.25, 0.5), (0.75, 0.5)):
        assert mask[int(y * size), int(x * size)] > 0.99  # features, chin, forehead, cheeks


def test_mask_ends_before_the_border_for_any_landmarks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = face_mask(FFHQ + rng.normal(0, 25, FFHQ.shape), 64)
        assert (mask[[0, -1]] == 0).all()
        assert (mask[:, [0, -1]] == 0).all()


def test_head_mask_covers_the_head_and_leaves_the_rest() -> None:
    y, x = np.indices((128, 128))
    head = ((x - 60) ** 2 / 30**2 + (y - 64) ** 2 / 40**2 < 1).astype(np.float32)
    mask = head_mask(head)
    assert mask.dtype == np.float32
    assert mask[head == 1].min() > 0.99
    far = ((x - 60) ** 2 / 42**2 + (y - 64) ** 2 / 52**2) > 1
    assert (mask[far] == 0).all()
    assert np.abs(np.diff(mask, axis=0)).max() < 0.95  # no hard edge
    assert np.abs(np.diff(mask, axis=1)).max() < 0.95


def test_head_mask_falls_to_zero_at_the_border() -> None:
    mask = head_mask(np.ones((128, 128), np.float32))
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert (edge == 0).all()
    assert (mask[12:-12, 12:-12] == 1).all()
    assert (head_mask(np.zeros((128, 128), np.float32)) == 0).all()


CASES = [
    (FFHQ, 256),
    (turned(FFHQ, 30, 0.3) + 50, 256),  # smaller in the photo than the change
    (turned(FFHQ, -15, 1.6), 64),  # larger
    (FFHQ - [100, 90], 128),  # cut by the border
    (turned(FFHQ, 120, 4), 32),  # reaching over all borders
]


@pytest.mark.parametrize(("landmarks", "size"), CASES)
def test_paste_changes_nothing_outside_the_mask(landmarks: np.ndarray, size: int) -> None:
    photo, face = waves(400, 320), face_at(landmarks)
    before = photo.copy()
    change = np.full((size, size, 3), -70, np.float32)
    mask = face_mask(landmarks, 256)
    result = paste_change(photo, face, change, mask)
    mask = photo_mask(face, photo.shape, mask)
    assert mask.shape == (320, 400)
    assert np.array_equal(photo, before)  # the photo given is left alone
    assert result.dtype == np.uint8
    assert np.array_equal(result[mask == 0], photo[mask == 0])
    full = (mask == 1) & (photo.min(2) >= 70)
    assert full.any()
    assert np.array_equal(result[full], photo[full] - 70)
    expected = np.clip(np.rint(photo - 70.0 * mask[..., None]), 0, 255)
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize(("landmarks", "size"), CASES)
def test_a_zero_change_leaves_the_photo_identical(landmarks: np.ndarray, size: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (320, 400, 3), np.uint8)
    result = paste_change(photo, face_at(landmarks), np.zeros((size, size, 3), np.float32), FULL)
    assert np.array_equal(result, photo)
    assert result is not photo


def test_paste_clips() -> None:
    photo = waves(256, 256)
    bright = paste_change(photo, face_at(FFHQ), np.full((64, 64, 3), 900, np.float32), FULL)
    dark = paste_change(photo, face_at(FFHQ), np.full((64, 64, 3), -900, np.float32), FULL)
    assert (bright[128, 128] == 255).all()
    assert (dark[128, 128] == 0).all()


@pytest.mark.parametrize("scale", [0.4, 1, 3.3])
def test_paste_maps_a_change_to_its_place_in_the_photo(scale: float) -> None:
    landmarks = turned(FFHQ, 20, scale, 128) + 260
    photo = np.full((900, 900, 3), 100, np.uint8)
    change = np.zeros((256, 256, 3), np.float32)
    change[100:120, 150:180] = 50
    result = paste_change(photo, face_at(landmarks), change, FULL).astype(float)[..., 0] - 100
    y, x = np.indices(result.shape)
    centre = np.array([(x * result).sum(), (y * result).sum()]) / result.sum()
    expected = moved(to_photo(landmarks, 256), np.array([[164.5, 109.5]]))[0]
    np.testing.assert_allclose(centre, expected, atol=0.15)
    side = face_at(landmarks).side / 256
    assert result.sum() == pytest.approx(50 * 20 * 30 * side**2, rel=0.02)


def test_paste_into_50_megapixels_is_quick() -> None:
    photo = np.full((5774, 8660, 3), 90, np.uint8)
    face = face_at(FFHQ * 8 + 1500)  # 2000 px wide
    change = np.full((256, 256, 3), 9, np.float32)
    start = time.perf_counter()
    result = paste_change(photo, face, change, FULL)
    assert time.perf_counter() - start < 3  # some 0.3 s on an idle machine
    assert (result[1500 + 8 * 128, 1500 + 8 * 128] == 99).all()
