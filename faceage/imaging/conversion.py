"""Between uint8 pictures (N,H,W,3) and the networks' faces (N,3,H,W) in [-1, 1], and resizing."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def to_tensor(
    images: NDArray[np.uint8] | Tensor, device: torch.device | str | None = None
) -> Tensor:  # N,H,W,3 -> N,3,H,W
    """RGB pictures as a float32 tensor in [-1, 1].

    Args:
        images: uint8 (N,H,W,3), an array or a tensor.
        device: where the result is to be; None leaves a tensor where it is.
    """
    if not isinstance(images, Tensor):
        # torch takes neither negative strides nor, without a warning, read-only memory.
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    return images.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(faces: Tensor) -> NDArray[np.uint8]:  # N,3,H,W -> N,H,W,3
    """Faces in [-1, 1] as RGB pictures; values outside are clipped."""
    levels = ((faces.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pictures: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).cpu().numpy()
    return pictures


def resize_images(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Square pictures (N,R,R,3) at `size` px: shrunk by area, enlarged by cubic interpolation."""
    side = images.shape[1]
    if side == size:
        return images
    how = Image.Resampling.BICUBIC if side < size else Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(i).resize((size, size), how)) for i in images])
