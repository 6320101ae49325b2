"""FaceAger: predict and age."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from face_geometry import crop_region
from PIL import Image

import faceage
from faceage.ages import GROUP_NAMES, group_of
from faceage.api import FaceAger, _make_prediction, load_detector
from faceage.errors import AgeError, NoFaceError, PhotoError, WeightsError
from faceage.faces.alignment import Face, crop_bounds
from faceage.faces.selection import choose_faces
from faceage.imaging.photos import as_photo
from faceage.inference.torch_backend import TorchBackend
from faceage.models import tta
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel

ANY_FACE = Face((0, 0, 1, 1), np.zeros((5, 2)), 1.0)


@pytest.fixture(scope="module")
def ager(tiny_weights: Path) -> FaceAger:
    return faceage.load(tiny_weights, device="cpu")


def distribution(**years: float) -> np.ndarray:
    p = np.zeros(101)
    for year, share in years.items():
        p[int(year[1:])] = share
    return p


def test_make_prediction_of_one_certain_year() -> None:
    found = _make_prediction(distribution(y25=1.0), ANY_FACE, 1)
    assert found.age == pytest.approx(25)
    # The year 25 reaches from 24.5 to 25.5; a tenth is cut off at both ends.
    assert found.interval == pytest.approx((24.6, 25.4))
    assert found.group == "20-29"
    assert found.probabilities == {n: float(n == "20-29") for n in GROUP_NAMES}


def test_make_prediction_is_the_median_and_its_group() -> None:
    # The likeliest single year is 10; half of the weight lies below a third of the year 22.
    found = _make_prediction(distribution(y10=0.4, y22=0.3, y28=0.3), ANY_FACE, 1)
    assert found.group == "20-29"
    assert found.probabilities["20-29"] == pytest.approx(0.6)
    assert found.age == pytest.approx(21.5 + (0.5 - 0.4) / 0.3)


@pytest.mark.parametrize(("year", "group"), [(29, "20-29"), (30, "30-39"), (70, "70+"), (0, "0-2")])
def test_the_group_is_that_of_the_nearest_whole_year(year: int, group: str) -> None:
    assert _make_prediction(distribution(**{f"y{year}": 1.0}), ANY_FACE, 1).group == group


def test_interval_is_the_middle_of_an_even_distribution() -> None:
    found = _make_prediction(np.full(101, 1 / 101), ANY_FACE, 1)
    assert found.interval == pytest.approx((-0.5 + 10.1, 100.5 - 10.1))


def test_interval_holds_the_age_and_stays_within_years() -> None:
    skewed = _make_prediction(distribution(y0=0.95, y100=0.05), ANY_FACE, 1)
    assert skewed.age == pytest.approx(-0.5 + 0.5 / 0.95, abs=1e-6)
    assert skewed.interval[0] == 0
    assert skewed.interval[1] == pytest.approx(-0.5 + 0.9 / 0.95)


def test_predict_numbers_faces_by_size(ager: FaceAger, couple: Path) -> None:
    found = ager.predict(couple)
    assert [p.number for p in found] == [1, 2]
    assert found[0].face.box[0] > found[1].face.box[0]  # the larger one is on the right
    for p in found:
        assert p.interval[0] <= p.age <= p.interval[1]
        assert sum(p.probabilities.values()) == pytest.approx(1)
        assert list(p.probabilities) == list(GROUP_NAMES)
        assert p.group == GROUP_NAMES[group_of(int(p.age + 0.5))]


def test_predict_does_not_depend_on_the_mirror(ager: FaceAger, astronaut: Path) -> None:
    pixels = as_photo(astronaut).pixels
    crop = np.ascontiguousarray(pixels[50:200, 150:300])
    mirrored = np.ascontiguousarray(crop[:, ::-1])
    side = ager.backend.classifier_crop
    shrink = [np.asarray(Image.fromarray(c).resize((side, side))) for c in (crop, mirrored)]
    years = ager.backend.predict(np.stack(shrink))
    np.testing.assert_allclose(years[0], years[1], atol=1e-5)


def test_predict_in_parts_equals_predict_at_once(
    ager: FaceAger, couple: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = [p.age for p in ager.predict(couple)]
    monkeypatch.setattr(tta, "CHUNK", 1)
    assert [p.age for p in ager.predict(couple)] == pytest.approx(at_once, abs=1e-4)


def test_age_changes_the_face_and_nothing_else(ager: FaceAger, couple: Path) -> None:
    photo = as_photo(couple)
    young, old = ager.age(photo, to=[5, 70], faces=2)
    assert (young.age, old.age) == (5.0, 70.0)
    assert young.numbers == (2,)
    region = crop_region(young.face, photo.pixels.shape)
    for aged in (young, old):
        changed = (aged.pixels != photo.pixels).any(-1)
        assert changed.mean() > 0.01
        assert not changed[~region].any()
        assert aged.photo.size == Image.open(couple).size
        assert aged.crop.size == (32, 32)
    assert (young.pixels != old.pixels).any()


def test_age_of_all_faces_is_the_sum_of_each(ager: FaceAger, couple: Path) -> None:
    photo = as_photo(couple)
    both, one, two = (ager.age(photo, 70, faces=f)[0].pixels for f in ("all", 1, 2))
    right = crop_region(ager.predict(photo, 1)[0].face, photo.pixels.shape)
    np.testing.assert_array_equal(both[right], one[right])
    np.testing.assert_array_equal(both[~right], two[~right])


def test_ageing_in_place_gives_the_same_without_a_copy(ager: FaceAger, couple: Path) -> None:
    photo = as_photo(couple)
    expected = ager.age(photo, to=[5, 30, 70])
    found = choose_faces(photo, ager.detector)
    results = ager.iter_age(photo, [5, 30, 70], found, in_place=True)
    for aged, other in zip(results, expected, strict=True):
        assert aged.pixels is photo.pixels
        np.testing.assert_array_equal(aged.pixels, other.pixels)


def test_the_last_age_in_place_needs_no_copy_of_the_face(ager: FaceAger, astronaut: Path) -> None:
    photo = as_photo(as_photo(astronaut).pixels.repeat(4, 0).repeat(4, 1))
    found = choose_faces(photo, ager.detector)
    x0, y0, x1, y1 = crop_bounds(found[0][1], within=photo.pixels.shape)
    face = 3 * (x1 - x0) * (y1 - y0)  # bytes
    held = []
    tracemalloc.start()
    for _ in ager.iter_age(photo, [5, 30, 70], found, in_place=True):
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[0] > held[2] + 0.9 * face
    assert held[1] > held[2] + 0.9 * face


def test_many_ages_are_decoded_in_batches(
    ager: FaceAger, astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, encoded = [], []
    decode, encode = FaceAgeModel.decode, FaceAgeModel.encode
    monkeypatch.setattr(
        FaceAgeModel, "decode", lambda self, e, *t: sizes.append(len(t[0])) or decode(self, e, *t)
    )
    monkeypatch.setattr(
        FaceAgeModel, "encode", lambda self, x: encoded.append(len(x)) or encode(self, x)
    )
    ages = [float(a) for a in range(1, 19)]
    many = ager.age(astronaut, to=ages)
    assert sizes == [16, 16, 2, 2]  # each of them and its mirror image
    assert encoded == [2]
    assert [aged.age for aged in many] == ages
    alone = ager.age(astronaut, to=18)[0]
    assert np.abs(alone.pixels.astype(int) - many[-1].pixels).max() <= 1


def test_no_change_leaves_the_photo_as_it_is(tiny_model: FaceAgeModel, astronaut: Path) -> None:
    untrained = FaceAgeModel(tiny_model.config).eval().requires_grad_(False)
    still = FaceAger(TorchBackend(untrained), load_detector())
    photo = as_photo(astronaut)
    np.testing.assert_array_equal(still.age(photo, to=50)[0].pixels, photo.pixels)


def test_black_and_white_stays_so(ager: FaceAger, astronaut: Path) -> None:
    grey = np.asarray(Image.open(astronaut).convert("L").convert("RGB"))
    aged = ager.age(grey, to=70)[0].pixels
    assert (aged != grey).any()
    assert (np.ptp(aged, axis=2) == 0).all()
    colour = ager.age(astronaut, to=70)[0].pixels
    assert (np.ptp(colour, axis=2) > 0).any()


def test_photos_of_every_kind_give_the_same(ager: FaceAger, couple: Path) -> None:
    image = Image.open(couple)
    results = [
        ager.age(photo, to=30)[0].pixels
        for photo in (couple, str(couple), image, np.asarray(image), as_photo(couple))
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_alpha_is_kept(ager: FaceAger, portrait: np.ndarray) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, portrait.shape[:2], np.uint8)
    photo = ager.age(np.dstack([portrait, alpha]), to=30)[0].photo
    assert photo.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(photo)[..., 3], alpha)


def test_16_bits_are_kept(ager: FaceAger, portrait: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    deep = portrait.astype(np.uint16) * 257 + rng.integers(-120, 120, portrait.shape).clip(
        -portrait.astype(int) * 257, 65535 - portrait.astype(int) * 257
    ).astype(np.uint16)
    aged = ager.age(deep, to=70)[0]
    assert aged.pixels.dtype == np.uint16
    outside = ~crop_region(aged.face, deep.shape)
    np.testing.assert_array_equal(aged.pixels[outside], deep[outside])
    change = aged.pixels.astype(int) - deep
    assert (change % 257 != 0).any()  # finer than 8 bits
    from_8_bits = ager.age(portrait, to=70)[0]
    difference = np.asarray(aged.photo).astype(int) - from_8_bits.pixels
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("age", [-3, 101, 500, float("nan"), float("inf")])
def test_ages_out_of_range(ager: FaceAger, astronaut: Path, age: float) -> None:
    with pytest.raises(AgeError):
        ager.age(astronaut, to=[5, age])


def test_photos_without_faces(ager: FaceAger, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    with pytest.raises(NoFaceError, match="No face found in the photo"):
        ager.predict(noise)
    with pytest.raises(PhotoError, match=r"nonsuch\.jpg"):
        ager.age(tmp_path / "nonsuch.jpg", to=5)


def test_the_baseline_is_refused(tiny_model: FaceAgeModel) -> None:
    config = ModelConfig(**(vars(tiny_model.config) | {"decomposition": False}))
    with pytest.raises(WeightsError, match="baseline"):
        TorchBackend(FaceAgeModel(config))
