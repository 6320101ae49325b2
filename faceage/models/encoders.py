"""Faces -> features, their decomposition by attention, and the age classifier.

Shapes stand on the right margin; `h = w = S / 8`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import YEARS
from faceage.models.architecture import ModelConfig
from faceage.models.layers import ResidualBlock
from faceage.models.mobilenet import MobileNet, hidden_layers

ENCODER_LAYERS = 5  # of MobileNet: the features at 1/8 of the resolution


class Encoder(nn.Module):
    """Faces -> features at an eighth of the resolution. Fully convolutional: takes any size."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Sequential(
            nn.Conv2d(12, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.Sequential(
            *_stage(width, 2 * width, config.encoder_blocks),
            *_stage(2 * width, 4 * width, config.encoder_blocks + 1),
        )

    def forward(self, detail: Tensor) -> Tensor:  # N,12,S/2,S/2 -> N,C,S/8,S/8
        features: Tensor = self.stages(self.stem(detail))
        return features


Pool = Callable[[Tensor, int], Tensor]  # N,C,h,w and bins -> N,C,bins,bins


class Decomposition(nn.Module):
    """Attention that splits features into identity and age features (MTLFace, CVPR 2021)."""

    pools: tuple[Pool, Pool] = (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)

    def __init__(self, channels: int) -> None:
        super().__init__()
        pooled = channels * sum(bins * bins for bins in (1, 2, 3))
        self.channel = nn.Sequential(
            nn.Conv2d(pooled, channels // 16, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // 16, channels, 1, bias=False),
        )
        self.channel_norm = nn.BatchNorm2d(channels)
        self.spatial = nn.Conv2d(2, 1, 7, 1, 3, bias=False)
        self.spatial_norm = nn.BatchNorm2d(1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # N,C,h,w -> two of N,C,h,w
        average, largest = (self._pyramid(pool, features) for pool in self.pools)
        channel = self.channel_norm(self.channel(average) + self.channel(largest)).sigmoid()
        summary = torch.cat(
            [features.amax(1, keepdim=True), features.mean(1, keepdim=True)], dim=1
        )  # N,2,h,w
        spatial = self.spatial_norm(self.spatial(summary)).sigmoid()
        age_features = features * (0.5 * (channel + spatial))
        return features - age_features, age_features

    @staticmethod
    def _pyramid(pool: Pool, features: Tensor) -> Tensor:  # N,C,h,w -> N,14C,1,1
        pooled = torch.cat([pool(features, bins).flatten(1) for bins in (1, 2, 3)], 1)
        return pooled[..., None, None]


class AgeClassifier(nn.Module):
    """Age features -> logits over the years 0-100."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.stages = nn.Sequential(
            *_stage(channels, 2 * channels, config.classifier_blocks),
            *_stage(2 * channels, 4 * channels, config.classifier_blocks - 1),
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4 * channels, YEARS)

    def forward(self, age_features: Tensor) -> Tensor:  # N,C,h,w -> N,101
        logits: Tensor = self.head(self.dropout(self.stages(age_features).mean((2, 3))))
        return logits


class MobileNetClassifier(nn.Module):
    """Age features -> logits over the years 0-100, by the other layers of the face backbone."""

    def __init__(self, hidden: int = 512, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = MobileNet(first=ENCODER_LAYERS + 1)
        self.body = hidden_layers(hidden, dropout)
        self.head = nn.Linear(hidden, YEARS)

    def forward(self, age_features: Tensor) -> Tensor:  # N,C,h,w -> N,101
        logits: Tensor = self.head(self.body(self.layers(age_features).mean((2, 3))))
        return logits


class IdentityPyramid(nn.Module):
    """Identity features -> features for the U-Net's first blocks and for its skip connection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.fine = nn.Conv2d(config.channels, 3 * width, 1)
        self.coarse = nn.Sequential(
            ResidualBlock(3 * width, 4 * width, stride=2), ResidualBlock(4 * width, 4 * width)
        )

    def forward(self, identity: Tensor) -> tuple[Tensor, Tensor]:
        """N,C,S/8,S/8 -> N,4*width,S/16,S/16 and N,3*width,S/8,S/8."""
        fine = self.fine(identity)
        return self.coarse(fine), fine


def make_projection(config: ModelConfig) -> nn.Module:
    """Identity features -> the decoder's input."""
    if config.decoder == "unet":
        return IdentityPyramid(config)
    width = 4 * config.width
    if config.channels == width:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(config.channels, width, 1),
        ResidualBlock(width, width),
        ResidualBlock(width, width),
    )


def _stage(channels_in: int, channels_out: int, blocks: int) -> list[nn.Module]:
    rest = [ResidualBlock(channels_out, channels_out) for _ in range(blocks - 1)]
    return [ResidualBlock(channels_in, channels_out, stride=2), *rest]
