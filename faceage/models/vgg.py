"""VGG19's convolutions: what the perceptual loss compares and the projected discriminator sees."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.errors import WeightsError

_WIDTHS = ((64, 2), (128, 2), (256, 4), (512, 4))  # channels, convolutions at each resolution


class VggFeatures(nn.Module):
    """Features of faces from several depths, which no training changes.

    The weights are buffers and stay out of the state dict: whoever uses them brings the file.

    Args:
        tensors: the convolutions under torchvision's names, `features.N.weight` and `.bias`; None
            leaves them empty, for counting what they cost.

    Raises:
        WeightsError: a convolution is missing.
    """

    TAPS = (3, 8, 13, 17, 22)  # relu1_2, relu2_2, relu3_2, relu3_4, relu4_2
    CHANNELS = (64, 128, 256, 256, 512)

    mean: Tensor
    std: Tensor

    def __init__(self, tensors: dict[str, Tensor] | None) -> None:
        super().__init__()
        self._layers: list[int | None] = []  # torchvision's number of a convolution; None: a pool
        index, before = 0, 3
        for width, count in _WIDTHS:
            for _ in range(count):
                if index > max(self.TAPS):
                    break
                for name, shape in (("weight", (width, before, 3, 3)), ("bias", (width,))):
                    key = f"features.{index}.{name}"
                    if tensors is not None and key not in tensors:
                        raise WeightsError(
                            f"These are not VGG19's convolutions: {key} is missing.",
                            "Give torchvision's vgg19, or its convolutions as .safetensors.",
                        )
                    value = torch.empty(shape) if tensors is None else tensors[key].float()
                    self.register_buffer(f"{name}{index}", value, persistent=False)
                self._layers.append(index)
                index, before = index + 2, width  # a ReLU follows every convolution
            self._layers.append(None)
            index += 1
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def forward(self, faces: Tensor, taps: tuple[int, ...]) -> list[Tensor]:
        """One N,C,h,w for each of `taps` (some of `TAPS`, rising), of N,3,S,S in [-1, 1]."""
        x = ((faces + 1) / 2 - self.mean) / self.std
        found: list[Tensor] = []
        for index in self._layers:
            if index is None:
                x = F.max_pool2d(x, 2)
                continue
            weight, bias = self.get_buffer(f"weight{index}"), self.get_buffer(f"bias{index}")
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            if index + 1 in taps:
                found.append(x)
            if len(found) == len(taps):
                break
        return found
