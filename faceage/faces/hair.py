"""Hair that extends beyond the FFHQ crop, to which the change of the hair inside is continued.

Everything here is computed on the wider crop of `widen`, `WIDE` px, whose middle `SIZE` px are the
crop itself.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from faceage.faces.alignment import Face, apply, crop_face, to_photo
from faceage.faces.paste import border_fade
from faceage.faces.segmentation import SIZE, segment_head

WIDER = 1.5  # the width of the wider crop, in FFHQ crops
WIDE = round(WIDER * SIZE)  # px
_INNER = slice((WIDE - SIZE) // 2, (WIDE + SIZE) // 2)

_RIM = 0.12  # fraction of the crop's side, at its border, from which colours and changes continue
_REACHES = 0.05, 0.2  # fractions of the side: they continue from the nearest pixels of the head
# Difference of colours, as `_difference`, up to which a pixel has the colour of the hair, and
# from which it has another: a background that is taken for a head stays as it is.
_SIMILAR, _OTHER = 25.0, 50.0
_COLOUR_BLUR, _MASK_BLUR = 0.8, 1.0  # standard deviations, px
_LEAST_HEAD = 0.35  # probability up to which a pixel is left as it is
_THIN = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))  # narrower parts are no hair
_GAPS = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))  # smaller gaps are closed
_MIN_AREA = 0.002  # of the wider crop; less hair beyond the crop than this does not show

Floats = NDArray[np.float32]


def widen(face: Face) -> Face:
    """A face whose FFHQ crop is `WIDER` times as wide, with the same middle."""
    middle = apply(to_photo(face.landmarks, 1), np.zeros((1, 2)))
    return replace(face, landmarks=middle + WIDER * (face.landmarks - middle))


def hair_mask(pixels: NDArray[np.uint8], face: Face, head: Floats) -> Floats | None:
    """The weight of the continued change at each pixel of the wider crop, from 0 to 1.

    It covers the hair beyond the crop and the rim of the crop, where `head_mask` falls to 0.

    Args:
        pixels: the photo, uint8 (H,W,3) RGB.
        head: the probability of each pixel of the crop to be head, float32 (S,S), S = `SIZE`.

    Returns:
        float32 (`WIDE`,`WIDE`), or None if there is hardly any hair beyond the crop.
    """
    crop = crop_face(pixels, widen(face), WIDE)
    outside = _pad(np.ones((SIZE, SIZE), np.float32)) == 0
    wide_head = cv2.resize(segment_head(crop), (WIDE, WIDE), interpolation=cv2.INTER_LINEAR)
    colours = np.asarray(cv2.GaussianBlur(crop, (0, 0), _COLOUR_BLUR), np.float32)
    expected = continue_beyond(colours[_INNER, _INNER], head)
    similar = np.clip((_OTHER - _difference(colours, expected)) / (_OTHER - _SIMILAR), 0, 1)
    similar = cv2.morphologyEx(similar, cv2.MORPH_CLOSE, _GAPS)  # dark or bright strands
    here = np.where(outside, wide_head * similar, _pad(head))
    found = cv2.morphologyEx((here > 0.5).astype(np.uint8), cv2.MORPH_OPEN, _THIN)
    _, parts = cv2.connectedComponents(found)
    reached = np.isin(parts, np.setdiff1d(parts[~outside], [0]))
    if (reached & outside).mean() < _MIN_AREA:
        return None
    soft = cv2.GaussianBlur(here * reached, (0, 0), _MASK_BLUR)
    soft = np.where(outside, np.minimum(soft, similar), soft)
    weight = np.clip((soft - _LEAST_HEAD) / (1 - 2 * _LEAST_HEAD), 0, 1)
    fades = border_fade(WIDE) * (1 - _pad(border_fade(SIZE)))
    result: Floats = (weight * fades).astype(np.float32)
    return result


def continue_beyond(values: Floats, weights: Floats) -> Floats:
    """Values of the crop's rim, continued over the wider crop.

    Args:
        values: float32 (R,R,3) of any R.
        weights: of the pixels of the crop, float32 (S,S), S = `SIZE`: their part of the head.

    Returns:
        float32 (`WIDE`,`WIDE`,3): the weighted mean of the nearest values.
    """
    small = cv2.resize(values, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    known = weights.copy()
    depth = round(_RIM * SIZE)
    known[depth:-depth, depth:-depth] = 0
    layers = _pad(np.dstack([small * known[..., None], known]))
    near, far = (cv2.GaussianBlur(layers, (0, 0), reach * SIZE) for reach in _REACHES)
    # Far values count where there are no near ones, and the mean of all where there are none.
    sums = near + 1e-3 * far + 1e-6 * layers.mean((0, 1))
    result: Floats = (sums[..., :3] / np.maximum(sums[..., 3:], 1e-12)).astype(np.float32)
    return result


def _difference(colours: Floats, others: Floats) -> Floats:  # (H,W,3) in levels -> (H,W)
    """Of lightness and colour. Strands of hair differ in lightness more than in colour."""
    change = colours - others
    lightness = change.mean(2, keepdims=True)
    result: Floats = np.abs(lightness[..., 0]) + np.abs(change - lightness).max(2)
    return result


def _pad(crop: Floats) -> Floats:
    """The crop in the middle of the wider crop, 0 around it."""
    padded = np.zeros((WIDE, WIDE, *crop.shape[2:]), np.float32)
    padded[_INNER, _INNER] = crop
    return padded
