"""The network that separates the head from the background, hats and clothes."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 128  # px
WIDTHS = (16, 32, 64, 96)


class HeadSegmenter(nn.Module):
    """A small U-Net: a face -> logits of the head, which is skin, hair, ears, neck and glasses.

    It uses only layers that OpenCV executes, which runs the exported network.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS)
        self.down = nn.ModuleList(
            nn.Sequential(_conv(i, o, stride=2), _conv(o, o))
            for i, o in zip(inputs, WIDTHS, strict=False)
        )
        self.bottom = nn.Sequential(_conv(WIDTHS[-1], WIDTHS[-1]), _conv(WIDTHS[-1], WIDTHS[-1]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, 2) for i, o in pairwise(WIDTHS))
        self.merge = nn.ModuleList(_conv(width, width) for width in WIDTHS[:-1])
        self.last = nn.ConvTranspose2d(WIDTHS[0], 1, 2, 2)

    def forward(self, faces: Tensor) -> Tensor:  # N,3,128,128 in [-1, 1] -> N,1,128,128
        skips, x = [], faces
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = self.bottom(x)
        for level in reversed(range(len(self.up))):
            x = self.merge[level](F.relu(self.up[level](x) + skips[level]))
        logits: Tensor = self.last(x)
        return logits


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
