"""Both discriminators: what they see, and how they judge it."""

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from faceage.ages import GROUPS
from faceage.discriminator import Discriminator, ProjectedDiscriminator
from faceage.model import ModelConfig, inner_face
from faceage.vgg import VggFeatures


@pytest.fixture(params=["learned", "projected"])
def discriminator(
    request: pytest.FixtureRequest, vgg: dict[str, Tensor]
) -> Discriminator | ProjectedDiscriminator:
    torch.manual_seed(0)
    if request.param == "learned":
        return Discriminator(TINY).eval()
    return ProjectedDiscriminator(TINY, VggFeatures(vgg)).eval()


@pytest.fixture
def faces() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _per_face(outputs: list[Tensor], count: int) -> Tensor:
    """All outputs of each face, whichever half of the batch it is in: (count, M)."""
    if len(outputs) == 1:
        return outputs[0][:, None]
    flat = [output.flatten(1) for output in outputs]
    half = len(flat) // 2
    return torch.cat([torch.cat(flat[:half], 1), torch.cat(flat[half:], 1)])[:count]


def test_every_group_has_an_output_of_its_own(
    discriminator: Discriminator | ProjectedDiscriminator, faces: Tensor
) -> None:
    same = faces[:1].expand(2 * GROUPS, -1, -1, -1)
    group = torch.arange(GROUPS).repeat(2)
    rows = _per_face(discriminator(discriminator.see(same), group), 2 * GROUPS)
    assert len(rows) == 2 * GROUPS
    assert len(rows[:GROUPS].sum(1).unique()) == GROUPS


def test_a_face_is_judged_alone(
    discriminator: Discriminator | ProjectedDiscriminator, faces: Tensor
) -> None:
    group = torch.tensor([1, 2, 3, 4])
    rows = _per_face(discriminator(discriminator.see(faces), group), 4)
    faces[1], faces[3] = 0, 0
    changed = _per_face(discriminator(discriminator.see(faces), group), 4)
    assert torch.allclose(rows[[0, 2]], changed[[0, 2]], atol=1e-5)
    assert not torch.allclose(rows[[1, 3]], changed[[1, 3]], atol=1e-5)


def test_what_was_seen_can_be_judged_again(
    discriminator: Discriminator | ProjectedDiscriminator, faces: Tensor
) -> None:
    seen = discriminator.see(faces)
    first = discriminator(seen, torch.full((4,), 2))
    again = discriminator(seen, torch.full((4,), 2))
    other = discriminator(seen, torch.full((4,), 7))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_learned_one_sees_the_inner_face_and_has_no_norms(faces: Tensor) -> None:
    discriminator = Discriminator(TINY)
    (seen,) = discriminator.see(faces)
    assert torch.equal(seen, inner_face(faces, TINY.classifier_size))
    kinds = nn.modules.batchnorm._NormBase
    assert not any(isinstance(module, kinds) for module in discriminator.modules())


def test_the_projected_one_sees_half_of_the_faces_whole(
    vgg: dict[str, Tensor], faces: Tensor
) -> None:
    features = VggFeatures(vgg)
    discriminator = ProjectedDiscriminator(ModelConfig.compact(size=32), features)
    seen = discriminator.see(faces)
    whole = features(nn.functional.avg_pool2d(faces[:2], 2), discriminator.TAPS)
    inner = features(inner_face(faces[2:], 16), discriminator.TAPS)
    for found, expected in zip(seen, whole + inner, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_of_the_projected_one_only_the_heads_learn(vgg: dict[str, Tensor], faces: Tensor) -> None:
    features = VggFeatures(vgg)
    before = {name: value.clone() for name, value in features.named_buffers()}
    discriminator = ProjectedDiscriminator(TINY, features)
    assert {name.split(".")[0] for name in discriminator.state_dict()} == {"heads"}
    outputs = discriminator(discriminator.see(faces), torch.zeros(4, dtype=torch.long))
    sum(y.square().mean() for y in outputs).backward()
    torch.optim.SGD(discriminator.parameters(), lr=1.0).step()
    assert all(torch.equal(value, before[name]) for name, value in features.named_buffers())
