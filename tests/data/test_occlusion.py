"""Random objects in front of faces."""

import torch

from faceage.data.occlusion import draw_strokes, occlude

SIDE = 64


def make_faces(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(count, 3, SIDE, SIDE) * 2 - 1, torch.ones(count, 1, SIDE, SIDE)


def test_what_is_covered_is_no_head_and_what_is_not_stays() -> None:
    faces, heads = make_faces(16)
    covered, remaining = occlude(faces, heads, fraction=1)
    free = (remaining == 1).expand_as(faces)
    torch.testing.assert_close(covered[free], faces[free], atol=1e-6, rtol=0)
    hidden = (remaining < 0.01).expand_as(faces)
    assert hidden.any()
    assert (covered - faces)[hidden].abs().mean() > 0.1
    assert covered.abs().max() <= 1


def test_the_fraction_of_covered_faces() -> None:
    faces, heads = make_faces(400)
    assert torch.equal(occlude(faces, heads, fraction=0)[0], faces)
    covered = (occlude(faces, heads, fraction=0.5)[0] != faces).flatten(1).any(1)
    assert 0.4 < covered.float().mean() < 0.6


def test_strokes_differ_in_size() -> None:
    torch.manual_seed(0)
    areas = draw_strokes(200, SIDE, torch.device("cpu")).mean((1, 2, 3))
    assert areas.min() < 0.05
    assert areas.max() > 0.25
    assert areas.median() < 0.2
