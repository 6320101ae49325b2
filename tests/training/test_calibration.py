"""Temperature scaling of the intervals."""

import copy

import pytest
import torch

from faceage.models.generator import FaceAgeModel
from faceage.models.tta import classify_tta
from faceage.training.calibration import COVERAGE, calibrate_interval, coverage


def test_coverage_of_a_known_distribution() -> None:
    ages = torch.tensor([30.0, 50.0, 70.0])
    years = torch.arange(101.0)
    logits = -0.5 * ((years - 50) / 5) ** 2  # 80 % of it lies within 6.4 years of 50
    assert coverage(logits.expand(2, 3, 101), ages) == pytest.approx(1 / 3)


def test_intervals_are_calibrated_in_place(tiny_model: FaceAgeModel) -> None:
    model = copy.deepcopy(tiny_model)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.classifier.get_submodule("head").weight, std=20)
    side = model.config.classifier_crop
    faces, ages = torch.rand(60, 3, side, side) * 2 - 1, 100 * torch.rand(60)
    before = coverage(classify_tta(model, faces), ages)
    temperature = calibrate_interval(model, faces, ages)
    after = coverage(classify_tta(model, faces), ages)
    assert abs(after - COVERAGE) < min(0.05, abs(before - COVERAGE))
    assert temperature != pytest.approx(1, abs=0.02)
