"""PhotoEditor: faces encoded once and shown at any ages."""

from pathlib import Path

import numpy as np
import pytest

import faceage
from faceage.api import FaceAger
from faceage.errors import AgeError, NoFaceError


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
