"""Both discriminators: what they see, and how they judge it."""

from functools import partial

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from faceage.ages import GROUPS
from faceage.data.augmentation import robust_views
from faceage.models.discriminators import AnyDiscriminator, Discriminator, ProjectedDiscriminator
from faceage.models.generator import FaceAgeModel, ModelConfig, inner_face
from faceage.models.vgg import VggFeatures


@pytest.fixture(params=["learned", "projected", "reading"])
def discriminator(
    request: pytest.FixtureRequest, vgg: dict[str, Tensor], tiny_model: FaceAgeModel
) -> AnyDiscriminator:
    torch.manual_seed(0)
    if request.param == "learned":
        return Discriminator(TINY).eval()
    reader = tiny_model if request.param == "reading" else None
    return ProjectedDiscriminator(TINY, VggFeatures(vgg), reader).eval()


@pytest.fixture
def faces() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_every_group_has_an_output_of_its_own(
    discriminator: AnyDiscriminator, faces: Tensor
) -> None:
    for outputs in discriminator(discriminator.see(faces)):
        assert outputs.shape == (4, GROUPS)
        assert len(outputs.unique()) == 4 * GROUPS


def test_a_face_is_judged_alone(discriminator: AnyDiscriminator, faces: Tensor) -> None:
    torch.manual_seed(0)
    rows = torch.stack(discriminator(discriminator.see(faces)), 1)
    faces[1], faces[3] = 0, 0
    torch.manual_seed(0)
    changed = torch.stack(discriminator(discriminator.see(faces)), 1)
    assert torch.allclose(rows[[0, 2]], changed[[0, 2]], atol=1e-5)
    assert not torch.allclose(rows[[1, 3]], changed[[1, 3]], atol=1e-5)


def test_what_was_seen_can_be_judged_again(discriminator: AnyDiscriminator, faces: Tensor) -> None:
    seen = discriminator.see(faces)
    pairs = zip(discriminator(seen), discriminator(seen), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


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


def test_the_projected_one_reads_age_features(
    vgg: dict[str, Tensor], tiny_model: FaceAgeModel, faces: Tensor
) -> None:
    features = VggFeatures(vgg)
    without = ProjectedDiscriminator(TINY, features)
    views = partial(robust_views, size=TINY.classifier_size)
    reading = ProjectedDiscriminator(TINY, features, tiny_model, lambda x: -x, views)
    torch.manual_seed(1)
    *looks, read = reading.see(faces)
    torch.manual_seed(1)
    assert torch.equal(read, tiny_model.encode(views(faces)).age_features)
    for found, expected in zip(looks, without.see(-faces), strict=True):  # those are augmented
        assert torch.equal(found, expected)


def test_of_the_projected_one_only_the_heads_learn(
    vgg: dict[str, Tensor], tiny_model: FaceAgeModel, faces: Tensor
) -> None:
    features = VggFeatures(vgg)
    before = {name: value.clone() for name, value in features.named_buffers()}
    discriminator = ProjectedDiscriminator(TINY, features, tiny_model)
    assert {name.split(".")[0] for name in discriminator.state_dict()} == {"heads"}
    outputs = discriminator(discriminator.see(faces))
    sum(y.square().mean() for y in outputs).backward()
    torch.optim.SGD(discriminator.parameters(), lr=1.0).step()
    assert all(torch.equal(value, before[name]) for name, value in features.named_buffers())
