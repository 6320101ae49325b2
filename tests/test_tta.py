"""Test-time augmentation."""

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from faceage.models.generator import FaceAgeModel, apply_change
from faceage.models.tta import decode_tta, encode_tta, predict_distributions


@pytest.fixture(scope="module")
def model() -> FaceAgeModel:
    torch.manual_seed(0)
    model = FaceAgeModel(TINY)
    for head in (model.decoder.residual, model.decoder.flow):
        nn.init.normal_(head.weight, std=0.2)
    return model.eval().requires_grad_(False)


def _aged(model: FaceAgeModel, faces: Tensor, age: float) -> Tensor:
    index = torch.arange(len(faces))
    ages = torch.full((len(faces),), age)
    change = decode_tta(model, encode_tta(model, faces), index, ages)
    return apply_change(faces, change)


def test_the_change_of_a_mirrored_face_is_mirrored(model: FaceAgeModel) -> None:
    torch.manual_seed(1)
    faces = torch.rand(2, 3, 32, 32) * 2 - 1
    aged = _aged(model, faces, 70)
    assert (aged - faces).abs().max() > 0.01
    assert torch.allclose(_aged(model, faces.flip(3), 70), aged.flip(3), atol=1e-4)
    plain = apply_change(faces, model.decode(model.encode(faces), torch.full((2,), 70.0)))
    assert not torch.allclose(plain, aged, atol=1e-3)  # a single view is not symmetric


def test_faces_are_selected_by_index(model: FaceAgeModel) -> None:
    torch.manual_seed(2)
    faces = torch.rand(3, 3, 32, 32) * 2 - 1
    ages = torch.tensor([5.0, 70.0])
    picked = decode_tta(model, encode_tta(model, faces), torch.tensor([2, 2]), ages)
    alone = decode_tta(model, encode_tta(model, faces[2:]), torch.tensor([0, 0]), ages)
    assert torch.allclose(picked.residual, alone.residual, atol=1e-5)
    assert torch.allclose(picked.flow, alone.flow, atol=1e-5)


def test_distributions_sum_to_one_and_ignore_mirroring(model: FaceAgeModel) -> None:
    torch.manual_seed(3)
    faces = torch.rand(2, 3, 64, 64) * 2 - 1
    years = predict_distributions(model, faces)
    assert years.shape == (2, 101)
    assert years.sum(1) == pytest.approx([1, 1])
    assert predict_distributions(model, faces.flip(3)) == pytest.approx(years, abs=1e-5)
