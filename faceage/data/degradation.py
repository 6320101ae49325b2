"""Degradations of photographs, so that an age estimate does not depend on the picture's quality.

Low resolution, blur, JPEG, noise, no colour, bad light; each for a random part of the faces, which
are N,3,S,S in [-1, 1]. All randomness comes from torch's global generator.
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SMALLEST = 36  # px to which a face may be shrunk


def degrade(faces: Tensor) -> Tensor:
    """All of the degradations below, one after the other."""
    faces = relight(faces)
    faces = reduce_resolution(faces)
    faces = add_noise(faces)
    faces = remove_colour(faces)
    return compress_jpeg(faces.clamp(-1, 1))


def reduce_resolution(faces: Tensor, fraction: float = 0.4) -> Tensor:
    """Shrink to between `SMALLEST` px and the full size, and enlarge again."""
    parts = []
    for part in torch.split(faces, max(1, len(faces) // 6)):  # one size for each part of the batch
        side = part.shape[-1]
        small = int(SMALLEST * (side / SMALLEST) ** torch.rand(()).item())
        low = F.interpolate(part, small, mode="bilinear", antialias=True)
        mode = "bicubic" if torch.rand(()) < 0.5 else "bilinear"
        parts.append(_where(fraction, F.interpolate(low, side, mode=mode), part))
    return torch.cat(parts)


def add_noise(faces: Tensor, fraction: float = 0.2, most: float = 0.15) -> Tensor:
    """Gaussian noise with a random standard deviation of up to `most`."""
    strength = most * torch.rand(len(faces), 1, 1, 1, device=faces.device)
    return _where(fraction, faces + torch.randn_like(faces) * strength, faces)


def remove_colour(faces: Tensor, fraction: float = 0.2, tint: float = 0.08) -> Tensor:
    """Grey pictures, slightly tinted as old prints are."""
    colour = tint * (torch.rand(len(faces), 3, 1, 1, device=faces.device) - 0.5)
    return _where(fraction, faces.mean(1, keepdim=True) + colour, faces)


def relight(faces: Tensor, fraction: float = 0.4) -> Tensor:
    """A random gamma, and brightness that falls off in a random direction."""
    count, side = len(faces), faces.shape[-1]
    gamma = torch.exp(torch.rand(count, 1, 1, 1, device=faces.device) - 0.5)
    slope = 0.35 * (2 * torch.rand(count, 2, 1, 1, device=faces.device) - 1)
    axis = torch.linspace(-1, 1, side, device=faces.device)
    light = 1 + slope[:, :1] * axis[:, None] + slope[:, 1:] * axis
    lit = (((faces + 1) / 2).clamp(1e-4, 1) ** gamma * light).clamp(0, 1) * 2 - 1
    return _where(fraction, lit, faces)


def compress_jpeg(faces: Tensor, fraction: float = 0.25) -> Tensor:
    """JPEG at a random quality of 10 to 70."""
    faces = faces.clone()
    for index in torch.nonzero(torch.rand(len(faces)) < fraction)[:, 0].tolist():
        levels = ((faces[index].permute(1, 2, 0) + 1) * 127.5).round().byte().cpu().numpy()
        buffer = io.BytesIO()
        quality = int(10 + 60 * torch.rand(()).item())
        Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
        decoded = torch.from_numpy(np.array(Image.open(buffer)))
        faces[index] = decoded.permute(2, 0, 1).to(faces) / 127.5 - 1
    return faces


def _where(fraction: float, changed: Tensor, faces: Tensor) -> Tensor:
    """`changed` for a random fraction of the faces, the others as they are."""
    chosen = torch.rand(len(faces), 1, 1, 1, device=faces.device) < fraction
    return torch.where(chosen, changed, faces)
