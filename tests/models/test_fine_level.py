"""The fine level: details at four times the model's size."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn
from torch.nn import functional as F

from faceage.models.decoders import Change, displace
from faceage.models.fine_level import COARSE, FINE_SCALE, FineLevel, enlarge
from faceage.models.generator import FaceAgeModel, apply_change

CONFIG = replace(TINY, size=32, decoder="unet", fine_level=True)


@pytest.fixture(scope="module")
def fine_level() -> FineLevel:
    torch.manual_seed(1)
    network = FineLevel(16, 8, 2)
    for parameter in network.residual.parameters():
        nn.init.normal_(parameter, std=1)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def moved() -> Tensor:
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def residual() -> Tensor:
    return 0.2 * torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_starts_without_an_effect(moved: Tensor, residual: Tensor) -> None:
    assert torch.equal(FineLevel()(moved, residual), enlarge(residual))


def test_adds_detail_only(fine_level: FineLevel, moved: Tensor, residual: Tensor) -> None:
    detail = fine_level(moved, residual) - enlarge(residual)
    assert detail.abs().mean() > 0.05
    assert F.avg_pool2d(detail, 2 * COARSE).abs().mean() < 0.1 * detail.abs().mean()


def test_a_part_gets_what_the_whole_face_gets(
    fine_level: FineLevel, moved: Tensor, residual: Tensor
) -> None:
    whole = fine_level(moved, residual)
    part = fine_level(moved[..., 16:112, 16:112], residual[..., 4:28, 4:28])
    edge = 40  # as far as the layers see
    inside = slice(edge, 96 - edge)
    expected = whole[..., 16:112, 16:112][..., inside, inside]
    torch.testing.assert_close(part[..., inside, inside], expected, atol=1e-4, rtol=1e-4)


def test_refines_the_displaced_face(moved: Tensor) -> None:
    torch.manual_seed(2)
    model = FaceAgeModel(CONFIG).eval().requires_grad_(False)
    assert model.fine_level
    flow = torch.zeros(2, 2, 4, 4)
    flow[:, 0] = 0.1
    change = Change(torch.zeros(2, 3, 32, 32), flow)
    seen: list[Tensor] = []
    model.fine_level.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    refined = model.refine(moved, change)
    assert torch.equal(seen[0], displace(moved, flow))
    assert refined.residual.shape == (2, 3, FINE_SCALE * 32, FINE_SCALE * 32)
    assert torch.equal(refined.flow, flow)
    assert torch.equal(apply_change(moved, refined), displace(moved, flow))  # no detail at first


def test_a_model_without_a_fine_level_cannot_refine(moved: Tensor) -> None:
    model = FaceAgeModel(replace(CONFIG, fine_level=False)).eval()
    with pytest.raises(ValueError, match="no fine level"):
        model.refine(moved, Change(torch.zeros(2, 3, 32, 32), torch.zeros(2, 2, 4, 4)))
