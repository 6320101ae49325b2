"""Padded arrays give what other arrays give."""

from pathlib import Path

import numpy as np
import pytest

from faceage.faces.alignment import crop_face, native_size
from faceage.faces.detection import make_detector
from faceage.faces.paste import add_change, face_mask
from faceage.imaging.padding import allocate_padded, is_padded, padded_layers
from faceage.imaging.photos import open_photo

PORTRAIT = Path(__file__).parents[2] / "examples" / "astronaut.jpg"


@pytest.fixture
def photo() -> np.ndarray:
    return open_photo(PORTRAIT).pixels


def _pad(photo: np.ndarray) -> np.ndarray:
    padded = allocate_padded(*photo.shape[:2])
    padded[:] = photo
    return padded


def test_which_arrays_are_padded() -> None:
    padded = allocate_padded(4, 6)
    layers = padded_layers(padded)
    assert is_padded(padded)
    assert (padded.shape, layers.shape) == ((4, 6, 3), (4, 6, 4))
    padded[1, 2] = 7, 8, 9
    assert layers[1, 2, :3].tolist() == [7, 8, 9]
    whole = np.zeros((4, 6, 3), np.uint8)
    others = whole, whole[:, ::-1], padded[1:], padded[..., ::-1], padded.copy(), layers[..., 1:]
    for other in others:
        assert not is_padded(other)
        assert padded_layers(other) is other


def test_faces_and_crops_are_the_same(photo: np.ndarray) -> None:
    large = photo.repeat(5, 0).repeat(5, 1)[:-1, :-1]  # so that it is halved, with odd sides
    padded = _pad(large)
    assert is_padded(padded)
    detector = make_detector()
    (face,), (same,) = detector.detect(large), detector.detect(padded)
    np.testing.assert_array_equal(face.landmarks, same.landmarks)
    for size in (128, native_size(face)):
        expected = crop_face(large, face, size)
        np.testing.assert_array_equal(crop_face(padded, face, size), expected)


def test_changes_are_the_same(photo: np.ndarray) -> None:
    padded = _pad(photo)
    layers = padded_layers(padded)
    layers[..., 3] = 123
    (face,) = make_detector().detect(photo)
    rng = np.random.default_rng(0)
    change = rng.normal(0, 40, (64, 64, 3)).astype(np.float32)
    mask = face_mask(face.landmarks, 64)
    before = photo.copy()
    add_change(photo, face, change, mask)
    add_change(padded, face, change, mask)
    assert not np.array_equal(photo, before)
    np.testing.assert_array_equal(padded, photo)
    assert (layers[..., 3] == 123).all()
