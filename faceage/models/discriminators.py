"""The discriminators: which faces are real, and are they of the age they should be?

Both work in two steps. `see` is what a face looks like to them, `forward` judges that and gives
outputs N,10, one for each age group that the face may be said to be of, positive for real. What was
seen can be judged again in another step without being looked at again.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import GROUPS
from faceage.models.generator import FaceAgeModel, ModelConfig, inner_face
from faceage.models.vgg import VggFeatures

Seen = list[Tensor]
Augment = Callable[[Tensor], Tensor]


class Discriminator(nn.Module):
    """Learned from nothing, one output for each age group (StarGAN v2, CVPR 2020).

    It sees the inner face only: padding and background go with a picture's source, and the source
    with age.
    """

    def __init__(self, config: ModelConfig, augment: Augment | None = None) -> None:
        super().__init__()
        self._augment = augment or nn.Identity()
        self._view = config.classifier_size
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1)]
        side = self._view
        while side > 4:
            wider = min(2 * width, 8 * config.width)
            layers.append(_DownBlock(width, wider))
            width, side = wider, side // 2
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(width, width, side), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.outputs = nn.Conv2d(width, GROUPS, 1)

    def see(self, faces: Tensor) -> Seen:  # N,3,S,S -> N,3,V,V
        """The inner faces."""
        return [inner_face(self._augment(faces), self._view)]

    def forward(self, seen: Seen) -> list[Tensor]:  # -> one N,10
        return [self.outputs(self.body(seen[0])).flatten(1)]


class _DownBlock(nn.Module):
    """A residual block without norms; halves the resolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv1(F.leaky_relu(x, 0.2))
        change = self.conv2(F.leaky_relu(F.avg_pool2d(change, 2), 0.2))
        return (self.shortcut(F.avg_pool2d(x, 2)) + change) * 0.5**0.5


class ProjectedDiscriminator(nn.Module):
    """Real or aged, and of which age group, told from features that are known already.

    "Projected GANs Converge Faster" (Sauer et al., NeurIPS 2021): what makes a picture look real is
    known to VGG19, which has seen a million of them, and what makes a face look its age is known to
    the encoder that the warm-up has trained; only the small heads on their features learn. Half of
    the faces are looked at as a whole (hair, the shape of the head), the others closely (the skin
    of the inner face); the age is read from all.

    Args:
        config: the generator's.
        features: VGG19's convolutions.
        reader: the model whose age features are seen; None sees VGG19's alone.
        augment: DiffAugment, or None.
        age_views: inner faces for the reader, augmented; None gives them as they are.
    """

    TAPS = (17, 22)  # shallower features told almost nothing

    def __init__(
        self,
        config: ModelConfig,
        features: VggFeatures,
        reader: FaceAgeModel | None = None,
        augment: Augment | None = None,
        age_views: Augment | None = None,
    ) -> None:
        super().__init__()
        self._view = config.size // 2  # px: the inner face at its own scale
        self._age_views = age_views or partial(inner_face, size=config.classifier_size)
        # In a tuple: no parts of this module's parameters or state.
        self._known = (features, reader, augment or nn.Identity())
        channels = [features.CHANNELS[features.TAPS.index(tap)] for tap in self.TAPS]
        self.heads = nn.ModuleList([_Head(c) for c in (*channels, *channels)])
        if reader is not None:
            self.heads.append(_Head(config.channels))

    def see(self, faces: Tensor) -> Seen:  # N,3,S,S -> five of M,C,h,w
        """What the heads judge: of the first half of the faces, of the second, and of all."""
        features, reader, augment = self._known
        half = (len(faces) + 1) // 2
        augmented = augment(faces)
        whole = F.interpolate(augmented[:half], self._view, mode="area")
        views = torch.cat([whole, inner_face(augmented[half:], self._view)])
        found = features(views, self.TAPS)
        seen = [part[:half] for part in found] + [part[half:] for part in found]
        if reader is not None:
            seen.append(reader.encode(self._age_views(faces)).age_features)
        return seen

    def forward(self, seen: Seen) -> list[Tensor]:  # -> three of N,10
        taps = len(self.TAPS)
        judged = [head(part) for head, part in zip(self.heads, seen, strict=True)]
        looks = [torch.cat(pair) for pair in zip(judged[:taps], judged[taps:], strict=False)]
        return looks + judged[2 * taps :]


AnyDiscriminator = Discriminator | ProjectedDiscriminator


def make_discriminator(
    config: ModelConfig,
    features: VggFeatures | None,
    reader: FaceAgeModel | None,
    augment: Augment | None = None,
    age_views: Augment | None = None,
) -> AnyDiscriminator:
    """The projected discriminator where there are features to see with, else the learned one.

    Args:
        config, features, reader, augment, age_views: as for the discriminators.
    """
    if features is None:
        return Discriminator(config, augment)
    return ProjectedDiscriminator(config, features, reader, augment, age_views)


class _Head(nn.Module):
    """Features -> real or not, one output common to all groups plus one of each."""

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

    def forward(self, features: Tensor) -> Tensor:  # N,C,h,w -> N,10
        outputs = self.outputs(self.body(features).mean((2, 3)))
        return outputs[:, :1] + outputs[:, 1:]
