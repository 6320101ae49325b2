"""The fine level: the details of an aged face, at four times the model's size S.

Guided super-resolution. What a change has made, such as wrinkles or a smooth chin in place of a
beard, exists at S px only, while the fine structure that it has to replace exists in the photo.
From the displaced photo at 4S px and the residual at S px, the fine level computes the residual at
4S px.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINE_SCALE = 4

# px at 4S. Means over as many pixels stay as the residual at S px makes them: the fine level
# changes neither the age nor the colours.
COARSE = 4

# Scale of the output: see `decoders.UNET_OUTPUT_SCALE`.
OUTPUT_SCALE = 0.3


class FineLevel(nn.Module):
    """A convolutional network with layers at S, 2S and 4S px; it works on any part of a face."""

    def __init__(self, width: int = 48, fine_width: int = 24, blocks: int = 3) -> None:
        super().__init__()
        self.features = nn.Conv2d(3 * FINE_SCALE**2 + 6, width, 3, 1, 1)
        self.blocks = nn.ModuleList([_Block(width) for _ in range(blocks)])
        self.narrow = nn.Conv2d(width, 4 * fine_width, 1)
        self.detail = nn.Conv2d(12, fine_width, 3, 1, 1)
        self.block = _Block(fine_width)
        self.residual = nn.Conv2d(fine_width, 12, 3, 1, 1)
        for parameter in self.residual.parameters():  # no detail at first
            nn.init.zeros_(parameter)

    def forward(self, moved: Tensor, residual: Tensor) -> Tensor:
        """The residual with its details.

        Args:
            moved: N,3,4R,4R, displaced faces in [-1, 1] or parts of them.
            residual: N,3,R,R, of the same parts.

        Returns:
            N,3,4R,4R.
        """
        residual = residual.to(moved.dtype)
        aged = F.avg_pool2d(moved, FINE_SCALE) + residual
        x = self.features(torch.cat([F.pixel_unshuffle(moved, FINE_SCALE), aged, residual], 1))
        for block in self.blocks:
            x = block(x)
        x = F.pixel_shuffle(self.narrow(F.leaky_relu(x, 0.2)), 2)
        x = self.block(x + self.detail(F.pixel_unshuffle(moved, 2)))
        detail = OUTPUT_SCALE * F.pixel_shuffle(self.residual(F.leaky_relu(x, 0.2)), 2).float()
        means = F.avg_pool2d(detail, COARSE)
        coarse = F.interpolate(means, scale_factor=COARSE, mode="bilinear", align_corners=False)
        return enlarge(residual) + detail - coarse


class _Block(nn.Module):
    """A residual block without normalisation, which would depend on the part of the face."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv1(F.leaky_relu(x, 0.2))
        result: Tensor = x + self.conv2(F.leaky_relu(change, 0.2))
        return result


def enlarge(residual: Tensor) -> Tensor:  # N,3,R,R -> N,3,4R,4R
    """A residual at the fine level's size, without details."""
    return F.interpolate(
        residual.float(), scale_factor=FINE_SCALE, mode="bicubic", align_corners=False
    )
