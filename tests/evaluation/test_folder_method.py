"""A folder of result pictures: which belongs to which face, and how it is aligned."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import make_dataset, open_inputs

from faceage.errors import ConfigError, DataError, PhotoError
from faceage.evaluation.common import Inputs
from faceage.evaluation.methods import AgedBatch, FaceBatch, FolderMethod
from faceage.evaluation.results import MethodInfo
from faceage.faces.detection import crop_face, make_detector


@pytest.fixture(scope="module")
def crop(portrait: np.ndarray) -> np.ndarray:
    """The portrait's FFHQ crop, 256 px."""
    return crop_face(portrait, make_detector().detect(portrait)[0], 256)


@pytest.fixture
def inputs(tmp_path: Path, crop: np.ndarray) -> Inputs:
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


def batch(inputs: Inputs, indices: list[int]) -> FaceBatch:
    chosen = np.array(indices)
    return FaceBatch(chosen, inputs.crops(chosen), inputs.ages[chosen])


def age(
    method: FolderMethod, inputs: Inputs, indices: list[int], targets: list[float]
) -> list[AgedBatch]:
    """The results of some faces."""
    ages = [np.full(len(indices), target) for target in targets]
    return list(method.age(batch(inputs, indices), ages))


def test_results_of_labelled_faces(inputs: Inputs, folder: Path, crop: np.ndarray) -> None:
    save(folder / "0_10.png", crop)
    save(folder / "more" / "0_70.5.webp", crop // 2)
    save(folder / "2_10.png", crop)
    save(folder / "other_10.png", crop)
    save(folder / "2_110.png", crop)  # no age
    save(folder / "note.png", crop)
    (folder / "1_10.txt").touch()
    method = FolderMethod("other", folder, inputs)
    assert method.available.tolist() == [0, 2]
    assert method.ages == [10, 70.5]
    assert method.unmatched == 1
    assert method.info == MethodInfo("other", "pictures", "results")
    ten, seventy = age(method, inputs, [0, 1, 2], [10, 70])
    assert ten.exists.tolist() == [True, False, True]
    assert seventy.exists.tolist() == [True, False, False]  # 70.5 counts for 70
    assert ten.found.tolist() == ten.exists.tolist()
    np.testing.assert_array_equal(ten.images[0], crop)
    np.testing.assert_array_equal(seventy.images[0], crop // 2)
    assert not age(method, inputs, [0], [72])[0].exists.any()


def test_a_face_at_the_same_place_is_cropped_as_the_input(
    inputs: Inputs, folder: Path, crop: np.ndarray
) -> None:
    large = np.asarray(Image.fromarray(crop).resize((512, 512), Image.Resampling.NEAREST))
    save(folder / "0_10.png", large)
    (aged,) = age(FolderMethod("large", folder, inputs), inputs, [0], [10])
    np.testing.assert_array_equal(aged.images[0], crop)
    np.testing.assert_array_equal(aged.landmarks[0], inputs.landmarks(np.array([0]))[0])


@pytest.mark.parametrize("box", [(0, 0, 512, 512), (60, 0, 360, 300), (100, 0, 350, 300)])
def test_a_face_elsewhere_is_aligned_by_its_landmarks(
    inputs: Inputs, folder: Path, portrait: np.ndarray, crop: np.ndarray, box: tuple
) -> None:
    save(folder / "0_10.png", np.asarray(Image.fromarray(portrait).crop(box)))
    (aged,) = age(FolderMethod("moved", folder, inputs), inputs, [0], [10])
    assert aged.found.all()
    inner = np.s_[70:200, 70:190]
    apart = np.abs(aged.images[0].astype(int) - crop)[inner].mean()
    assert apart < 20  # the same face at the same place, found a little differently
    assert aged.landmarks[0] == pytest.approx(inputs.landmarks(np.array([0]))[0], abs=8)


def test_a_result_without_a_face(inputs: Inputs, folder: Path) -> None:
    save(folder / "0_10.png", np.full((256, 256, 3), 128, np.uint8))
    (aged,) = age(FolderMethod("grey", folder, inputs), inputs, [0], [10])
    assert aged.exists.tolist() == [True]
    assert aged.found.tolist() == [False]
    assert np.isnan(aged.landmarks).all()


def test_source_ages_as_targets(inputs: Inputs, folder: Path, crop: np.ndarray) -> None:
    save(folder / "0_20.png", crop)
    save(folder / "1_20.png", crop)
    method = FolderMethod("same", folder, inputs)
    faces = batch(inputs, [0, 1])
    (aged,) = method.age(faces, [faces.ages])
    assert aged.exists.tolist() == [True, False]  # the second is 30


def test_a_target_needs_results_of_half_of_the_inputs(
    inputs: Inputs, folder: Path, crop: np.ndarray
) -> None:
    for name in ("0_70", "1_70", "0_10", "0_20", "1_30", "2_40", "1_50"):
        save(folder / f"{name}.png", crop)
    method = FolderMethod("some", folder, inputs)
    ages = (10, 20, 30, 40, 50, 60, 70, 70.5)
    assert [age for age in ages if method.covers(age)] == [70, 70.5]
    save(folder / "0_40.png", crop)
    assert FolderMethod("more", folder, inputs).covers(40)


def test_refusals(inputs: Inputs, folder: Path, tmp_path: Path, crop: np.ndarray) -> None:
    with pytest.raises(DataError, match="No folder"):
        FolderMethod("none", tmp_path / "none", inputs)
    with pytest.raises(DataError, match="no results named as"):
        FolderMethod("empty", folder, inputs)
    save(folder / "somebody_10.png", crop)
    with pytest.raises(DataError, match="no results named as"):
        FolderMethod("foreign", folder, inputs)
    save(folder / "0_10.png", crop)
    for name in ("", "../x", "a b", "a/b"):
        with pytest.raises(ConfigError, match="cannot be the name"):
            FolderMethod(name, folder, inputs)
    save(folder / "more" / "0_10.webp", crop)
    with pytest.raises(DataError, match="one face and age"):
        FolderMethod("twice", folder, inputs)


def test_inputs_of_one_name(tmp_path: Path, folder: Path, crop: np.ndarray) -> None:
    data = make_dataset(tmp_path / "data", [10, 20], [30, 40])
    (data / "sub").mkdir()
    (data / "1.png").rename(data / "sub" / "0.png")
    table = (data / "faces.csv").read_text()
    (data / "faces.csv").write_text(table.replace("1.png", "sub/0.png"))
    save(folder / "0_10.png", crop)
    with pytest.raises(DataError, match="two inputs of one name"):
        FolderMethod("which", folder, open_inputs(data))


def test_a_damaged_picture(inputs: Inputs, folder: Path) -> None:
    (folder / "0_10.png").write_bytes(b"no picture")
    with pytest.raises(PhotoError, match=r"0_10\.png"):
        age(FolderMethod("damaged", folder, inputs), inputs, [0], [10])
