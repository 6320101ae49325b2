"""The limit of the colours that a change may add."""

import pytest
import torch
from torch import Tensor

from faceage.models.decoders import CAST_TOLERANCES, Change, displace, limit_colour_cast

STILL = torch.zeros(1, 2, 4, 4)


def _cast(faces: Tensor, channel: int) -> Tensor:
    """One channel minus the mean of the other two."""
    others = [c for c in range(3) if c != channel]
    return faces[:, channel] - faces[:, others].mean(1)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_grey_face_gets_hardly_any_colour(channel: int) -> None:
    grey = torch.zeros(1, 3, 64, 64)
    residual = torch.zeros(1, 3, 64, 64)
    residual[:, channel] = 0.6
    limited = limit_colour_cast(grey, Change(residual, STILL)).residual
    torch.testing.assert_close(
        _cast(limited, channel),
        torch.full((1, 64, 64), CAST_TOLERANCES[channel]),
        atol=1e-5,
        rtol=0,
    )
    torch.testing.assert_close(limited.mean(1), residual.mean(1))  # the lightness stays


def test_other_changes_stay_as_they_are() -> None:
    torch.manual_seed(0)
    faces = torch.rand(1, 3, 64, 64) - 0.5
    lighter = 0.4 * torch.rand(1, 1, 64, 64).expand(1, 3, 64, 64)
    paler = -0.8 * (faces - faces.mean(1, keepdim=True))
    for residual in (lighter, paler):
        limited = limit_colour_cast(faces, Change(residual, STILL)).residual
        torch.testing.assert_close(limited, residual, atol=1e-6, rtol=0)


def test_colours_may_be_as_strong_as_nearby() -> None:
    faces = torch.zeros(1, 3, 64, 64)
    faces[:, 0, 40:48, 24:40] = 0.5  # lips
    redder = faces.clone()
    redder[:, 0, 36:52, 20:44] = 0.5  # thicker
    kept = limit_colour_cast(faces, Change(redder - faces, STILL)).residual
    torch.testing.assert_close(kept, redder - faces, atol=1e-6, rtol=0)
    redder[:, 0, 40:48, 24:40] = 1.0
    limited = faces + limit_colour_cast(faces, Change(redder - faces, STILL)).residual
    assert _cast(limited, 0)[:, 42:46, 28:36].max() < 0.5 + 1.5 * CAST_TOLERANCES[0]


def test_colours_move_with_the_face() -> None:
    faces = torch.zeros(1, 3, 64, 64)
    faces[:, 0, 40:48, 24:40] = 0.5
    flow = torch.zeros(1, 2, 4, 4)
    flow[:, 1] = 0.75  # 24 px up
    moved = displace(faces, flow)
    redder = (moved[:, :1] > 0.4) * torch.tensor([0.03, 0, 0])[:, None, None]
    kept = limit_colour_cast(faces, Change(redder, flow)).residual
    torch.testing.assert_close(kept, redder, atol=1e-6, rtol=0)
    limited = limit_colour_cast(faces, Change(redder + moved - faces, STILL)).residual
    assert (redder + moved - faces - limited).abs().max() > 0.3  # the face itself is grey there
