"""The corrections of the colours of a change."""

import pytest
import torch
from torch import Tensor

from faceage.models.colours import (
    CAST_TOLERANCES,
    GREYING,
    LIP_REDNESS,
    correct_colours,
    grey_hair,
    limit_colour_cast,
    limit_lips,
)
from faceage.models.decoders import Change, displace

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


def make_blond_hair(lighter: float) -> tuple[Tensor, Change]:
    """A face with blond hair on top, and a change that makes the hair lighter."""
    faces = torch.tensor([0.2, -0.1, -0.2])[:, None, None].repeat(1, 1, 64, 64)
    faces[:, :, :24] = torch.tensor([0.1, 0.0, -0.4])[:, None, None]
    residual = torch.zeros(1, 3, 64, 64)
    residual[:, :, :24] = lighter
    return faces, Change(residual, STILL)


@pytest.mark.parametrize(("age", "part"), [(10, 0.0), (40, 0.0), (52.5, 0.5), (65, 1.0), (90, 1.0)])
def test_hair_that_gets_lighter_loses_colour_with_age(age: float, part: float) -> None:
    faces, change = make_blond_hair(0.5)
    greyed = grey_hair(faces, change, torch.tensor([age]))
    colour = faces - faces.mean(1, keepdim=True)
    after = faces + greyed.residual
    remaining = after - after.mean(1, keepdim=True)
    torch.testing.assert_close(
        remaining[:, :, :20], (1 - part * GREYING) * colour[:, :, :20], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(remaining[:, :, 28:], colour[:, :, 28:], atol=1e-5, rtol=0)
    torch.testing.assert_close(greyed.residual.mean(1), change.residual.mean(1))


def test_hair_that_stays_as_light_keeps_its_colour() -> None:
    faces, change = make_blond_hair(0.08)
    torch.testing.assert_close(grey_hair(faces, change, torch.tensor([80])), change)


def test_each_face_has_its_own_target_age() -> None:
    faces, change = make_blond_hair(0.5)
    both = Change(change.residual.repeat(2, 1, 1, 1), change.flow.repeat(2, 1, 1, 1))
    greyed = grey_hair(faces.repeat(2, 1, 1, 1), both, torch.tensor([20.0, 80.0])).residual
    torch.testing.assert_close(greyed[:1], change.residual)
    assert (greyed[1:] - change.residual).abs().max() > 0.1


LIPS = slice(42, 50), slice(26, 38)


def test_lips_of_children_are_limited_in_redness() -> None:
    faces = torch.zeros(3, 3, 64, 64)
    faces[0, 0, *LIPS], faces[1, 0, *LIPS] = 0.8, 0.8  # of a child and of an adult
    faces[2, 0, *LIPS] = 0.9 * LIP_REDNESS  # of a child, below the limit
    limited = limit_lips(faces, torch.tensor([3.0, 30.0, 3.0]))
    assert torch.equal(limited[1:], faces[1:])
    red, green, blue = limited[0, :, 45, 30]
    assert (red - (green + blue) / 2).item() == pytest.approx(LIP_REDNESS, abs=1e-5)
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[LIPS] = False
    assert torch.equal(limited[0, :, outside], faces[0, :, outside])


def test_pink_lips_are_limited_and_dark_ones_get_lighter() -> None:
    faces = torch.zeros(1, 3, 64, 64)
    faces[0, :, *LIPS] = torch.tensor([0.2, -0.7, 0.2])[:, None, None]
    red, green, blue = limit_lips(faces, torch.tensor([5.0]))[0, :, 45, 30]
    assert ((red + blue) / 2 - green).item() == pytest.approx(LIP_REDNESS, abs=1e-5)
    assert -0.3 < green < 0


def test_the_limit_of_lips_ends_gradually() -> None:
    faces = torch.zeros(4, 3, 64, 64)
    faces[:, 0, *LIPS] = 0.8
    ages = torch.tensor([10.0, 11.0, 12.0, 13.0])
    reds = limit_lips(faces, ages)[:, 0, 45, 30]
    torch.testing.assert_close(reds.diff(), torch.full((3,), (0.8 - LIP_REDNESS) / 3))


def test_all_corrections_together() -> None:
    faces, change = make_blond_hair(0.5)
    faces, change = faces.repeat(2, 1, 1, 1), Change(*(x.repeat(2, 1, 1, 1) for x in change))
    faces[:, :, *LIPS] += torch.tensor([0.5, 0, 0])[:, None, None]
    corrected = correct_colours(faces, change, torch.tensor([5.0, 70.0])).residual
    difference = (corrected - change.residual).abs().amax(1)
    assert difference[0, LIPS[0], LIPS[1]].min() > 0.05
    assert difference[1, LIPS[0], LIPS[1]].max() < 1e-6
    assert difference[1, :20].min() > 0.1
    assert difference[0, :20].max() < 1e-6
