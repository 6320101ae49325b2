"""PhotoEditor: faces encoded once and shown at any ages."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import faceage
from faceage.api import FaceAger
from faceage.errors import AgeError, NoFaceError
from faceage.faces.alignment import resize_crop
from faceage.faces.paste import face_mask


@pytest.fixture(scope="module")
def ager(tiny_weights: Path) -> FaceAger:
    return faceage.load(tiny_weights, device="cpu")


def test_faces_at_ages_of_their_own(ager: FaceAger, couple: Path) -> None:
    editor = ager.edit(couple)
    assert editor.numbers == (1, 2)
    rendered = editor.render({1: 5, 2: 70})
    expected = editor.photo.full.copy()
    for number, age in ((1, 5), (2, 70)):
        alone = ager.age(couple, to=age, faces=number)[0].pixels
        changed = (alone != editor.photo.full).any(-1)
        expected[changed] = alone[changed]
    np.testing.assert_array_equal(rendered, expected)


def test_faces_without_a_target_age_stay(ager: FaceAger, couple: Path) -> None:
    editor = ager.edit(couple)
    np.testing.assert_array_equal(editor.render({}), editor.photo.full)
    np.testing.assert_array_equal(
        editor.render({2: 70}), ager.age(couple, to=70, faces=2)[0].pixels
    )


def test_the_photo_is_unchanged_by_rendering(ager: FaceAger, couple: Path) -> None:
    editor = ager.edit(couple)
    before = editor.photo.full.copy()
    assert (editor.render({1: 70}) != before).any()
    np.testing.assert_array_equal(editor.photo.full, before)


def test_faces_are_encoded_once(
    ager: FaceAger, couple: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = ager.backend.encode
    monkeypatch.setattr(ager.backend, "encode", lambda x: encoded.append(len(x)) or encode(x))
    editor = ager.edit(couple)
    for age in (5, 40, 70):
        editor.render({1: age})
    assert encoded == [2]


def test_wrong_ages_and_faces(ager: FaceAger, couple: Path) -> None:
    with pytest.raises(AgeError, match="101"):
        ager.edit(couple).render({1: 101})
    with pytest.raises(NoFaceError):
        ager.edit(couple, faces=3)


# --- the fine level -------------------------------------------------------------------------------


def test_large_faces_get_details(tiny_weights: Path, fine_weights: Path, astronaut: Path) -> None:
    plain, fine = (faceage.load(w, device="cpu") for w in (tiny_weights, fine_weights))
    without, refined = plain.age(astronaut, 70)[0], fine.age(astronaut, 70)[0]
    assert refined.crops[0].shape == (128, 128, 3)  # four times the model's size
    assert without.crops[0].shape == (32, 32, 3)
    difference = refined.pixels.astype(float) - without.pixels
    assert np.abs(difference).mean() > 0.1
    face = refined.face
    x, y = (round(float(v)) for v in face.landmarks[2])
    part = difference[y - 32 : y + 32, x - 32 : x + 32]
    blocks = part.reshape(2, 32, 2, 32, 3).mean((1, 3))
    assert np.abs(blocks).mean() < 0.2 * np.abs(part).mean()  # details only


def test_small_faces_get_none(fine_weights: Path, tiny_weights: Path, astronaut: Path) -> None:
    small = np.asarray(Image.open(astronaut).resize((180, 180)))
    fine, plain = (faceage.load(w, device="cpu") for w in (fine_weights, tiny_weights))
    expected, found = plain.age(small, 70)[0], fine.age(small, 70)[0]
    assert fine.backend.size < found.face.side <= 2 * fine.backend.size
    np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_details_follow_the_displaced_face(fine_weights: Path, astronaut: Path) -> None:
    """The fine level gets the displacement with which the face is pasted."""
    ager = faceage.load(fine_weights, device="cpu")
    editor = ager.edit(astronaut)
    change = editor.decode(0, [5])[0]
    refined = editor.refine(0, change)
    assert refined.residual.shape == (3, 128, 128)
    weight = face_mask(editor.faces[0].landmarks, change.flow.shape[-1])
    assert weight.min() < 0.99  # less displacement towards the edge of the paste mask
    np.testing.assert_array_equal(refined.flow, change.flow * weight)
    crop = resize_crop(editor._native[0], 128)
    again = ager.backend.refine(crop, change._replace(flow=refined.flow))
    np.testing.assert_array_equal(again.residual, refined.residual)
