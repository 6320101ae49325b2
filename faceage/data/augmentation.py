"""Augmentation of batches on their device: geometry, colour, and DiffAugment for the discriminator.

All random numbers come from torch's global generator, which the training loop seeds before every
step from (seed, rank, images seen).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from faceage.imaging.conversion import to_tensor
from faceage.models.windows import INNER_WINDOW, Window, window_grid


def whole_faces(
    images: Tensor, valid: Tensor, size: int, transform: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Crops for the synthesis, randomly mirrored and slightly rotated, scaled and shifted.

    Args:
        images: N,R,R,3 uint8.
        valid: N,4, x0 y0 x1 y1 as fractions of the side: the picture without its padding.
        size: side S of the result, px.
        transform: N,2,3; None draws `whole_transforms`.

    Returns:
        N,3,S,S in [-1, 1], and the mask N,1,S,S: 1 on the picture, 0 on padding.
    """
    count = len(images)
    if transform is None:
        transform = whole_transforms(count, images.device)
    grid = F.affine_grid(transform, [count, 1, size, size], align_corners=False)
    return _resample(images, grid), _inside(grid, valid)


def whole_transforms(count: int, device: torch.device) -> Tensor:  # N,2,3
    """Random transforms for `whole_faces`."""
    return random_similarity(count, device, angle=5, zoom=0.05, shift=0.02)


def inner_faces(
    images: Tensor, valid: Tensor, size: int, window: Window = INNER_WINDOW
) -> Tensor:  # N,3,size,size in [-1, 1]
    """Inputs for training the classifier, strongly augmented.

    Padding depends on a picture's source, and the source correlates with age. So the area outside a
    picture's `valid` box is filled from its edge, and half of the pictures are also cut to the box
    of another picture: the padding then no longer indicates the source.

    Args:
        images: N,R,R,3 uint8 crops.
        valid: N,4, x0 y0 x1 y1 as fractions of the side.
        size: side of the result, px.
        window: the classifier's, `ModelConfig.classifier_window`.
    """
    count, device = len(images), images.device
    transform = random_similarity(count, device, angle=15, zoom=0.15, shift=0.06)
    grid = window_grid(transform, size, window)
    other = valid[torch.randperm(count, device=device)]
    both = torch.cat([torch.maximum(valid, other)[:, :2], torch.minimum(valid, other)[:, 2:]], 1)
    box = torch.where(_bernoulli(count, 0.5, device), both, valid) * 2 - 1
    low, high = box[:, None, None, :2], box[:, None, None, 2:]
    faces = _resample(images, torch.minimum(torch.maximum(grid, low), high))
    return erase(_degrade(recolour(faces, strength=0.4), probability=0.3, noise=0.06))


def robust_views(
    faces: Tensor, size: int, window: Window = INNER_WINDOW
) -> Tensor:  # N,3,S,S -> N,3,size,size, in [-1, 1]
    """Augmented inputs of the age classifier from generated pictures; differentiable.

    Without augmentation the generator learns adversarial patterns: faint, invisible, and without
    effect on any other classifier. They do not survive shifts, recolouring, blur and noise;
    wrinkles and round cheeks do.

    Args:
        window: the classifier's, `ModelConfig.classifier_window`.
    """
    transform = random_similarity(len(faces), faces.device, angle=10, zoom=0.12, shift=0.05)
    grid = window_grid(transform, size, window)
    inner = F.grid_sample(faces, grid, padding_mode="reflection", align_corners=False)
    return _degrade(recolour(inner, strength=0.4), probability=0.7, noise=0.2, grey=0.5)


def head_mask(size: int, device: torch.device) -> Tensor:  # 1,1,size,size
    """1 inside an ellipse around the head of an FFHQ crop, 0 on clothes and most of the background.

    Clothes and background correlate with age (toddlers wear bibs); without the mask the generator
    learned to add them.
    """
    axis = (torch.arange(size, device=device) + 0.5) / size
    x, y = (axis - 0.5) / 0.38, (axis - 0.46) / 0.39
    return (x[None] ** 2 + y[:, None] ** 2 < 1).float()[None, None]


def diff_augment(faces: Tensor) -> Tensor:
    """Differentiable augmentation of the discriminator's input (Zhao et al., NeurIPS 2020).

    Args:
        faces: N,3,S,S in [-1, 1].
    """
    count, device = len(faces), faces.device
    faces = recolour(faces, strength=0.2)
    transform = random_similarity(count, device, angle=0, zoom=0.1, shift=0.1)
    grid = F.affine_grid(transform, [count, 1, *faces.shape[2:]], align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="zeros", align_corners=False)


def _bernoulli(count: int, probability: float, device: torch.device, dims: int = 2) -> Tensor:
    return torch.rand([count] + [1] * (dims - 1), device=device) < probability


def _uniform(count: int, limit: float, device: torch.device, dims: int = 1) -> Tensor:
    return (torch.rand([count] + [1] * (dims - 1), device=device) * 2 - 1) * limit


def random_similarity(
    count: int, device: torch.device, angle: float, zoom: float, shift: float
) -> Tensor:  # N,2,3
    """Random mirror, rotation (degrees), zoom (log scale) and shift (fractions of the side)."""
    turn = _uniform(count, math.radians(angle), device)
    scale = torch.exp(_uniform(count, zoom, device))
    mirror = torch.where(_bernoulli(count, 0.5, device, 1), -1.0, 1.0)
    cos, sin = scale * turn.cos(), scale * turn.sin()
    x, y = _uniform(count, 2 * shift, device), _uniform(count, 2 * shift, device)
    rows = torch.stack([cos * mirror, -sin, x, sin * mirror, cos, y], 1)
    return rows.view(count, 2, 3)


def _resample(images: Tensor, grid: Tensor) -> Tensor:  # N,R,R,3 uint8 -> N,3,S,S in [-1, 1]
    return F.grid_sample(to_tensor(images), grid, padding_mode="reflection", align_corners=False)


def _inside(grid: Tensor, valid: Tensor) -> Tensor:  # N,S,S,2 and N,4 -> N,1,S,S
    box = valid[:, None, None] * 2 - 1
    inside = (grid >= box[..., :2]).all(-1) & (grid <= box[..., 2:]).all(-1)
    return inside[:, None].float()


def recolour(faces: Tensor, strength: float) -> Tensor:
    count, device = len(faces), faces.device
    faces = faces + _uniform(count, strength / 2, device, 4)  # brightness
    grey = faces.mean(1, keepdim=True)
    faces = grey + (faces - grey) * (1 + _uniform(count, strength, device, 4))  # saturation
    centre = faces.mean((1, 2, 3), keepdim=True)
    return centre + (faces - centre) * (1 + _uniform(count, strength, device, 4))  # contrast


def _degrade(faces: Tensor, probability: float, noise: float, grey: float = 0.1) -> Tensor:
    """Blur, noise (each with `probability`) and greyscale (with probability `grey`).

    Sharpness and colour correlate with the source, and the source with age.
    """
    count, device = len(faces), faces.device
    side = faces.shape[-1]
    small = round(side * (0.35 + 0.5 * torch.rand((), device="cpu").item()))
    blurred = F.interpolate(faces, small, mode="bilinear", antialias=True)
    blurred = F.interpolate(blurred, side, mode="bilinear")
    faces = torch.where(_bernoulli(count, probability, device, 4), blurred, faces)
    grain = torch.randn_like(faces) * noise * torch.rand(count, 1, 1, 1, device=device)
    faces = torch.where(_bernoulli(count, probability, device, 4), faces + grain, faces)
    light = faces.mean(1, keepdim=True).expand_as(faces)
    return torch.where(_bernoulli(count, grey, device, 4), light, faces).clamp(-1, 1)


def erase(faces: Tensor) -> Tensor:
    """Set one random rectangle of half of the faces to grey (random erasing)."""
    count, device = len(faces), faces.device
    axis = torch.linspace(-1, 1, faces.shape[-1], device=device)
    x, y = _uniform(count, 1, device, 2), _uniform(count, 1, device, 2)
    half_x = 0.1 + 0.25 * torch.rand(count, 1, device=device)
    half_y = 0.1 + 0.25 * torch.rand(count, 1, device=device)
    hole = ((axis - y).abs() < half_y)[:, :, None] & ((axis - x).abs() < half_x)[:, None, :]
    hole = hole & _bernoulli(count, 0.5, device, 3)
    return torch.where(hole[:, None], torch.zeros_like(faces), faces)
