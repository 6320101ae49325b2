"""Windows of FFHQ crops: the inner face, skin, mouth, and the inputs of the age classifiers."""

import torch
import torch.nn.functional as F
from torch import Tensor

from faceage.models.mobilenet import WINDOW_CENTRE_Y, WINDOW_SIDE

# The inner face in an FFHQ crop, in fractions of its side: half of it, slightly below the centre.
INNER_TOP, INNER_LEFT, INNER_SIDE = 0.328125, 0.25, 0.5

Window = tuple[float, float, float]  # top, left, side

INNER_WINDOW: Window = (INNER_TOP, INNER_LEFT, INNER_SIDE)

# The window of the crop that the classifier of each kind of encoder reads: top, left, side.
CLASSIFIER_WINDOWS: dict[str, Window] = {
    "residual": INNER_WINDOW,
    "mobilenet": (WINDOW_CENTRE_Y - WINDOW_SIDE / 2, 0.5 - WINDOW_SIDE / 2, WINDOW_SIDE),
}


def skin_window(side: int) -> tuple[slice, slice]:
    """Rows and columns of cheeks and nose in an FFHQ crop of `side` px."""
    return slice(side // 2, side * 2 // 3), slice(side // 3, side * 2 // 3)


def mouth_window(side: int) -> tuple[slice, slice]:
    """Rows and columns of the mouth in an FFHQ crop of `side` px."""
    return slice(side * 19 // 32, side * 27 // 32), slice(side * 11 // 32, side * 21 // 32)


def inner_face(
    faces: Tensor, size: int, zoom: float = 1.0, window: Window = INNER_WINDOW
) -> Tensor:  # N,3,R,R -> N,3,size,size
    """A window of FFHQ crops, by default their inner half, resized to `size` px.

    Args:
        zoom: above 1, a smaller part of the window.
    """
    rows, columns = _slices(faces.shape[-1], window, zoom)
    part = faces[..., rows, columns]
    inner = part.shape[-1]
    if inner == size:
        return part
    return F.interpolate(part, size, mode="bilinear", align_corners=False, antialias=inner > size)


def inner_mask(size: int, device: torch.device) -> Tensor:  # -> size,size
    """1 on the inner face of FFHQ crops, 0 elsewhere."""
    mask = torch.zeros(size, size, device=device)
    mask[_slices(size, INNER_WINDOW)] = 1
    return mask


def _slices(side: int, window: Window, zoom: float = 1.0) -> tuple[slice, slice]:
    """Rows and columns of a window in crops of `side` px."""
    top, left, extent = window
    inner = round(side * extent / zoom)
    row = round(side * (top + extent / 2) - inner / 2)
    column = round(side * (left + extent / 2) - inner / 2)
    return slice(row, row + inner), slice(column, column + inner)


def window_grid(transform: Tensor, size: int, window: Window) -> Tensor:  # N,2,3 -> N,size,size,2
    """Sampling grid of a window in FFHQ crops, in the coordinates of `grid_sample`.

    Args:
        transform: similarity transforms of the window about its centre.
        size: side of the window, px.
    """
    device, count = transform.device, len(transform)
    top, left, side = window
    placed = torch.tensor(
        [[side, 0, 2 * left + side - 1], [0, side, 2 * top + side - 1], [0, 0, 1]], device=device
    )
    bottom = torch.tensor([0.0, 0, 1], device=device).expand(count, 1, 3)
    moved = placed @ torch.cat([transform, bottom], 1)
    return F.affine_grid(moved[:, :2], [count, 1, size, size], align_corners=False)
