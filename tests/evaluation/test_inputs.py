"""The faces that are measured: labels, crops, landmarks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import LANDMARKS, make_dataset, open_inputs

from faceage.errors import DataError
from faceage.faces.detection import crop_face, make_detector


def test_labels(tmp_path: Path) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10, 20, 30], [33, "20-29", 71]))
    assert len(inputs) == 3
    assert inputs.ages.tolist() == [33, 24.5, 71]
    assert inputs.exact.tolist() == [True, False, True]
    assert inputs.groups.tolist() == [6, 5, 9]
    assert inputs.genders.tolist() == ["F", "M", "F"]
    assert inputs.valid.tolist() == [[0, 0, 1, 1]] * 3


def test_crops_in_the_order_asked_for(tmp_path: Path) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10, 20, 30], [1, 2, 3]))
    crops = inputs.crops(np.array([2, 0]))
    assert crops.shape == (2, 256, 256, 3)
    assert crops[:, 0, 0, 0].tolist() == [30, 10]
    assert inputs.crops(np.array([1]), 64).shape == (1, 64, 64, 3)


def test_a_missing_picture(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", [10, 20, 30], [1, 2, 3])
    (folder / "1.png").unlink()
    inputs = open_inputs(folder)
    assert inputs.crops(np.array([2, 0]))[:, 0, 0, 0].tolist() == [30, 10]
    with pytest.raises(DataError, match=r"1\.png"):
        inputs.crops(np.array([0, 1]))


def test_landmarks_of_the_dataset(tmp_path: Path) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10], [30], landmarks=LANDMARKS))
    points = inputs.landmarks(np.array([0]))
    assert points.shape == (1, 5, 2)
    assert points[0, 0].tolist() == [96, 121]
    assert points[0, 4].tolist() == [153, 187]


def test_landmarks_of_the_detector(tmp_path: Path, portrait: np.ndarray) -> None:
    face = make_detector().detect(portrait)[0]
    crop = crop_face(portrait, face, 256)
    inputs = open_inputs(make_dataset(tmp_path / "data", [10, crop], [30, 40]))
    grey, found = inputs.landmarks(np.array([0, 1]))
    assert np.isnan(grey).all()
    assert found[0] == pytest.approx([96, 121], abs=6)  # the eyes of an FFHQ crop
    assert found[1] == pytest.approx([160, 121], abs=6)


@pytest.mark.parametrize("text", ["1 2 3", "a b c d e f g h i j", "1 2 3 4 5 6 7 8 9 inf"])
def test_wrong_landmarks(tmp_path: Path, text: str) -> None:
    folder = make_dataset(tmp_path / "data", [10], [30], landmarks=text)
    with pytest.raises(DataError, match="line 2"):
        open_inputs(folder)


def test_a_picture_of_another_size(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", [10], [30])
    Image.new("RGB", (64, 64), (9, 9, 9)).save(folder / "0.png")
    assert open_inputs(folder).crops(np.array([0])).shape == (1, 256, 256, 3)
