"""Both discriminators: their features and their outputs."""

from functools import partial

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from faceage.ages import GROUPS
from faceage.data.augmentation import robust_views
from faceage.models.architecture import ModelConfig
from faceage.models.discriminators import AnyDiscriminator, Discriminator, ProjectedDiscriminator
from faceage.models.generator import FaceAgeModel
from faceage.models.vgg import VggFeatures
from faceage.models.windows import inner_face


@pytest.fixture(params=["from scratch", "projected", "projected with age features"])
def discriminator(
    request: pytest.FixtureRequest, vgg: dict[str, Tensor], tiny_model: FaceAgeModel
) -> AnyDiscriminator:
    torch.manual_seed(0)
    if request.param == "from scratch":
        return Discriminator(TINY).eval()
    age_encoder = tiny_model if request.param == "projected with age features" else None
    return ProjectedDiscriminator(TINY, VggFeatures(vgg), age_encoder).eval()


@pytest.fixture
def faces() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_there_is_one_output_for_each_group(discriminator: AnyDiscriminator, faces: Tensor) -> None:
    for outputs in discriminator(discriminator.extract_features(faces)):
        assert outputs.shape == (4, GROUPS)
        assert len(outputs.unique()) == 4 * GROUPS


def test_the_output_of_a_face_depends_on_no_other_face(
    discriminator: AnyDiscriminator, faces: Tensor
) -> None:
    torch.manual_seed(0)
    rows = torch.stack(discriminator(discriminator.extract_features(faces)), 1)
    faces[1], faces[3] = 0, 0
    torch.manual_seed(0)
    changed = torch.stack(discriminator(discriminator.extract_features(faces)), 1)
    assert torch.allclose(rows[[0, 2]], changed[[0, 2]], atol=1e-5)
    assert not torch.allclose(rows[[1, 3]], changed[[1, 3]], atol=1e-5)


def test_feature_rows_say_which_faces_the_features_belong_to(
    discriminator: AnyDiscriminator, faces: Tensor
) -> None:
    faces = faces[:3]
    torch.manual_seed(0)
    features = discriminator.extract_features(faces)
    changed = faces.clone()
    changed[0] = 0
    torch.manual_seed(0)
    others = discriminator.extract_features(changed)
    rows = discriminator.feature_rows(3)
    for found, other, part in zip(features, others, rows, strict=True):
        differs = (found != other).flatten(1).any(1)
        assert differs.tolist() == [number == 0 for number in range(3)[part]]


def test_features_can_be_classified_repeatedly(
    discriminator: AnyDiscriminator, faces: Tensor
) -> None:
    features = discriminator.extract_features(faces)
    pairs = zip(discriminator(features), discriminator(features), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_one_from_scratch_takes_the_inner_face_and_has_no_batch_norm(faces: Tensor) -> None:
    discriminator = Discriminator(TINY)
    (features,) = discriminator.extract_features(faces)
    assert torch.equal(features, inner_face(faces, TINY.classifier_size))
    norms = nn.modules.batchnorm._NormBase
    assert not any(isinstance(module, norms) for module in discriminator.modules())


def test_the_projected_one_takes_half_of_the_faces_whole(
    vgg: dict[str, Tensor], faces: Tensor
) -> None:
    network = VggFeatures(vgg)
    discriminator = ProjectedDiscriminator(ModelConfig.compact(size=32), network)
    whole = network(nn.functional.avg_pool2d(faces[:2], 2), discriminator.TAPS)
    inner = network(inner_face(faces[2:], 16), discriminator.TAPS)
    features = discriminator.extract_features(faces)
    for found, expected in zip(features, whole + inner, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_age_features_are_computed_from_views_that_are_not_augmented_twice(
    vgg: dict[str, Tensor], tiny_model: FaceAgeModel, faces: Tensor
) -> None:
    network = VggFeatures(vgg)
    without = ProjectedDiscriminator(TINY, network)
    views = partial(robust_views, size=TINY.classifier_size)
    discriminator = ProjectedDiscriminator(TINY, network, tiny_model, lambda x: -x, views)
    torch.manual_seed(1)
    *others, age_features = discriminator.extract_features(faces)
    torch.manual_seed(1)
    assert torch.equal(age_features, tiny_model.encode(views(faces)).age_features)
    for found, expected in zip(others, without.extract_features(-faces), strict=True):
        assert torch.equal(found, expected)


def test_the_projected_one_trains_its_heads_only(
    vgg: dict[str, Tensor], tiny_model: FaceAgeModel, faces: Tensor
) -> None:
    network = VggFeatures(vgg)
    before = {name: value.clone() for name, value in network.named_buffers()}
    discriminator = ProjectedDiscriminator(TINY, network, tiny_model)
    assert {name.split(".")[0] for name in discriminator.state_dict()} == {"heads"}
    outputs = discriminator(discriminator.extract_features(faces))
    sum(y.square().mean() for y in outputs).backward()
    torch.optim.SGD(discriminator.parameters(), lr=1.0).step()
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
