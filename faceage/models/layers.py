"""Building blocks of the networks: age embedding, conditional batch norm, residual blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import KNOTS


class AgeEmbedding(nn.Module):
    """Years -> vector, learned at knots and interpolated linearly between them.

    Conditioning is therefore a continuous function of the numeric age, also at ages without
    training faces.
    """

    knots: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(KNOTS), channels)
        self.register_buffer("knots", torch.tensor(KNOTS, dtype=torch.float32), persistent=False)

    def forward(self, age: Tensor) -> Tensor:  # (N,) years -> (N, channels)
        age = age.float().clamp(KNOTS[0], KNOTS[-1])
        right = (age[:, None] >= self.knots).sum(1).clamp(1, len(KNOTS) - 1)  # as searchsorted
        low, high = self.knots[right - 1], self.knots[right]
        fraction = ((age - low) / (high - low)).unsqueeze(1)
        return torch.lerp(self.table(right - 1), self.table(right), fraction)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias are functions of a condition vector.

    Contains a BatchNorm2d instead of being one, so that `convert_sync_batchnorm` keeps the
    conditioning. Starts as plain normalisation: gain 1, bias 0.
    """

    def __init__(self, channels: int, condition_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(condition_channels, 2 * channels)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # (N,C,h,w), (N,K) -> (N,C,h,w)
        gain, bias = self.affine(condition)[:, :, None, None].chunk(2, dim=1)
        result: Tensor = self.norm(x) * (1 + gain) + bias
        return result


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus a shortcut; `stride=2` halves the resolution."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        nn.init.zeros_(
            self.norm2.weight
        )  # the block starts as its shortcut: deep stacks train well
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if stride == 2 else []
        if channels_in != channels_out:
            shortcut += [
                nn.Conv2d(channels_in, channels_out, 1, bias=False),
                nn.BatchNorm2d(channels_out),
            ]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        change = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(change)))


class ModulatedBlock(nn.Module):
    """A residual decoder block whose normalised features are scaled and shifted by a modulation.

    Group norm: it needs no statistics over the batch, and unlike instance norm it keeps the
    relative magnitudes of channels, which avoids the blob artefacts known from StyleGAN.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in, affine=False)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, 1, 1)
        self.norm2 = nn.GroupNorm(8, channels_out, affine=False)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1)
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1, bias=False)
        )
        self.modulation_channels = 2 * (channels_in + channels_out)
        self._split = [channels_in, channels_in, channels_out, channels_out]

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:  # (N, modulation_channels)
        parts = torch.split(modulation[:, :, None, None], self._split, dim=1)
        gain1, bias1, gain2, bias2 = parts
        change = F.leaky_relu(self.norm1(x) * (1 + gain1) + bias1, 0.2)
        change = self.conv1(change)
        change = F.leaky_relu(self.norm2(change) * (1 + gain2) + bias2, 0.2)
        result: Tensor = (self.shortcut(x) + self.conv2(change)) * 0.5**0.5
        return result
