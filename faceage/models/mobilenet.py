"""MobileNetV1, the backbone of the age classifier.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
2017 (arXiv 1704.04861). Its weights come from a face recognition network trained on VGGFace2;
batch norms are folded into the convolutions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Output channels of the layers 1-13; each is a depthwise 3x3 and a pointwise 1x1 convolution.
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
LAYERS = len(CHANNELS)
# The square window of an FFHQ crop that the backbone was trained on, in fractions of the crop's
# side: its centre is (0.5, WINDOW_CENTRE_Y).
WINDOW_CENTRE_Y, WINDOW_SIDE = 145 / 256, 200 / 256

_STRIDE_2 = (2, 4, 6, 12)


class MobileNet(nn.Module):
    """The layers `first` to `last` of MobileNetV1; layer 1 follows a 3x3 convolution of stride 2.

    Input: N,3,S,S RGB in [-1, 1] where `first` is 1, else the features of layer `first - 1`.
    Output: N,C,h,w. Layer 5 has 256 channels at S/8, layer 13 has 1,024 at S/32.
    """

    mean: Tensor

    def __init__(self, first: int = 1, last: int = LAYERS) -> None:
        super().__init__()
        self.first, self.last = first, last
        before = CHANNELS[first - 2] if first > 1 else 32
        if first == 1:
            self.conv1 = nn.Conv2d(3, before, 3, 2)
            mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
            self.register_buffer("mean", mean, persistent=False)
        for layer in range(first, last + 1):
            stride, padding = (2, 0) if layer in _STRIDE_2 else (1, 1)
            depthwise = nn.Conv2d(before, before, 3, stride, padding, groups=before)
            self.add_module(f"depthwise{layer}", depthwise)
            self.add_module(f"pointwise{layer}", nn.Conv2d(before, CHANNELS[layer - 1], 1))
            before = CHANNELS[layer - 1]

    def forward(self, x: Tensor) -> Tensor:
        if self.first == 1:
            x = (x.flip(1) + 1) * 127.5 - self.mean  # BGR, 0-255 minus the mean
            x = F.relu6(self.conv1(_pad(x)))
        for layer in range(self.first, self.last + 1):
            if layer in _STRIDE_2:
                x = _pad(x)
            x = F.relu6(self.get_submodule(f"depthwise{layer}")(x))
            x = F.relu6(self.get_submodule(f"pointwise{layer}")(x))
        return x


def hidden_layers(hidden: int, dropout: float) -> nn.Sequential:  # N,1024 -> N,hidden
    """The layers between the pooled features of the last layer and the heads."""
    channels = CHANNELS[-1]
    return nn.Sequential(
        nn.LayerNorm(channels),
        nn.Dropout(dropout),
        nn.Linear(channels, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


def _pad(x: Tensor) -> Tensor:
    """TensorFlow's SAME padding of a 3x3 convolution with stride 2: right and bottom."""
    return F.pad(x, (0, 1, 0, 1))
