"""Weights as a system: what they make of crops, and what they say of themselves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from stand_ins import CPU, make_dataset, open_inputs, stub_system

from faceage.api import FaceAger
from faceage.evaluation.systems import Crops, Weights, open_weights, resized, to_pixels
from faceage.models.generator import FaceAgeModel, ModelConfig
from faceage.models.tta import summarize_distribution


def crops(levels: list[int], ages: list[float]) -> Crops:
    """Grey crops."""
    images = np.stack([np.full((256, 256, 3), level, np.uint8) for level in levels])
    landmarks = np.full((len(levels), 5, 2), np.nan)
    return Crops(np.arange(len(levels)), images, landmarks, np.array(ages))


def test_faces_are_encoded_once_and_changed_at_the_size_of_the_crop() -> None:
    system = stub_system()
    faces = crops([10, 100], [20, 30])
    results = list(system.age(faces, [np.array([0.0, 40]), np.array([100.0, 20])]))
    assert system.model.encoded == 2 * len(faces)  # each, and its mirror image
    first, second = (aged.images[:, 7, 7, 0].tolist() for aged in results)
    assert first == [10, 151]  # 0.4 of 127.5 levels
    assert second == [138, 126]  # 10 + 127.5 is 137.5
    for aged in results:
        assert aged.images.shape == (2, 256, 256, 3)
        assert aged.images.dtype == np.uint8
        assert aged.made.all()
        assert aged.found.all()


def test_classification_is_that_of_predict(
    tmp_path: Path, portrait: np.ndarray, tiny_model: FaceAgeModel
) -> None:
    """The same pixels get the same age, whoever asks."""
    faces = [
        np.asarray(Image.fromarray(portrait).crop((x, 0, x + 300, 300)).resize((256, 256)))
        for x in (60, 70)
    ]
    inputs = open_inputs(make_dataset(tmp_path / "data", faces, [20, 30]))
    side, dataset = TINY.classifier_crop, inputs.dataset
    shrunk = [
        np.asarray(dataset.read(s).resize((side, side), Image.Resampling.BOX))
        for s in dataset.samples
    ]
    expected = FaceAger(tiny_model, None, CPU)._years(shrunk)
    system = Weights("tiny", Path("x"), "", tiny_model, {}, CPU)
    told = system.tell(inputs, np.array([0, 1]))
    assert [summarize_distribution(y)[0] for y in told] == [
        summarize_distribution(y)[0] for y in expected
    ]


class Told(torch.nn.Module):
    """A baseline that adds a hundredth of the years between source and target."""

    config = ModelConfig(**{**vars(TINY), "decomposition": False})

    def encode(self, faces):
        return stub_system().model.encode(faces)

    def decode(self, encoded, target_age, source_age=None):
        return stub_system().model.decode(encoded, target_age - source_age)


def test_a_baseline_is_told_the_source_age_and_tells_none(tmp_path: Path) -> None:
    system = Weights("ragan", Path("x"), "", Told(), {}, CPU)
    (aged,) = system.age(crops([100, 100], [20, 40]), [np.array([40.0, 40])])
    assert aged.images[:, 0, 0, 0].tolist() == [126, 100]
    inputs = open_inputs(make_dataset(tmp_path / "data", [10], [30]))
    assert system.tell(inputs, np.array([0])) is None


def test_names_and_metadata(tiny_weights: Path) -> None:
    first, second = open_weights([tiny_weights, tiny_weights], CPU)
    assert (first.name, second.name) == ("tiny", "tiny-2")
    told = first.describe()
    assert told["kind"] == "weights"
    assert told["file"] == tiny_weights.name
    assert len(told["sha256"]) == 64
    assert told["size"] == TINY.size
    assert told["metadata"]["images_seen"] == "0"
    assert "config" not in told["metadata"]


def test_resized() -> None:
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    picture[0, :2, :2] = [[[40], [0]], [[0], [0]]]
    assert resized(picture, 2)[0, ..., 0].tolist() == [[10, 0], [0, 0]]
    assert resized(picture, 4) is picture
    assert resized(picture, 8).shape == (1, 8, 8, 3)


def test_to_pixels() -> None:
    faces = torch.tensor([-2.0, -1, 0, 1, 2])[None, None, None].expand(1, 3, 1, 5)
    assert to_pixels(faces)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("age", [101.0, 130.0])
def test_labels_beyond_the_model_are_its_oldest(age: float) -> None:
    (aged,) = stub_system().age(crops([0], [age]), [np.array([age])])
    assert aged.images[0, 0, 0, 0] == 128
