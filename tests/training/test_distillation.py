"""Distillation of the classifier and of the synthesis."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from safetensors.torch import save_file

from faceage.checkpoints import load_weights, read_tensors
from faceage.data.datasets import make_labels, open_dataset
from faceage.errors import ConfigError, WeightsError
from faceage.models.age_teacher import AgeTeacher, estimate
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel
from faceage.training import trainer
from faceage.training.config import TrainConfig, make_config
from faceage.training.distillation import (
    initialise_from_teacher,
    synthesis_distillation_loss,
    synthesis_targets,
)
from faceage.training.losses import age_losses, label_distribution
from faceage.training.teacher import (
    TeacherConfig,
    TeacherTrainer,
    down_weight_labels,
    load_teacher,
    teacher_age_loss,
)
from faceage.training.trainer import train

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


def _write_dataset(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = ["file,age,set,gender,label"]
    for number in range(12):
        pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        split = "val" if number % 6 == 5 else "test" if number % 6 == 4 else "train"
        label = "estimated" if number == 0 else "dataset"
        rows.append(f"{number}.png,{7 * number},{split},{'MF'[number % 2]},{label}")
    (folder / "faces.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def options(tmp_path: Path, teacher: AgeTeacher, tiny_weights: Path) -> TrainConfig:
    path = tmp_path / "teacher.safetensors"
    save_file(teacher.state_dict(), path)
    settings = [
        *("model.size=32", "model.width=16", "model.classifier_size=96"),
        *("warmup_images=8", "images=16", "warmup_batch=4", "batch_size=4", "ema_images=4"),
        *(f"teacher={path}", f"distill_from={tiny_weights}"),
    ]
    data = _write_dataset(tmp_path / "data")
    return make_config("distilled", str(data), tmp_path / "run", settings)


def test_training_distils_both_phases_and_resumes(
    options: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CALIBRATION_BATCHES", 1)
    quiet = train(options, "cpu")
    model, metadata = load_weights(quiet)
    assert model.config.encoder == "mobilenet"
    assert "teacher" in json.loads(metadata["training"])

    stopped = dataclasses.replace(options, out=tmp_path / "again", images=12)
    train(stopped, "cpu")
    resumed, _ = load_weights(train(dataclasses.replace(stopped, images=16), "cpu"))
    names = [n for n in model.state_dict() if n.startswith(("encoder", "classifier"))]
    for name in names:  # the learning rates of the synthesis depend on the length of the run
        assert torch.equal(resumed.state_dict()[name], model.state_dict()[name]), name


def test_the_teacher_and_the_synthesis_are_distilled_together(options: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="teacher and distill_from"):
        dataclasses.replace(options, distill_from=None).check()


def test_a_decoder_of_another_size_is_refused(options: TrainConfig) -> None:
    other = dataclasses.replace(options, model=dataclasses.replace(options.model, width=32))
    with pytest.raises(ConfigError, match="another decoder"):
        train(other, "cpu")


def test_labels_that_contradict_the_teacher_weigh_less(options: TrainConfig) -> None:
    dataset = open_dataset(options.data)
    labels = make_labels(dataset.samples)
    agreeing = label_distribution(labels.ages)
    weights = down_weight_labels(dataset, labels, agreeing)
    assert weights[0] == pytest.approx(0.6)
    assert weights[1:] == pytest.approx(1.0)
    contradicting = label_distribution(labels.ages + 40)
    assert (down_weight_labels(dataset, labels, contradicting)[:6] < 0.1).all()  # up to 49 years


def test_the_age_loss_includes_the_error_of_the_expected_age() -> None:
    logits = torch.full((2, 101), -50.0)
    logits[:, 30] = 50  # certain of 30 years
    ages, groups = torch.tensor([40.0, 40.0]), torch.tensor([7, 7])
    exact = torch.tensor([True, False])
    extra = teacher_age_loss(logits, ages, groups, exact) - age_losses(logits, ages, groups, exact)
    assert extra.tolist() == pytest.approx([0.5, 0.0], abs=1e-4)  # 0.05 * 10 years


# --- training the teacher -------------------------------------------------------------------------


@pytest.fixture
def teacher_options(tmp_path: Path, teacher: AgeTeacher) -> TeacherConfig:
    backbone = tmp_path / "backbone.safetensors"
    save_file(teacher.backbone.state_dict(), backbone)
    data = str(_write_dataset(tmp_path / "data"))
    return TeacherConfig(data, backbone, tmp_path / "run", images=16, batch_size=4)


def _train_until(config: TeacherConfig, images: int) -> None:
    """Train, saving at every step, and stop in the step after `images` have been seen."""
    stopping = TeacherTrainer(dataclasses.replace(config, save_minutes=0), "cpu")
    step = stopping._step

    def interrupted_step() -> dict[str, torch.Tensor]:
        if stopping.images_seen == images:
            raise KeyboardInterrupt
        return step()

    stopping._step = interrupted_step  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopping.run()


@pytest.mark.slow
@pytest.mark.parametrize("images", [4, 12])  # before and after labels are down-weighted
def test_the_teachers_training_resumes_exactly(teacher_options: TeacherConfig, images: int) -> None:
    whole = read_tensors(TeacherTrainer(teacher_options, "cpu").run())
    assert all(torch.isfinite(value).all() for value in whole.values())
    again = dataclasses.replace(teacher_options, out=teacher_options.out.with_name("again"))
    _train_until(again, images)
    partial = read_tensors(again.out / "teacher.safetensors")
    assert not torch.equal(partial["age.weight"], whole["age.weight"])
    resuming = TeacherTrainer(again, "cpu")
    assert resuming.images_seen == images
    resumed = read_tensors(resuming.run())
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_resuming_the_teacher_with_other_options_is_refused(teacher_options: TeacherConfig) -> None:
    _train_until(teacher_options, 4)
    other = dataclasses.replace(teacher_options, batch_size=8, seed=3)
    with pytest.raises(ConfigError, match=r"other values of batch_size, seed\. Give another --out"):
        TeacherTrainer(other, "cpu")
    table = Path(teacher_options.data, "faces.csv")
    table.write_text(table.read_text().replace("0.png,0,train", "0.png,0,test"))
    with pytest.raises(ConfigError, match=r"another size \(8 pictures, now 7\)"):
        TeacherTrainer(teacher_options, "cpu")


def test_the_teacher_is_trained_on_an_existing_device(teacher_options: TeacherConfig) -> None:
    with pytest.raises(ConfigError, match="Unknown device 'gpu'"):
        TeacherTrainer(teacher_options, "gpu")
