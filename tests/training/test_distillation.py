"""Distillation of the classifier and of the synthesis."""

from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import save_file

from faceage.errors import ConfigError, WeightsError
from faceage.models.age_teacher import AgeTeacher, estimate
from faceage.models.generator import FaceAgeModel, ModelConfig
from faceage.training.distillation import (
    initialise_from_teacher,
    synthesis_distillation_loss,
    synthesis_targets,
)
from faceage.training.teacher import load_teacher

MOBILE = ModelConfig.compact(encoder="mobilenet", size=32, classifier_size=96)


@pytest.fixture(scope="module")
def teacher() -> AgeTeacher:
    torch.manual_seed(0)
    return AgeTeacher().eval()


def test_the_classifier_starts_as_the_teacher(teacher: AgeTeacher) -> None:
    model = FaceAgeModel(MOBILE).eval()
    initialise_from_teacher(model, teacher)
    windows = torch.rand(2, 3, 96, 96) * 2 - 1
    with torch.no_grad():
        expected = teacher(windows).age_logits
        assert torch.allclose(model.classify(windows), expected, atol=1e-4)
        identity, age_features = model.decomposition(model.encoder(windows))
    assert torch.allclose(identity, age_features)


def test_other_models_cannot_start_as_the_teacher(teacher: AgeTeacher) -> None:
    with pytest.raises(ConfigError, match="mobilenet"):
        initialise_from_teacher(FaceAgeModel(TINY), teacher)


def test_the_loss_is_zero_for_the_targets_themselves(tiny_model: FaceAgeModel) -> None:
    faces, ages = torch.rand(3, 3, 32, 32) * 2 - 1, torch.tensor([3.0, 30.0, 80.0])
    own = tiny_model.decode(tiny_model.encode(faces), ages)
    terms = synthesis_distillation_loss(tiny_model, faces, ages, own)
    assert set(terms) == {"residual", "flow", "aged"}
    assert all(term == 0 for term in terms.values())
    others = synthesis_targets(tiny_model, faces, ages.flip(0))
    assert all(t > 0 for t in synthesis_distillation_loss(tiny_model, faces, ages, others).values())


def test_targets_are_symmetric(tiny_model: FaceAgeModel) -> None:
    faces, ages = torch.rand(1, 3, 32, 32) * 2 - 1, torch.tensor([70.0])
    direct = synthesis_targets(tiny_model, faces, ages)
    mirrored = synthesis_targets(tiny_model, faces.flip(3), ages)
    assert torch.allclose(direct.residual, mirrored.residual.flip(3), atol=1e-5)


def test_a_student_learns_the_teachers_changes(tiny_model: FaceAgeModel) -> None:
    torch.manual_seed(0)
    student = FaceAgeModel(TINY).train()
    optimiser = torch.optim.Adam(student.parameters(), lr=2e-3)
    faces, ages = torch.rand(4, 3, 32, 32) * 2 - 1, torch.tensor([3.0, 20.0, 50.0, 80.0])
    targets = synthesis_targets(tiny_model, faces, ages)
    losses = []
    for _ in range(30):
        loss = torch.stack(
            list(synthesis_distillation_loss(student, faces, ages, targets).values())
        ).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_files_of_the_teacher(tmp_path: Path, teacher: AgeTeacher) -> None:
    path = tmp_path / "teacher.safetensors"
    save_file(teacher.state_dict(), path)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    for found, expected in zip(
        estimate(load_teacher(path), images), estimate(teacher, images), strict=True
    ):
        assert torch.allclose(found, expected)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="not an age teacher"):
        load_teacher(path)
