"""The discriminators: is a face real, and of the given age group?

All work in two steps: `extract_features` computes features of faces, and `forward` maps them to
outputs N,10, one for each age group, positive for real. Stored features can be classified again in
later steps without recomputing them.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import GROUPS
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel
from faceage.models.vgg import VggFeatures
from faceage.models.windows import inner_face

Features = list[Tensor]
Augment = Callable[[Tensor], Tensor]


class Discriminator(nn.Module):
    """Trained from scratch, with one output for each age group (StarGAN v2, CVPR 2020).

    Its input is the inner face only: padding and background depend on a picture's source, and the
    source correlates with age.
    """

    def __init__(self, config: ModelConfig, augment: Augment | None = None) -> None:
        super().__init__()
        self._augment = augment or nn.Identity()
        self._side = config.classifier_size
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1)]
        side = self._side
        while side > 4:
            wider = min(2 * width, 8 * config.width)
            layers.append(_DownBlock(width, wider))
            width, side = wider, side // 2
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(width, width, side), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.outputs = nn.Conv2d(width, GROUPS, 1)

    def extract_features(self, faces: Tensor) -> Features:  # N,3,S,S -> one of N,3,V,V
        """The augmented inner faces."""
        return [inner_face(self._augment(faces), self._side)]

    def feature_rows(self, count: int) -> list[slice]:
        """Of each tensor of features, the faces among `count` that it belongs to."""
        return [slice(count)]

    def forward(self, features: Features) -> list[Tensor]:  # -> one of N,10
        return [self.outputs(self.body(features[0])).flatten(1)]


class _DownBlock(nn.Module):
    """A residual block without normalisation; halves the resolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv1(F.leaky_relu(x, 0.2))
        change = self.conv2(F.leaky_relu(F.avg_pool2d(change, 2), 0.2))
        result: Tensor = (self.shortcut(F.avg_pool2d(x, 2)) + change) * 0.5**0.5
        return result


class ProjectedDiscriminator(nn.Module):
    """Small trained heads on fixed features ("Projected GANs Converge Faster", NeurIPS 2021).

    VGG19's features serve to tell real from generated pictures, and the age features of the
    encoder that the warm-up has trained serve to tell ages. VGG19's input is the whole crop (hair,
    the shape of the head) for the first half of the faces and the inner face (skin) for the others;
    age features are computed for all faces.

    Args:
        config: the generator's.
        vgg: VGG19's convolutions.
        age_encoder: the model whose age features are used; None uses VGG19's features alone.
        augment: DiffAugment, or None.
        age_views: gives the age encoder's input, augmented inner faces; None does not augment.
    """

    TAPS = (17, 22)  # heads on shallower features learned almost nothing

    def __init__(
        self,
        config: ModelConfig,
        vgg: VggFeatures,
        age_encoder: FaceAgeModel | None = None,
        augment: Augment | None = None,
        age_views: Augment | None = None,
    ) -> None:
        super().__init__()
        self._side = config.size // 2
        self._age_views = age_views or partial(
            inner_face, size=config.classifier_size, window=config.classifier_window
        )
        # In a tuple, so that they are not part of this module's parameters or state.
        self._fixed = (vgg, age_encoder, augment or nn.Identity())
        channels = [vgg.CHANNELS[vgg.TAPS.index(tap)] for tap in self.TAPS]
        self.heads = nn.ModuleList([_Head(c) for c in (*channels, *channels)])
        if age_encoder is not None:
            self.heads.append(_Head(config.channels))

    def extract_features(self, faces: Tensor) -> Features:  # N,3,S,S -> four or five of M,C,h,w
        """One tensor for each head: VGG19's two taps of the first half of the faces, the two taps
        of the second half, and, if there is an age encoder, the age features of all faces."""
        vgg, age_encoder, augment = self._fixed
        half = (len(faces) + 1) // 2
        augmented = augment(faces)
        whole = F.interpolate(augmented[:half], self._side, mode="area")
        views = torch.cat([whole, inner_face(augmented[half:], self._side)])
        taps = vgg(views, self.TAPS)
        features = [tap[:half] for tap in taps] + [tap[half:] for tap in taps]
        if age_encoder is not None:
            features.append(age_encoder.age_features(self._age_views(faces)))
        return features

    def feature_rows(self, count: int) -> list[slice]:
        """Of each tensor of features, the faces among `count` that it belongs to."""
        half, taps = (count + 1) // 2, len(self.TAPS)
        rows = [slice(half)] * taps + [slice(half, count)] * taps
        return rows + [slice(count)] * (len(self.heads) - len(rows))

    def forward(self, features: Features) -> list[Tensor]:  # -> two or three of N,10
        """The outputs at each of VGG19's taps and, with an age encoder, on the age features."""
        taps = len(self.TAPS)
        outputs = [head(part) for head, part in zip(self.heads, features, strict=True)]
        halves = zip(outputs[:taps], outputs[taps : 2 * taps], strict=True)
        return [torch.cat(pair) for pair in halves] + outputs[2 * taps :]


class PatchDiscriminator(nn.Module):
    """As `ProjectedDiscriminator`, for parts of faces at a high resolution: tells their detail."""

    TAPS = (3, 8)  # of small receptive fields: shapes and colours are not the fine level's

    def __init__(self, vgg: VggFeatures) -> None:
        super().__init__()
        self._fixed = (vgg,)  # in a tuple, so that it is not part of the state
        self.heads = nn.ModuleList([_Head(vgg.CHANNELS[vgg.TAPS.index(t)]) for t in self.TAPS])

    def extract_features(self, parts: Tensor) -> Features:  # N,3,P,P -> two of N,C,h,w
        """The features at VGG19's taps."""
        vgg = self._fixed[0]
        features: Features = vgg(parts, self.TAPS)
        return features

    def feature_rows(self, count: int) -> list[slice]:
        """Of each tensor of features, the faces among `count` that it belongs to."""
        return [slice(count)] * len(self.TAPS)

    def forward(self, features: Features) -> list[Tensor]:  # -> two of N,10
        return [head(part) for head, part in zip(self.heads, features, strict=True)]


AnyDiscriminator = Discriminator | ProjectedDiscriminator | PatchDiscriminator


def make_discriminator(
    config: ModelConfig,
    vgg: VggFeatures | None,
    age_encoder: FaceAgeModel | None,
    augment: Augment | None = None,
    age_views: Augment | None = None,
) -> AnyDiscriminator:
    """The projected discriminator if VGG19 is given, else the one trained from scratch.

    For the training of a fine level, the one of parts of faces.

    Args: as for the classes.
    """
    if config.fine_level and vgg is not None:
        return PatchDiscriminator(vgg)
    if vgg is None:
        return Discriminator(config, augment)
    return ProjectedDiscriminator(config, vgg, age_encoder, augment, age_views)


class _Head(nn.Module):
    """Features -> one output for each age group: an output common to all plus the group's own."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, channels, affine=False),  # without it the heads learn half as fast
            nn.Conv2d(channels, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.LeakyReLU(0.2),
        )
        self.outputs = nn.Linear(width, 1 + GROUPS)

    def forward(self, features: Tensor) -> Tensor:  # M,C,h,w -> M,10
        outputs: Tensor = self.outputs(self.body(features).mean((2, 3)))
        return outputs[:, :1] + outputs[:, 1:]
