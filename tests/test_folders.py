"""Finished pictures of another system: which belongs to which face, found and cut out alike."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import make_dataset, open_inputs

from faceage.errors import ConfigError, DataError, PhotoError
from faceage.evaluation.folders import PictureFolder
from faceage.evaluation.inputs import LabelledInputs
from faceage.evaluation.systems import Aged, Crops
from faceage.faces.detection import crop_face, make_detector


@pytest.fixture(scope="module")
def crop(portrait: np.ndarray) -> np.ndarray:
    """The portrait's FFHQ crop, 256 px."""
    return crop_face(portrait, make_detector().detect(portrait)[0], 256)


@pytest.fixture
def inputs(tmp_path: Path, crop: np.ndarray) -> LabelledInputs:
    """Three labelled crops of one face, one darker than the other."""
    levels = [crop, crop // 4 * 3, crop // 2]
    return open_inputs(make_dataset(tmp_path / "data", levels, [20, 30, 40]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    (path / "more").mkdir(parents=True)
    return path


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, lossless=True)


def look(system: PictureFolder, inputs, places: list[int], targets: list[float]) -> list[Aged]:
    """The results of some faces."""
    chosen = np.array(places)
    faces = Crops(chosen, inputs.crops(chosen), inputs.landmarks(chosen), inputs.ages[chosen])
    return list(system.age(faces, [np.full(len(chosen), age) for age in targets]))


def test_results_of_labelled_faces(inputs: LabelledInputs, folder: Path, crop: np.ndarray) -> None:
    save(folder / "0_10.png", crop)
    save(folder / "more" / "0_70.5.webp", crop // 2)
    save(folder / "2_10.png", crop)
    save(folder / "other_10.png", crop)
    save(folder / "2_110.png", crop)  # no age
    save(folder / "note.png", crop)
    (folder / "1_10.txt").touch()
    system = PictureFolder("other", folder, inputs)
    assert system.inputs is None
    assert system.available.tolist() == [0, 2]
    assert system.ages == [10, 70.5]
    assert system.left_out == 1
    assert system.describe()["kind"] == "pictures"
    assert system.describe()["sha256"] is None
    ten, seventy = look(system, inputs, [0, 1, 2], [10, 70])
    assert ten.made.tolist() == [True, False, True]
    assert seventy.made.tolist() == [True, False, False]  # 70.5 counts for 70
    assert ten.found.tolist() == ten.made.tolist()
    np.testing.assert_array_equal(ten.images[0], crop)
    np.testing.assert_array_equal(seventy.images[0], crop // 2)
    assert not look(system, inputs, [0], [72])[0].made.any()


def test_a_face_at_its_place_is_cut_out_as_its_input(
    inputs: LabelledInputs, folder: Path, crop: np.ndarray
) -> None:
    large = np.asarray(Image.fromarray(crop).resize((512, 512), Image.Resampling.NEAREST))
    save(folder / "0_10.png", large)
    (aged,) = look(PictureFolder("large", folder, inputs), inputs, [0], [10])
    np.testing.assert_array_equal(aged.images[0], crop)
    np.testing.assert_array_equal(aged.landmarks[0], inputs.landmarks(np.array([0]))[0])


@pytest.mark.parametrize("box", [(0, 0, 512, 512), (60, 0, 360, 300), (100, 0, 350, 300)])
def test_a_face_elsewhere_is_aligned_by_itself(
    inputs: LabelledInputs, folder: Path, portrait: np.ndarray, crop: np.ndarray, box: tuple
) -> None:
    save(folder / "0_10.png", np.asarray(Image.fromarray(portrait).crop(box)))
    (aged,) = look(PictureFolder("moved", folder, inputs), inputs, [0], [10])
    assert aged.found.all()
    inner = np.s_[70:200, 70:190]
    apart = np.abs(aged.images[0].astype(int) - crop)[inner].mean()
    assert apart < 20  # the same face at the same place, found a little differently
    assert aged.landmarks[0] == pytest.approx(inputs.landmarks(np.array([0]))[0], abs=8)


def test_no_face_no_picture(inputs: LabelledInputs, folder: Path) -> None:
    save(folder / "0_10.png", np.full((256, 256, 3), 128, np.uint8))
    (aged,) = look(PictureFolder("grey", folder, inputs), inputs, [0], [10])
    assert aged.made.tolist() == [True]
    assert aged.found.tolist() == [False]
    assert np.isnan(aged.landmarks).all()


def test_inputs_of_its_own(
    inputs: LabelledInputs, folder: Path, portrait: np.ndarray, crop: np.ndarray
) -> None:
    """Photos with the face anywhere, and one without: no labels, but places to compare."""
    dark = portrait // 2
    save(folder / "me.png", portrait)
    save(folder / "nobody.png", np.full((300, 300, 3), 128, np.uint8))
    save(folder / "more" / "me_10.png", dark)
    save(folder / "more" / "me_10_70.png", dark)  # of a result: belongs to nobody
    save(folder / "nobody_10.png", portrait)
    save(folder / "unused.png", portrait)
    system = PictureFolder("photos", folder, inputs)
    own = system.inputs
    assert len(own) == 2
    assert system.available.tolist() == [0, 1]
    assert system.left_out == 1
    assert np.isnan(own.ages).all()
    assert (own.groups == -1).all()
    np.testing.assert_array_equal(own.crops(np.array([0]))[0], crop)
    assert np.isfinite(own.landmarks(np.array([0, 1]))).all((1, 2)).tolist() == [True, False]
    (aged,) = look(system, own, [0, 1], [10])
    assert aged.found.tolist() == [True, True]
    # At the same place of a photo of the same size: cut out at exactly the input's place.
    assert np.abs(aged.images[0].astype(int) - crop // 2).max() <= 2


def test_own_age(inputs: LabelledInputs, folder: Path, crop: np.ndarray) -> None:
    save(folder / "0_20.png", crop)
    save(folder / "1_20.png", crop)
    system = PictureFolder("same", folder, inputs)
    chosen = np.array([0, 1])
    faces = Crops(chosen, inputs.crops(chosen), inputs.landmarks(chosen), inputs.ages[chosen])
    (aged,) = system.age(faces, [faces.ages])
    assert aged.made.tolist() == [True, False]  # the second is 30
    (aged,) = system.age(faces, [np.array([np.nan, np.nan])])
    assert not aged.made.any()


def test_targets_that_most_were_sent_to(
    inputs: LabelledInputs, folder: Path, crop: np.ndarray
) -> None:
    for name in ("0_70", "1_70", "0_10", "0_20", "1_30", "2_40", "1_50"):
        save(folder / f"{name}.png", crop)
    system = PictureFolder("some", folder, inputs)
    ages = (10, 20, 30, 40, 50, 60, 70, 70.5)
    assert [age for age in ages if system.serves(age)] == [70, 70.5]
    save(folder / "0_40.png", crop)  # of two who are not 40 themselves
    assert PictureFolder("more", folder, inputs).serves(40)


def test_refusals(inputs: LabelledInputs, folder: Path, tmp_path: Path, crop: np.ndarray) -> None:
    with pytest.raises(DataError, match="No folder"):
        PictureFolder("none", tmp_path / "none", inputs)
    with pytest.raises(DataError, match="no results named as"):
        PictureFolder("empty", folder, inputs)
    save(folder / "somebody_10.png", crop)
    with pytest.raises(DataError, match="no results named as"):
        PictureFolder("foreign", folder, inputs)
    save(folder / "0_10.png", crop)
    for name in ("", "../x", "a b", "a/b"):
        with pytest.raises(ConfigError, match="cannot be the name"):
            PictureFolder(name, folder, inputs)
    save(folder / "more" / "0_10.webp", crop)
    with pytest.raises(DataError, match="the same face and age"):
        PictureFolder("twice", folder, inputs)


def test_inputs_of_one_name(tmp_path: Path, folder: Path, crop: np.ndarray) -> None:
    data = make_dataset(tmp_path / "data", [10, 20], [30, 40])
    (data / "sub").mkdir()
    (data / "1.png").rename(data / "sub" / "0.png")
    table = (data / "faces.csv").read_text()
    (data / "faces.csv").write_text(table.replace("1.png", "sub/0.png"))
    save(folder / "0_10.png", crop)
    with pytest.raises(DataError, match="Two inputs are called 0"):
        PictureFolder("which", folder, open_inputs(data))


def test_a_damaged_picture(inputs: LabelledInputs, folder: Path) -> None:
    (folder / "0_10.png").write_bytes(b"no picture")
    with pytest.raises(PhotoError, match=r"0_10\.png"):
        look(PictureFolder("damaged", folder, inputs), inputs, [0], [10])
