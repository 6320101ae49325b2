"""Hair beyond the FFHQ crop."""

import numpy as np
import pytest
from face_geometry import FFHQ, face_at

from faceage.faces import hair
from faceage.faces.alignment import Face, apply, to_photo
from faceage.faces.hair import WIDE, WIDER, continue_beyond, hair_mask, widen
from faceage.faces.segmentation import SIZE

OUTSIDE = np.ones((WIDE, WIDE), bool)
OUTSIDE[WIDE // 6 : -WIDE // 6, WIDE // 6 : -WIDE // 6] = False
BROWN, BLUE = (90, 60, 40), (60, 110, 190)


def test_the_wider_crop_has_the_same_middle() -> None:
    face = face_at(FFHQ)
    wide = widen(face)
    assert wide.side == pytest.approx(WIDER * face.side)
    middles = [apply(to_photo(f.landmarks, 1), np.zeros((1, 2))) for f in (face, wide)]
    np.testing.assert_allclose(*middles, atol=1e-6)


def test_values_continue_from_the_nearest_rim() -> None:
    values = np.zeros((64, 64, 3), np.float32)
    values[:, 32:] = 50
    values[8:-8, 8:-8] = 1000  # the middle does not count
    continued = continue_beyond(values, np.ones((SIZE, SIZE), np.float32))
    assert continued.shape == (WIDE, WIDE, 3)
    np.testing.assert_allclose(continued[WIDE // 2, :20], 0, atol=0.5)
    np.testing.assert_allclose(continued[WIDE // 2, -20:], 50, atol=0.5)
    assert 15 < continued[2, WIDE // 2].mean() < 35


def test_only_values_of_the_head_continue() -> None:
    values = np.zeros((SIZE, SIZE, 3), np.float32)
    values[:10, 40:80] = 30
    head = np.zeros((SIZE, SIZE), np.float32)
    head[:10, 40:80] = 1
    np.testing.assert_allclose(continue_beyond(values, head), 30, atol=0.1)


def make_photo(
    monkeypatch: pytest.MonkeyPatch, radius: float, colour: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A photo that the wider crop fills, whose background has a colour, and the head of its crop.

    The head is a brown disc around the middle, and the segmenter finds it and a stripe above it.
    """
    side = round(WIDER * 256)
    axis = (np.arange(side) + 0.5) / side - 0.5
    x, y = np.meshgrid(axis, axis)
    photo = np.full((side, side, 3), colour, np.uint8)
    disc = np.hypot(x, y) < radius
    photo[disc] = BROWN
    found = (disc | ((np.abs(x) < 0.1) & (y < -0.36))).astype(np.float32)

    def shrink(mask: np.ndarray) -> np.ndarray:
        columns = np.linspace(0, len(mask) - 1, SIZE).round().astype(int)
        return mask[np.ix_(columns, columns)]

    monkeypatch.setattr(hair, "segment_head", lambda crop: shrink(found))
    return photo, shrink(found[64:-64, 64:-64])


def middle_face() -> Face:
    return face_at(FFHQ + 64)


def test_hair_of_the_same_colour_is_covered_and_a_background_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo, head = make_photo(monkeypatch, 0.42, BLUE)
    mask = hair_mask(photo, middle_face(), head)
    assert mask is not None
    assert mask.min() == 0
    assert mask.max() <= 1
    assert mask[WIDE // 2, 20:28].min() > 0.9  # the disc beyond the crop
    assert mask[:12, WIDE // 2].max() == 0  # the stripe: it is blue
    assert mask[:10, :10].max() == 0
    assert mask[WIDE // 2 - 30 : WIDE // 2 + 30, WIDE // 2 - 30 : WIDE // 2 + 30].max() == 0
    borders = [mask[0], mask[-1], mask[:, 0], mask[:, -1]]
    assert max(border.max() for border in borders) == 0


def test_without_hair_beyond_the_crop_there_is_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, head = make_photo(monkeypatch, 0.3, BLUE)
    assert hair_mask(photo, middle_face(), head) is None


def test_heads_apart_from_the_crop_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, head = make_photo(monkeypatch, 0.3, BROWN)
    found = np.zeros((SIZE, SIZE), np.float32)
    found[30:100, :12] = 1  # another person, of the same colour
    monkeypatch.setattr(hair, "segment_head", lambda crop: found)
    assert hair_mask(photo, middle_face(), head * (np.arange(SIZE) > 20)) is None
