"""Random objects in front of faces, for networks that must find what covers a face.

All randomness comes from torch's global generator.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from faceage.data.augmentation import random_similarity

FRACTION = 0.4  # of the faces that are covered
PARTS = 4  # most strokes of an object, as the fingers of a hand
COARSE = 6  # px of the noise that shades an object
# Fractions of the side of an FFHQ crop between which objects appear, from the hair to the eyes.
# Objects on hair would teach that its strands are objects.
HAIR, EYES = 0.3, 0.42


def occlude(faces: Tensor, heads: Tensor, fraction: float = FRACTION) -> tuple[Tensor, Tensor]:
    """Draw an object over some of the faces, and remove what it covers from their heads.

    An object is one to `PARTS` thick strokes from a common point. It has the colours of another
    face of the batch, as a piece of clothing or a person in front has, or the skin colour of the
    same face, as a hand has.

    Args:
        faces: N,3,S,S in [-1, 1].
        heads: N,1,S,S, the fraction of a pixel that is head.
        fraction: of the faces.

    Returns:
        The faces and the heads.
    """
    shape = draw_strokes(len(faces), faces.shape[-1], faces.device)
    shape = shape * (torch.rand(len(faces), 1, 1, 1, device=faces.device) < fraction)
    hand = torch.rand(len(faces), 1, 1, 1, device=faces.device) < 0.5
    texture = torch.where(hand, _skin(faces, heads), _other_face(faces))
    return faces + shape * (texture - faces), heads * (1 - shape)


def draw_strokes(count: int, side: int, device: torch.device) -> Tensor:  # N,1,S,S in [0, 1]
    """Thick strokes from a point beside or on the face towards its centre, not on the hair."""
    axis = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # S,S,2
    start = 2.4 * torch.rand(count, 1, 2, device=device) - 1.2
    spread = 0.35 * torch.randn(count, PARTS, 2, device=device)
    end = 0.6 * (2 * torch.rand(count, 1, 2, device=device) - 1) + spread
    start = start + 0.3 * spread
    widest = 0.04 + 0.3 * torch.rand(count, 1, device=device) ** 2
    radius = widest * (0.6 + 0.4 * torch.rand(count, PARTS, device=device))
    # The distance of every pixel from every stroke's axis.
    along = (end - start)[:, :, None, None]
    offset = pixels - start[:, :, None, None]
    place = (offset * along).sum(-1) / (along**2).sum(-1).clamp(min=1e-6)
    distance = (offset - place.clamp(0, 1)[..., None] * along).norm(dim=-1)
    inside = torch.sigmoid((radius[..., None, None] - distance) * side)
    drawn = torch.arange(PARTS, device=device) < torch.randint(
        1, PARTS + 1, (count, 1), device=device
    )
    below = ((axis + 1) / 2 - HAIR) / (EYES - HAIR)
    return (inside * drawn[..., None, None]).amax(1, keepdim=True) * below.clamp(0, 1)[:, None]


def _skin(faces: Tensor, heads: Tensor) -> Tensor:  # N,3,S,S
    """The mean colour of the head's middle, lighter or darker, with smooth shading."""
    count, side = len(faces), faces.shape[-1]
    middle = slice(side // 3, side - side // 3)
    weights = heads[..., middle, middle] + 1e-3
    colour = (faces[..., middle, middle] * weights).sum((2, 3), keepdim=True)
    colour = colour / weights.sum((2, 3), keepdim=True)
    light = 0.3 * torch.randn(count, 1, 1, 1, device=faces.device)
    noise = torch.randn(count, 1, COARSE, COARSE, device=faces.device)
    shading = F.interpolate(noise, side, mode="bicubic", align_corners=False)
    return (colour + light + 0.15 * shading).clamp(-1, 1)


def _other_face(faces: Tensor) -> Tensor:  # N,3,S,S
    """Another face of the batch, turned, and enlarged or shrunk."""
    count = len(faces)
    transform = random_similarity(count, faces.device, angle=180, zoom=1, shift=0.4)
    grid = F.affine_grid(transform, list(faces.shape), align_corners=False)
    rolled = faces.roll(1, 0)
    return F.grid_sample(rolled, grid, padding_mode="reflection", align_corners=False)
