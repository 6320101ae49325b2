"""Degradations: what they do, and that they leave faces in range."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from faceage.data import degradation


@pytest.fixture
def faces() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(6, 3, 64, 64) * 2 - 1


def test_all_together_stay_in_range(faces: Tensor) -> None:
    torch.manual_seed(1)
    result = degradation.degrade(faces)
    assert result.shape == faces.shape
    assert result.isfinite().all()
    assert result.abs().max() <= 1
    torch.manual_seed(1)
    assert torch.equal(degradation.degrade(faces), result)


@pytest.mark.parametrize(
    "function",
    [
        degradation.reduce_resolution,
        degradation.add_noise,
        degradation.remove_colour,
        degradation.relight,
        degradation.compress_jpeg,
    ],
)
def test_only_a_fraction_changes(function: Callable[..., Tensor], faces: Tensor) -> None:
    before = faces.clone()
    assert torch.allclose(function(faces, fraction=0.0), faces)
    changed = function(faces, fraction=1.0)
    assert ((changed - faces).abs().amax((1, 2, 3)) > 0.01).all()
    assert torch.equal(faces, before)


def test_low_resolution_removes_detail(faces: Tensor) -> None:
    detail = degradation.reduce_resolution(faces, fraction=1.0).diff(dim=3).abs().mean()
    assert detail < 0.9 * faces.diff(dim=3).abs().mean()


def test_no_colour_but_a_tint(faces: Tensor) -> None:
    grey = degradation.remove_colour(faces, fraction=1.0)
    assert (grey - grey.mean(1, keepdim=True)).abs().max() <= 0.08
