"""Identity features and a target age -> the change of a face.

The decoders output a change (a residual and a smooth displacement) instead of a face. Identity and
sharpness then come from the photo, and the change can be applied at the photo's own resolution. The
displacement lets the shape of the head change, as it does in children.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.models.architecture import ModelConfig
from faceage.models.layers import AgeEmbedding, ConditionalBatchNorm2d, ModulatedBlock

# Largest displacement, as a fraction of half the crop's side.
MAX_FLOW = 0.15

# Scale of the residual's chroma relative to its lightness. Wrinkles, folds and cheeks are shading;
# with unrestricted chroma the generator added blue lips and yellow streaks.
CHROMA_SCALE = 0.25

# The same for the U-Net, which is trained on pairs: brown hair that turns white changes in chroma.
UNET_CHROMA_SCALE = 0.5

# Scale of the U-Net's outputs. Adam's steps are as large for them as for inner layers, but all
# weights of an output add up at every pixel: without the scale, the first steps spoil the faces.
UNET_OUTPUT_SCALE = 0.1


class Decomposed(NamedTuple):
    """Encoded faces: identity features, age features, and what skip connections need."""

    identity: Tensor  # N,4*width,h,w; half of that resolution for the U-Net
    age_features: Tensor  # N,C,h,w
    skip: Tensor  # N,3*width,h,w: identity features for the U-Net's skip connection, else empty
    faces: Tensor  # N,3,S,S

    def select(self, index: Tensor) -> "Decomposed":
        """The encoded faces at `index`, which may repeat: encode once, decode to many ages."""
        return Decomposed(*(part[index] for part in self))


class Change(NamedTuple):
    """The change from one age to another, applicable at any resolution: displace, then add."""

    residual: Tensor  # N,3,S,S, unbounded
    flow: Tensor  # N,2,h,w in [-MAX_FLOW, MAX_FLOW]: sampling offset x, y in half sides


class AgeFeatureCNN(nn.Module):
    """Identity and target age -> the modulation of every decoder layer (conditional batch norm)."""

    def __init__(self, config: ModelConfig, modulation_channels: int) -> None:
        super().__init__()
        channels = 4 * config.width
        # RAGAN is conditioned on both ages; with the decomposition the source age is not needed.
        condition = channels * (1 if config.decomposition else 2)
        self.embedding = AgeEmbedding(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.norm1 = ConditionalBatchNorm2d(channels, condition)
        self.conv2 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.norm2 = ConditionalBatchNorm2d(channels, condition)
        self.head = nn.Linear(channels + condition, modulation_channels)
        nn.init.zeros_(self.head.bias)

    def forward(self, identity: Tensor, target_age: Tensor, source_age: Tensor | None) -> Tensor:
        condition = self.embedding(target_age)
        if source_age is not None:
            condition = torch.cat([condition, self.embedding(source_age)], 1)
        x = F.relu(self.norm1(self.conv1(identity), condition))
        x = F.relu(self.norm2(self.conv2(x), condition))
        modulation: Tensor = self.head(torch.cat([x.mean((2, 3)), condition], 1))
        return modulation


class Decoder(nn.Module):
    """Identity features, modulated at every layer -> the change to the target age."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = nn.ModuleList(
            [ModulatedBlock(4 * width, 4 * width) for _ in range(config.decoder_blocks)]
        )
        self.flow = nn.Conv2d(4 * width, 2, 3, 1, 1)
        self.narrow1 = nn.Conv2d(4 * width, 2 * width, 1)
        self.middle = ModulatedBlock(2 * width, 2 * width)  # at S/4
        self.narrow2 = nn.Conv2d(2 * width, width, 1)
        self.detail = nn.Conv2d(12, width, 3, 1, 1)  # at S/2
        self.last = ModulatedBlock(width, width)
        self.narrow3 = nn.Conv2d(width, width // 2, 1)
        self.residual = nn.Conv2d(width // 2, 3, 3, 1, 1)  # at S
        for head in (self.flow, self.residual):  # the change starts at zero
            for parameter in head.parameters():
                nn.init.zeros_(parameter)

    @property
    def modulation_channels(self) -> list[int]:
        """Size of each modulated block's modulation, in order."""
        blocks: list[Any] = [*self.blocks, self.middle, self.last]
        return [block.modulation_channels for block in blocks]

    def forward(self, encoded: Decomposed, modulation: Tensor) -> Change:
        *coarse, middle, last = torch.split(modulation, self.modulation_channels, dim=1)
        x = encoded.identity  # N,C,S/8,S/8
        detail = F.pixel_unshuffle(encoded.faces, 2)
        for block, part in zip(self.blocks, coarse, strict=True):
            x = block(x, part)
        flow = MAX_FLOW * torch.tanh(self.flow(F.leaky_relu(x, 0.2)))
        x = self.middle(_upsample(self.narrow1(x)), middle)  # N,C/2,S/4,S/4
        x = _upsample(self.narrow2(x)) + self.detail(detail)  # N,C/4,S/2,S/2
        x = self.last(x, last)
        x = F.leaky_relu(_upsample(self.narrow3(x)), 0.2)  # N,C/8,S,S
        return Change(_scale_chroma(self.residual(x), CHROMA_SCALE), flow)


class UNetDecoder(nn.Module):
    """Identity features, modulated at every layer -> the change to the target age.

    The displacement comes from the features at S/8. It moves these features and the face, so that
    the layers after it compute the residual at the places where it is added: a mouth that moves is
    not left behind at its old place.

    With `desaturation`, one output channel removes a part of the displaced face's chroma: hair of
    every colour turns grey by the same value of it, and keeps its texture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = nn.ModuleList(
            [ModulatedBlock(4 * width, 4 * width) for _ in range(config.decoder_blocks)]
        )  # at S/16
        self.narrow8 = nn.Conv2d(4 * width, 3 * width, 1)
        self.block8 = ModulatedBlock(3 * width, 3 * width)
        self.flow = nn.Conv2d(3 * width, 2, 3, 1, 1)
        self.narrow4 = nn.Conv2d(3 * width, 2 * width, 1)
        self.detail4 = nn.Conv2d(48, 2 * width, 3, 1, 1)
        self.block4 = ModulatedBlock(2 * width, 2 * width)
        self.narrow2 = nn.Conv2d(2 * width, width, 1)
        self.detail2 = nn.Conv2d(12, width, 3, 1, 1)
        self.block2 = ModulatedBlock(width, width)
        self.narrow1 = nn.Conv2d(width, width // 2, 1)
        self.residual = nn.Conv2d(width // 2, 3, 3, 1, 1)
        self.desaturation = nn.Conv2d(width // 2, 1, 3, 1, 1) if config.desaturation else None
        heads = [self.flow, self.residual, *([self.desaturation] if self.desaturation else [])]
        for parameter in nn.ModuleList(heads).parameters():  # the change starts at zero
            nn.init.zeros_(parameter)

    @property
    def modulation_channels(self) -> list[int]:
        """Size of each modulated block's modulation, in order."""
        blocks: list[Any] = [*self.blocks, self.block8, self.block4, self.block2]
        return [block.modulation_channels for block in blocks]

    def forward(self, encoded: Decomposed, modulation: Tensor) -> Change:
        *coarse, part8, part4, part2 = torch.split(modulation, self.modulation_channels, dim=1)
        x = encoded.identity  # N,4w,S/16,S/16
        for block, part in zip(self.blocks, coarse, strict=True):
            x = block(x, part)
        x = self.block8(_upsample(self.narrow8(x)) + encoded.skip, part8)  # N,3w,S/8,S/8
        flow = self.flow(F.leaky_relu(x, 0.2)).float()
        flow = MAX_FLOW * torch.tanh(UNET_OUTPUT_SCALE * flow)
        x = displace(x, flow).to(x.dtype)
        moved = displace(encoded.faces, flow)
        x = _upsample(self.narrow4(x)) + self.detail4(F.pixel_unshuffle(moved, 4))
        x = self.block4(x, part4)  # N,2w,S/4,S/4
        x = _upsample(self.narrow2(x)) + self.detail2(F.pixel_unshuffle(moved, 2))
        x = self.block2(x, part2)  # N,w,S/2,S/2
        x = _upsample(self.narrow1(x))  # N,w/2,S,S
        features = F.leaky_relu(x, 0.2)
        residual = _scale_chroma(UNET_OUTPUT_SCALE * self.residual(features), UNET_CHROMA_SCALE)
        if self.desaturation:
            part = torch.tanh(UNET_OUTPUT_SCALE * self.desaturation(features).float())
            residual = residual - part * (moved - moved.mean(1, keepdim=True))
        return Change(residual, flow)


def displace(
    values: Tensor, flow: Tensor, resampling: str = "bilinear"
) -> Tensor:  # N,K,R,R and N,2,h,w -> N,K,R,R, float32
    """Sample pictures or features at positions displaced by `flow`, at any resolution R."""
    side = values.shape[-1]
    flow = F.interpolate(flow.float(), side, mode="bicubic", align_corners=False)
    axis = (torch.arange(side, device=values.device, dtype=torch.float32) * 2 + 1) / side - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))  # 2,R,R
    grid = (grid + flow).permute(0, 2, 3, 1)
    return F.grid_sample(values.float(), grid, resampling, "border", align_corners=False)


def _scale_chroma(residual: Tensor, scale: float) -> Tensor:
    lightness = residual.mean(1, keepdim=True)
    return lightness + scale * (residual - lightness)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
