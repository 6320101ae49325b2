"""Weights as a method: ageing, age estimation, names and metadata."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from stand_ins import CPU, stub_method

from faceage.api import FaceAger
from faceage.distributions import summarize_distribution
from faceage.evaluation.methods import FaceBatch, WeightsMethod, open_weights
from faceage.evaluation.results import MethodInfo
from faceage.faces.detection import crop_face, make_detector
from faceage.inference.torch_backend import TorchBackend
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel


def batch(levels: list[int], ages: list[float]) -> FaceBatch:
    """Grey crops."""
    images = np.stack([np.full((256, 256, 3), level, np.uint8) for level in levels])
    return FaceBatch(np.arange(len(levels)), images, np.array(ages))


def test_faces_are_encoded_once_and_changed_at_the_size_of_the_crop() -> None:
    method = stub_method()
    faces = batch([10, 100], [20, 30])
    results = list(method.age(faces, [np.array([0.0, 40]), np.array([100.0, 20])]))
    assert method.model.encoded == 2 * len(faces.images)  # each, and its mirror image
    first, second = (aged.images[:, 7, 7, 0].tolist() for aged in results)
    assert first == [10, 151]  # 0.4 of 127.5 levels
    assert second == [138, 126]  # 10 + 127.5 is 137.5
    for aged in results:
        assert aged.images.shape == (2, 256, 256, 3)
        assert aged.images.dtype == np.uint8
        assert aged.exists.all()
        assert aged.found.all()


def test_age_estimation_is_that_of_the_api(portrait: np.ndarray, tiny_model: FaceAgeModel) -> None:
    expected = FaceAger(TorchBackend(tiny_model), make_detector()).predict(portrait)[0]
    crop = crop_face(portrait, expected.face, TINY.classifier_crop)
    method = WeightsMethod(MethodInfo("tiny", "weights", "x"), tiny_model, CPU)
    (years,) = method.predict(crop[None])
    assert summarize_distribution(years)[0] == expected.age


class Baseline(torch.nn.Module):
    """A baseline that adds a hundredth of the years between source and target."""

    config = ModelConfig(**{**vars(TINY), "decomposition": False})

    def encode(self, faces):
        return stub_method().model.encode(faces)

    def decode(self, encoded, target_age, source_age=None):
        return stub_method().model.decode(encoded, target_age - source_age)


def test_the_input_of_a_baseline_is_the_source_age() -> None:
    method = WeightsMethod(MethodInfo("ragan", "weights", "x"), Baseline(), CPU)
    (aged,) = method.age(batch([100, 100], [20, 40]), [np.array([40.0, 40])])
    assert aged.images[:, 0, 0, 0].tolist() == [126, 100]


def test_names_and_metadata(tiny_weights: Path) -> None:
    first, second = (method.info for method in open_weights([tiny_weights, tiny_weights], CPU))
    assert (first.name, second.name) == ("tiny", "tiny-2")
    assert first.kind == "weights"
    assert first.file == tiny_weights.name
    assert first.sha256 == hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    assert first.size == TINY.size
    assert first.metadata["images_seen"] == "0"
    assert "config" not in first.metadata


@pytest.mark.parametrize("age", [101.0, 130.0])
def test_labels_beyond_the_model_are_its_oldest(age: float) -> None:
    (aged,) = stub_method().age(batch([0], [age]), [np.array([age])])
    assert aged.images[0, 0, 0, 0] == 128
