"""The geometry of the FFHQ crop, and cropping."""

import csv
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from face_geometry import FFHQ, face_at, moved, turned, waves

from faceage.faces.alignment import (
    crop_face,
    crop_quad,
    native_size,
    to_crop,
    to_photo,
    valid_box,
)
from faceage.faces.detection import make_detector


def test_quad_of_an_upright_face_by_hand() -> None:
    # Eyes 40 apart at y=100, mouth at y=140: 4 x 40 = 160 > 3.6 x 40 = 144, so 160 px wide,
    # around (100, 100 + 0.1 x 40).
    landmarks = np.array([[80, 100], [120, 100], [100, 120], [85, 140], [115, 140]])
    expected = [[20, 24], [20, 184], [180, 184], [180, 24]]
    np.testing.assert_allclose(crop_quad(landmarks), expected, atol=1e-9)


def test_quad_of_a_long_face_by_hand() -> None:
    # Eyes 40 apart, mouth 100 lower: 3.6 x 100 = 360 > 160, around (100, 110).
    landmarks = np.array([[80, 100], [120, 100], [100, 150], [85, 200], [115, 200]])
    expected = [[-80, -70], [-80, 290], [280, 290], [280, -70]]
    np.testing.assert_allclose(crop_quad(landmarks), expected, atol=1e-9)


def test_quad_of_a_lying_face_by_hand() -> None:
    # The first face turned by 90 degrees clockwise: eyes below each other, mouth to the left.
    landmarks = np.array([[100, 80], [100, 120], [80, 100], [60, 85], [60, 115]])
    expected = [[176, 20], [16, 20], [16, 180], [176, 180]]  # its top left corner is at the right
    np.testing.assert_allclose(crop_quad(landmarks), expected, atol=1e-9)


@pytest.mark.parametrize("degrees", [-170, -45, 0, 10, 90])
@pytest.mark.parametrize("scale", [0.3, 1, 7])
def test_quad_is_equivariant_to_rotation_and_scale(degrees: float, scale: float) -> None:
    expected = turned(crop_quad(FFHQ), degrees, scale)
    np.testing.assert_allclose(crop_quad(turned(FFHQ, degrees, scale)), expected, atol=1e-6)


def test_the_crop_of_an_ffhq_image_is_that_image() -> None:
    frame = np.array([[0, 0], [0, 256], [256, 256], [256, 0]]) - 0.5
    assert np.abs(crop_quad(FFHQ) - frame).max() < 0.03 * 256
    assert face_at(FFHQ).side == pytest.approx(256, rel=0.03)
    assert native_size(face_at(FFHQ)) == 256
    picture = cv2.GaussianBlur(waves(256, 256), (0, 0), 3)
    difference = crop_face(picture, face_at(FFHQ), 256).astype(int) - picture
    assert np.abs(difference[8:-8, 8:-8]).max() <= 6  # half a pixel lower, as the formula has it


@pytest.mark.skipif("FACEAGE_TEST_DATA" not in os.environ, reason="FACEAGE_TEST_DATA is not set")
def test_crops_of_aligned_data_have_scale_1() -> None:
    folder, detector, sides = Path(os.environ["FACEAGE_TEST_DATA"]), make_detector(), []
    with (folder / "faces.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["zip"] == "val.zip"][::30]
    with zipfile.ZipFile(folder / "val.zip") as archive:
        for row in rows:
            picture = cv2.imdecode(np.frombuffer(archive.read(row["file"]), np.uint8), 1)
            if found := detector.detect(np.ascontiguousarray(picture[..., ::-1])):
                sides.append(found[0].side)
    assert len(sides) > 0.9 * len(rows)
    assert np.median(sides) == pytest.approx(256, rel=0.03)


@pytest.mark.parametrize("size", [1, 64, 256])
def test_to_crop_and_to_photo_are_inverse(size: int) -> None:
    landmarks = turned(FFHQ, 33, 1.7) + np.array([40, -20])
    there, back = to_crop(landmarks, size), to_photo(landmarks, size)
    assert there.shape == back.shape == (2, 3)
    assert there.dtype == back.dtype == np.float64
    points = np.array([[0, 0], [17, 200], [500, 3]], float)
    np.testing.assert_allclose(moved(back, moved(there, points)), points, atol=1e-9)
    # The quad's corners are the outer corners of the crop's corner pixels.
    corners = np.array([[0, 0], [0, size], [size, size], [size, 0]]) - 0.5
    np.testing.assert_allclose(moved(there, crop_quad(landmarks)), corners, atol=1e-9)


def test_landmarks_map_to_their_places_in_ffhq() -> None:
    landmarks = turned(FFHQ, -20, 3) + 300
    np.testing.assert_allclose(moved(to_crop(landmarks, 256), landmarks), FFHQ, atol=0.6)


def test_native_size_is_capped() -> None:
    assert native_size(face_at(FFHQ * 2.01)) == round(256 * 2.01)
    assert native_size(face_at(FFHQ * 20)) == 1024
    assert native_size(face_at(FFHQ * 20), limit=300) == 300


@pytest.mark.parametrize("size", [37, 64, 128, 256, 400])
@pytest.mark.parametrize("scale", [0.4, 1, 1.9, 5])
def test_crop_shows_the_right_place_at_every_size(size: int, scale: float) -> None:
    """Each pixel of the crop has the colour that the photo has where the map says."""
    landmarks = turned(FFHQ, 25, scale, 0) + 260 * scale
    side = round(540 * scale)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    photo = np.stack([x, y, x + y], 2) * [255 / side, 255 / side, 127 / side]
    photo = np.rint(photo).astype(np.uint8)
    crop = crop_face(photo, face_at(landmarks), size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), 2).reshape(-1, 2)
    places = moved(to_photo(landmarks, size), grid.astype(float))
    expected = np.stack([places[:, 0], places[:, 1]], 1) * 255 / side
    inside = ((places > 3) & (places < side - 4)).all(1)
    assert inside.mean() > 0.75
    found = crop.reshape(-1, 3)[inside, :2].astype(float)
    assert np.abs(found - expected[inside]).max() < 1.6


def test_small_crops_are_averages() -> None:
    """A chequered photo shrinks to grey; skipping pixels would leave black and white."""
    x, y = np.meshgrid(np.arange(1024), np.arange(1024))
    chequered = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    crop = crop_face(chequered, face_at(turned(FFHQ, 7, 3, 128) + 384), 64)
    assert np.abs(crop.astype(int) - 127).max() <= 12


def test_no_black_corners() -> None:
    white = np.full((120, 100, 3), 240, np.uint8)
    for size in (48, 128, 300):
        for degrees in (0, 30, 180):
            landmarks = turned(FFHQ, degrees, 0.7) - 70  # the crop reaches far over every border
            crop = crop_face(white, face_at(landmarks), size)
            assert crop.min() >= 239


def test_beyond_the_border_is_a_blurred_reflection() -> None:
    photo = waves(256, 256)
    photo[:, :40] = np.where(np.arange(256)[:, None, None] % 8 < 4, 0, 255)  # sharp stripes
    face = face_at(FFHQ - [60, 0])
    crop = crop_face(photo, face, 256).astype(float)
    column = {name: crop[20:-20, x].std(0).mean() for name, x in {"in": 80, "out": 30}.items()}
    assert column["in"] > 100  # the photo itself stays sharp
    assert column["out"] < 20
    np.testing.assert_allclose(crop[20:-20, 30].mean(), 127.5, atol=8)


def test_valid_box() -> None:
    same = np.array([[1.0, 0, 0], [0, 1, 0]])
    moved = np.array([[1.0, 0, 20], [0, 1, 0]])
    assert valid_box(same, (100, 100), 100) == (0, 0, 100, 100)
    # A crop that begins 20 px left of the photo and ends 30 px below it.
    assert valid_box(moved, (70, 100), 100) == (20, 0, 100, 70)
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    assert valid_box(half, (100, 200), 100) == (0, 0, 100, 50)
