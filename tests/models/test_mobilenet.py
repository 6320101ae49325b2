"""MobileNet as encoder and classifier."""

import torch
import torch.nn.functional as F

from faceage.models.age_teacher import AgeTeacher
from faceage.models.architecture import ModelConfig
from faceage.models.encoders import MobileNetClassifier
from faceage.models.generator import FaceAgeModel
from faceage.models.mobilenet import CHANNELS, MobileNet
from faceage.models.windows import CLASSIFIER_WINDOWS

SMALL = ModelConfig.compact(encoder="mobilenet", size=64, classifier_size=96)


def test_resolution_and_channels() -> None:
    faces = torch.zeros(2, 3, 64, 64)
    features = MobileNet(last=5)(faces)
    assert features.shape == (2, 256, 8, 8)
    assert MobileNet(first=6)(features).shape == (2, 1024, 2, 2)
    assert CHANNELS[4] == 256


def test_two_parts_are_the_whole() -> None:
    torch.manual_seed(0)
    whole, start, rest = MobileNet(), MobileNet(last=5), MobileNet(first=6)
    state = whole.state_dict()
    start.load_state_dict({name: state[name] for name in start.state_dict()})
    rest.load_state_dict({name: state[name] for name in rest.state_dict()})
    faces = torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.equal(rest(start(faces)), whole(faces))


def test_names_of_the_hidden_layers_are_frozen() -> None:
    names = {f"{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    for net in (AgeTeacher(), MobileNetClassifier()):
        assert set(net.body.state_dict()) == names


def test_input_is_bgr_minus_its_mean_padded_right_and_bottom() -> None:
    torch.manual_seed(0)
    net = MobileNet(last=1)
    faces = torch.rand(1, 3, 8, 8) * 2 - 1
    levels = (faces + 1) * 127.5
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    bgr = levels[:, [2, 1, 0]] - mean
    stem = F.conv2d(F.pad(bgr, (0, 1, 0, 1)), net.conv1.weight, net.conv1.bias, stride=2)
    x = F.relu6(stem)
    x = F.relu6(net.get_submodule("depthwise1")(x))
    assert torch.allclose(net(faces), F.relu6(net.get_submodule("pointwise1")(x)), atol=1e-4)


def test_the_classifier_reads_its_own_window() -> None:
    model = FaceAgeModel(SMALL).eval()
    top, left, side = CLASSIFIER_WINDOWS["mobilenet"]
    assert model.config.classifier_window == (top, left, side)
    assert (top, left, side) == (45 / 256, 28 / 256, 200 / 256)
    crop = model.config.classifier_crop
    faces = torch.rand(1, 3, crop, crop) * 2 - 1
    outside = faces.clone()
    outside[..., : int(top * crop) - 1, :] = 0
    with torch.no_grad():
        assert torch.equal(model.age_logits(faces), model.age_logits(outside))


def test_changes_are_those_of_any_other_encoder() -> None:
    model = FaceAgeModel(SMALL).eval()
    faces = torch.rand(2, 3, 64, 64) * 2 - 1
    encoded = model.encode(faces)
    assert encoded.identity.shape == (2, 4 * SMALL.width, 8, 8)
    assert encoded.age_features.shape == (2, 256, 8, 8)
    change = model.decode(encoded, torch.tensor([5.0, 70.0]))
    assert change.residual.shape == (2, 3, 64, 64)
    assert not change.residual.any()  # the change starts at zero
