"""VGG19's features: the same as torchvision's, and fixed."""

import pytest
import torch
import torchvision
from torch import Tensor

from faceage.errors import WeightsError
from faceage.models.vgg import VggFeatures


def test_features_equal_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.vgg19(weights=None).features.eval()
    ours = VggFeatures({f"features.{k}": v for k, v in theirs.state_dict().items()})
    faces = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((faces + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    expected = {i: x for i, layer in enumerate(theirs) if (x := layer(x.clone())) is not None}
    for tap, channels, found in zip(ours.TAPS, ours.CHANNELS, ours(faces, ours.TAPS), strict=True):
        assert found.shape[1] == channels
        assert torch.allclose(found, expected[tap], atol=1e-5)
    assert len(ours(faces, (8, 22))) == 2


def test_weights_are_fixed_and_not_in_the_state_dict(vgg: dict[str, Tensor]) -> None:
    features = VggFeatures(vgg)
    assert not list(features.parameters())
    assert not features.state_dict()
    faces = torch.zeros(1, 3, 16, 16, requires_grad=True)
    features(faces, (22,))[0].sum().backward()
    assert faces.grad.abs().sum() > 0


def test_missing_or_wrong_convolutions_are_refused(vgg: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"features\.0\.weight is missing"):
        VggFeatures({"conv1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"features\.21\.bias is missing"):
        VggFeatures({k: v for k, v in vgg.items() if k != "features.21.bias"})
    with pytest.raises(WeightsError, match=r"features\.5\.weight has the shape \(3,\)"):
        VggFeatures(vgg | {"features.5.weight": torch.zeros(3)})
