"""The discriminator: the encoder and classifier once more, grown into a judge of what is real."""

import copy
import itertools

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from faceage.model import (
    AgeClassifier,
    Decomposition,
    Encoder,
    FaceAgeModel,
    ModelConfig,
    group_log_probabilities,
    inner_face,
)

# How much the fit to the age group counts in the discriminator, next to how real the face looks.
FIT = 0.3


class Discriminator(nn.Module):
    """Real or aged, for each of the ten age groups (StarGAN v2: one output each).

    An output is the sum of two: how real the face looks, which all groups teach together, and how
    well it fits the group. Laid out as encoder and classifier, without batch norm, it starts as
    what the classifier has learned: which skin, eyes and cheeks belong to which age is known from
    the first step. It sees what the classifier sees: the inner face.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._view = config.classifier_size
        self.encoder = _without_norms(Encoder(config))
        self.decomposition = _without_norms(Decomposition(config.channels))
        classifier = AgeClassifier(config)
        self.stages = _without_norms(classifier.stages)
        self.years = classifier.head
        self.realism = nn.Linear(4 * config.channels, 1)

    def start_from(self, model: FaceAgeModel) -> None:
        """Take over what the encoder and, where there is one, the classifier have learned."""
        self.encoder.load_state_dict(_without_norms(model.encoder).state_dict())
        if model.config.decomposition:
            self.decomposition.load_state_dict(_without_norms(model.decomposition).state_dict())
            self.stages.load_state_dict(_without_norms(model.classifier.stages).state_dict())
            self.years.load_state_dict(model.classifier.head.state_dict())

    def forward(self, faces: Tensor, group: Tensor) -> Tensor:  # N,3,S,S and (N,) -> (N,)
        inner = inner_face(faces, self._view)
        _, age_features = self.decomposition(self.encoder(F.pixel_unshuffle(inner, 2)))
        features = self.stages(age_features).mean((2, 3))
        fit = group_log_probabilities(self.years(features)).gather(1, group[:, None])
        return (self.realism(features).float() + FIT * fit).squeeze(1)


def _without_norms(module: nn.Module) -> nn.Module:
    """A copy whose batch norms, with the statistics they have, are part of the convolutions."""
    module = copy.deepcopy(module).eval()
    for part in module.modules():
        children = list(part.named_children())
        for (name, conv), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, name, fuse_conv_bn_eval(conv, norm))
                setattr(part, norm_name, nn.Identity())
        for name, norm in part.named_children():
            if isinstance(norm, nn.BatchNorm2d):  # behind a sum, say: a gain and a bias of its own
                setattr(part, name, _affine(norm))
    return module.train().requires_grad_(True)


def _affine(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """What a batch norm does in eval mode, as a convolution of every channel by itself."""
    channels = norm.num_features
    affine = nn.Conv2d(channels, channels, 1, groups=channels)
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    affine.weight.data = gain.detach()[:, None, None, None].clone()
    affine.bias.data = (norm.bias - norm.running_mean * gain).detach().clone()
    return affine
