"""Putting the change of a face back into its photo, within a mask.

Only the change is resampled and added; outside the mask the photo stays bit-identical.
"""

import cv2
import numpy as np

from faceage.faces.alignment import Face, apply, crop_bounds, to_crop, to_photo, warp

_REACH = 0.01  # fraction of the crop's side by which the mask exceeds the head
_SOFTNESS = 0.01  # the same, standard deviation of the blur of its edge
_FADE = 0.07  # the same, over which the mask falls to 0 at the crop's border
_STRIP = 256  # rows of the photo that are changed at a time
_CHANGE_SIDE = 1536  # px; up to this side a change is enlarged by cubic interpolation


def face_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The weight of a change at each pixel of the crop, float32 (size,size) from 0 to 1.

    1 on the face, the forehead and the hair around; falls smoothly to exactly 0 before the border.

    Args:
        landmarks: (5,2) in px of the photo.
        size: of the crop, in px.
    """
    points = apply(to_crop(landmarks, size), np.asarray(landmarks, np.float64))
    eyes, mouth = points[:2].mean(0), points[3:5].mean(0)
    centre = (eyes + 0.25 * (mouth - eyes) + 0.5) / size  # as fractions of the crop
    grid = (np.arange(size) + 0.5) / size
    dx, dy = np.abs(grid - centre[0]) / 0.47, np.abs(grid - centre[1]) / 0.49
    # Between an ellipse and a rectangle, because hair and jaw extend into the corners.
    distance = (dx[None] ** 2.5 + dy[:, None] ** 2.5) ** (1 / 2.5)
    rim = np.minimum(grid, 1 - grid)
    near = np.minimum(rim[None], rim[:, None])  # distance to the crop's border
    mask = _smooth_step((1 - distance) / 0.3) * _smooth_step((near - 0.01) / 0.1)
    single: np.ndarray = mask.astype(np.float32)
    return single


def head_mask(head: np.ndarray) -> np.ndarray:
    """The weight of a change where the head is: 1 on it and close by, falling smoothly to 0.

    Also exactly 0 at the crop's border, so that no edge shows where hair extends beyond the crop.

    Args:
        head: the probability of each pixel to be head, float32 (S,S).

    Returns:
        float32 (S,S) from 0 to 1.
    """
    size = head.shape[0]
    reach = 2 * round(_REACH * size) + 1
    grown = cv2.dilate(head, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    soft = cv2.GaussianBlur(grown, (0, 0), _SOFTNESS * size)
    # Pixels that could be hair count as head: a change of part of the hair looks worse than one of
    # a hat, which is small.
    mask: np.ndarray = (_smooth_step((soft - 0.1) / 0.4) * border_fade(size)).astype(np.float32)
    return mask


def border_fade(size: int) -> np.ndarray:
    """0 at the border of a crop of `size` px, and 1 a little inside, float32 (size,size)."""
    grid = (np.arange(size) + 0.5) / size
    fade = _smooth_step((np.minimum(grid, 1 - grid) - 0.01) / _FADE).astype(np.float32)
    product: np.ndarray = fade[None] * fade[:, None]
    return product


def photo_mask(face: Face, shape: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
    """A crop's mask in the photo, float32 (H,W); where it is 0, `paste_change` changes nothing."""
    in_photo = np.zeros(shape[:2], np.float32)
    x0, y0, x1, y1 = crop_bounds(face, within=shape)
    if x1 > x0 and y1 > y0:
        in_photo[y0:y1, x0:x1] = _warp_to_photo(mask, face, (x0, y0, x1, y1))
    return in_photo


def paste_change(
    pixels: np.ndarray, face: Face, change: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """The photo with the face's change added, weighted by the mask.

    Args:
        pixels: the photo, uint8 or uint16 (H,W,3).
        change: what to add to the crop, float32 (S,S,3) of any S, in levels of 0-255.
        mask: of the crop, float32 (M,M) of any M, from 0 to 1; 0 at the border.

    Returns:
        A new array like `pixels`; outside the mask bit-identical to it.
    """
    result = pixels.copy()
    add_change(result, face, change, mask)
    return result


def add_change(pixels: np.ndarray, face: Face, change: np.ndarray, mask: np.ndarray) -> None:
    """As `paste_change`, but changes the array itself, within `crop_bounds`."""
    x0, y0, x1, y1 = crop_bounds(face, within=pixels.shape)
    if x1 <= x0 or y1 <= y0:
        return
    side = max(1, min(round(face.side), max(_CHANGE_SIDE, change.shape[0])))
    change = np.ascontiguousarray(change, np.float32)
    if side != change.shape[0]:
        # To the photo's scale first: warpAffine skips pixels when it shrinks.
        smaller = side < change.shape[0]
        interpolation = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        change = cv2.resize(change, (side, side), interpolation=interpolation)
    depth = cv2.CV_8U
    if pixels.dtype == np.uint16:
        change, depth = change * 257, cv2.CV_16U
    for top in range(y0, y1, _STRIP):  # a face may fill 50 megapixels: strips need less memory
        part = (x0, top, x1, min(top + _STRIP, y1))
        weight = _warp_to_photo(mask, face, part)
        delta = _warp_to_photo(change, face, part)
        delta *= weight[..., None]
        strip = pixels[part[1] : part[3], x0:x1]
        strip[:] = cv2.add(strip, delta, dtype=depth)  # rounds and clips


def _warp_to_photo(image: np.ndarray, face: Face, bounds: tuple[int, int, int, int]) -> np.ndarray:
    """A crop (S,S) or (S,S,3) mapped into a rectangle of the photo; 0 outside the crop."""
    x0, y0, x1, y1 = bounds
    matrix = to_photo(face.landmarks, image.shape[0]) - [[0, 0, x0], [0, 0, y0]]
    return warp(image, matrix, (x1 - x0, y1 - y0), cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)


def _smooth_step(t: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, in between the quintic with zero first and second derivatives there."""
    t = np.clip(t, 0, 1)
    smooth: np.ndarray = t * t * t * (t * (6 * t - 15) + 10)
    return smooth
