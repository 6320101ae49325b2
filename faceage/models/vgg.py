"""VGG19's convolutions: features for the perceptual loss and the projected discriminator.

The layers are listed here instead of taken from torchvision, which training does not require.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.errors import WeightsError

_WIDTHS = ((64, 2), (128, 2), (256, 4), (512, 4))  # channels, convolutions at each resolution


class VggFeatures(nn.Module):
    """Fixed features of faces at several depths.

    The weights are buffers that are not part of the state dict; they come from a file.

    Args:
        tensors: the convolutions under torchvision's names, `features.N.weight` and `.bias`; None
            leaves them uninitialised, for counting operations.

    Raises:
        WeightsError: a convolution is missing or has another shape.
    """

    TAPS = (3, 8, 13, 17, 22)  # relu1_2, relu2_2, relu3_2, relu3_4, relu4_2
    CHANNELS = (64, 128, 256, 256, 512)

    mean: Tensor
    std: Tensor

    def __init__(self, tensors: dict[str, Tensor] | None) -> None:
        super().__init__()
        self._layers: list[int | None] = []  # a convolution's index in torchvision; None: a pool
        index, before = 0, 3
        for width, count in _WIDTHS:
            for _ in range(count):
                if index > max(self.TAPS):
                    break
                for name, shape in (("weight", (width, before, 3, 3)), ("bias", (width,))):
                    value = _find(tensors, f"features.{index}.{name}", shape)
                    self.register_buffer(f"{name}{index}", value, persistent=False)
                self._layers.append(index)
                index, before = index + 2, width  # a ReLU follows every convolution
            self._layers.append(None)
            index += 1
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def forward(self, faces: Tensor, taps: tuple[int, ...]) -> list[Tensor]:
        """The features N,C,h,w after each of `taps`.

        Args:
            faces: N,3,S,S in [-1, 1].
            taps: some of `TAPS`, ascending.
        """
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


def _find(tensors: dict[str, Tensor] | None, key: str, shape: tuple[int, ...]) -> Tensor:
    if tensors is None:
        return torch.empty(shape)
    value = tensors.get(key)
    if value is None or value.shape != shape:
        problem = "is missing" if value is None else f"has the shape {tuple(value.shape)}"
        raise WeightsError(
            f"These are not VGG19's weights: {key} {problem}.",
            "Give torchvision's vgg19-dcbb9e9d.pth, or the same tensors as .safetensors.",
        )
    return value.float()
