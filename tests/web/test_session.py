"""The photo behind the page: sliders, and the files made from it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import faceage
from faceage.api import FaceAger
from faceage.errors import NoFaceError, PhotoError
from faceage.imaging.photos import is_own_result
from faceage.web import session as web_session
from faceage.web.session import Session


@pytest.fixture(scope="module")
def ager(tiny_weights: Path) -> FaceAger:
    return faceage.load(tiny_weights, device="cpu")


@pytest.fixture
def pair(ager: FaceAger, couple: Path) -> Session:
    return Session.open(ager, couple)


def test_sliders_start_at_the_predicted_ages_and_change_nothing(pair: Session) -> None:
    assert len(pair.predictions) == 2
    assert pair.current_ages == [round(p.age) for p in pair.predictions]
    np.testing.assert_array_equal(pair.render(pair.current_ages), pair.before)


def test_each_slider_changes_its_own_face(pair: Session, ager: FaceAger, couple: Path) -> None:
    first, second = pair.current_ages
    for ages, number in (([70, second], 1), ([first, 70], 2)):
        rendered = pair.render(ages)
        np.testing.assert_array_equal(rendered, ager.age(couple, to=70, faces=number)[0].pixels)


def test_faces_are_drawn_with_number_and_age(pair: Session) -> None:
    drawn = pair.draw_faces()
    assert drawn.shape == pair.before.shape
    assert (drawn != pair.before).any(-1).mean() > 0.005


def test_large_photos_are_shown_smaller_and_saved_whole(
    ager: FaceAger, portrait: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_session, "PREVIEW_SIDE", 300)
    path = tmp_path / "me.png"
    Image.fromarray(portrait).save(path)
    session = Session.open(ager, path)
    assert max(session.before.shape[:2]) == 300
    assert session.render([70]).shape == session.before.shape
    (tmp_path / "out").mkdir()
    saved = session.save([70], tmp_path / "out")
    assert saved.name == "me.age70.png"
    expected = ager.age(path, to=70)[0].pixels
    np.testing.assert_array_equal(np.asarray(Image.open(saved)), expected)


def test_files_are_marked_as_synthetic(pair: Session, tmp_path: Path) -> None:
    ages = [70, pair.current_ages[1]]
    files = [
        pair.save(ages, tmp_path),
        pair.save_sheet(0, (5, 70), tmp_path),
        pair.save_animation(1, (5, 40, 70), tmp_path),
    ]
    for file in files:
        assert is_own_result(file)
        mark = Image.open(file).getexif()[270]
        assert pair.ager.weights_sha[:16] in mark


def test_animation_goes_there_and_back(pair: Session, tmp_path: Path) -> None:
    with Image.open(pair.save_animation(0, (5, 40, 70), tmp_path)) as image:
        assert image.n_frames == 4  # 5, 40, 70, 40
        image.load()
        assert image.info["duration"] == 100


def test_saving_without_a_change_is_refused(pair: Session, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="Move a slider"):
        pair.save(pair.current_ages, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_photos_that_are_refused(
    ager: FaceAger, couple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "black.png")
    with pytest.raises(NoFaceError):
        Session.open(ager, tmp_path / "black.png")
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(PhotoError):
        Session.open(ager, tmp_path / "text.jpg")
    monkeypatch.setattr(web_session, "MAX_PIXELS", 1000)
    with pytest.raises(PhotoError, match="megapixels"):
        Session.open(ager, couple)


def test_only_the_largest_faces_get_a_slider(
    ager: FaceAger, couple: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_session, "MAX_FACES", 1)
    session = Session.open(ager, couple)
    assert [p.number for p in session.predictions] == [1]


def test_photos_from_the_camera(ager: FaceAger, portrait: np.ndarray, tmp_path: Path) -> None:
    session = Session.open(ager, portrait)
    assert session.save([70], tmp_path).name == "photo.age70.png"
