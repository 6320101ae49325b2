"""The FFHQ crop of a face: cutting it out of a photo, and putting a change of it back.

Coordinates are pixels of the photo, x to the right and y down; the centre of the first pixel is
(0, 0), as in OpenCV. "Image-left" is the left of the picture, the right-hand side of the person.
"""

from dataclasses import dataclass

import cv2
import numpy as np

_MASK_SIDE = 256  # px at which the mask is drawn; it is smooth, so it can be enlarged
_STRIP = 256  # rows of the photo that are changed at once
_CHANGE_SIDE = 1536  # px up to which a change is enlarged well before it is warped


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    Attributes:
        box: x0, y0, x1, y1 in px; may reach beyond the photo.
        landmarks: float64 (5,2) px: image-left eye, image-right eye, nose, image-left and
            image-right corner of the mouth.
        score: the detector's certainty, from 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    @property
    def side(self) -> float:
        """The side of the face's FFHQ crop, in px of the photo."""
        quad = crop_quad(self.landmarks)
        return float(np.linalg.norm(quad[3] - quad[0]))


def crop_quad(landmarks: np.ndarray) -> np.ndarray:
    """The FFHQ crop: its corners top left, bottom left, bottom right, top right, float64 (4,2) px.

    The crop stands upright on the face, and is as wide as 4 times the distance of the eyes or 3.6
    times the way from eyes to mouth, whichever is more (Karras et al., "A Style-Based Generator
    Architecture for GANs", 2019: what their dataset does).
    """
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = points[:2].mean(0), points[3:5].mean(0)
    eye_to_eye, eye_to_mouth = points[1] - points[0], mouth - eyes
    # Right along the face: the mean of the eyes' line and of the upright line, turned.
    x = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    x /= max(np.linalg.norm(x), 1e-9)
    x *= max(2.0 * np.linalg.norm(eye_to_eye), 1.8 * np.linalg.norm(eye_to_mouth))
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * eye_to_mouth
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def to_photo(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The map from px of the crop (size,size) to px of the photo, float64 (2,3)."""
    quad = crop_quad(landmarks)
    x, y = (quad[3] - quad[0]) / size, (quad[1] - quad[0]) / size
    # The quad's corner is the outer corner of the first pixel, half a pixel from its centre.
    return np.column_stack([x, y, quad[0] + 0.5 * (x + y)])


def to_crop(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The map from px of the photo to px of the crop (size,size), float64 (2,3)."""
    return _inverse(to_photo(landmarks, size))


def native_size(face: Face, limit: int = 1024) -> int:
    """The side of the face's crop in px of the photo, rounded, `limit` at most."""
    return int(min(max(round(face.side), 1), limit))


def crop_face(pixels: np.ndarray, face: Face, size: int) -> np.ndarray:
    """The face's FFHQ crop, uint8 (size,size,3).

    What lies beyond the photo's border is its blurred reflection.

    Args:
        pixels: the photo, uint8 (H,W,3) RGB.
        size: of the crop, in px; any, smaller or larger than the face is in the photo.
    """
    fit = face.side / size  # px of the photo per px of the crop
    region, matrix = _region(pixels, face, size, shrink=max(1, int(fit / 2)))
    if fit <= 1.001:
        return _warp(region, matrix, (size, size), cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    # Warping to fewer pixels would skip some: warp to a whole multiple of them, then average.
    step = 1.0 / np.linalg.norm(matrix[:, 0])  # px of the region per px of the crop
    times = max(1, int(np.ceil(step - 1e-6)))
    matrix = _scaled(times) @ _square(matrix)
    large = (size * times, size * times)
    crop = _warp(region, matrix[:2], large, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)


def _region(
    pixels: np.ndarray, face: Face, size: int, shrink: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the photo that the crop needs, filled beyond the border, `shrink` times smaller.

    Returns:
        uint8 (h,w,3), and the map (2,3) from its px to px of the crop.
    """
    x0, y0, x1, y1 = _bounds(face, margin=4 * shrink)
    # A whole number of blocks, so that shrinking is an exact average.
    x1, y1 = x1 + (x0 - x1) % shrink, y1 + (y0 - y1) % shrink
    height, width = pixels.shape[:2]
    left, top = max(0, -x0), max(0, -y0)
    right, bottom = max(0, x1 - width), max(0, y1 - height)
    region = pixels[max(0, y0) : min(y1, height), max(0, x0) : min(x1, width)]
    if outside := left or top or right or bottom:
        region = cv2.copyMakeBorder(region, top, bottom, left, right, cv2.BORDER_REFLECT)
    if shrink > 1:
        small = (x1 - x0) // shrink, (y1 - y0) // shrink
        region = cv2.resize(region, small, interpolation=cv2.INTER_AREA)
    if outside:
        edges = (left / shrink, top / shrink, right / shrink, bottom / shrink)
        region = _blur_outside(region, edges, face.side / shrink)
    offset = np.array([[1.0, 0, x0 - 0.5], [0, 1, y0 - 0.5], [0, 0, 1]])
    here = offset @ np.diag([shrink, shrink, 1.0]) @ np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return region, to_crop(face.landmarks, size) @ here


def _blur_outside(
    region: np.ndarray, edges: tuple[float, float, float, float], side: float
) -> np.ndarray:
    """Blur what lies beyond the photo, the more the farther, so that no second face appears."""
    height, width = region.shape[:2]
    left, top, right, bottom = edges
    xs, ys = np.arange(width) + 0.5, np.arange(height) + 0.5
    beyond_x = np.maximum(np.maximum(left - xs, xs - (width - right)), 0)
    beyond_y = np.maximum(np.maximum(top - ys, ys - (height - bottom)), 0)
    weight = np.clip(np.maximum(beyond_x[None], beyond_y[:, None]) / (0.04 * side), 0, 1)
    # Blurring a quarter of the pixels looks the same and is many times faster.
    few = cv2.resize(region, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    few = cv2.GaussianBlur(few, (0, 0), max(0.06 * side / 4, 0.5), borderType=cv2.BORDER_REFLECT)
    blurred = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)
    mixed = region + weight[..., None].astype(np.float32) * (blurred.astype(np.float32) - region)
    return np.rint(mixed).astype(np.uint8)


# --- putting a change back -------------------------------------------------------------------


def face_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Where a change of the face counts in the crop, float32 (size,size) from 0 to 1.

    1 on face, forehead and the hair around; falls off smoothly to exactly 0 before the border.

    Args:
        landmarks: (5,2) in px of the photo.
        size: of the crop, in px.
    """
    points = apply(to_crop(landmarks, size), np.asarray(landmarks, np.float64))
    eyes, mouth = points[:2].mean(0), points[3:5].mean(0)
    centre = (eyes + 0.25 * (mouth - eyes) + 0.5) / size  # in parts of the crop
    grid = (np.arange(size) + 0.5) / size
    dx, dy = np.abs(grid - centre[0]) / 0.47, np.abs(grid - centre[1]) / 0.49
    # Rounder than a square, squarer than an ellipse: hair and jaw reach into the corners.
    distance = (dx[None] ** 2.5 + dy[:, None] ** 2.5) ** (1 / 2.5)
    rim = np.minimum(grid, 1 - grid)
    near = np.minimum(rim[None], rim[:, None])  # distance to the crop's border
    mask = _smooth((1 - distance) / 0.3) * _smooth((near - 0.01) / 0.1)
    return mask.astype(np.float32)


def photo_mask(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    """The same mask in the photo, float32 (H,W); where it is 0, `paste_change` changes nothing."""
    mask = np.zeros(shape[:2], np.float32)
    x0, y0, x1, y1 = _bounds(face, within=shape)
    if x1 > x0 and y1 > y0:
        mask[y0:y1, x0:x1] = _within(face_mask(face.landmarks, _MASK_SIDE), face, (x0, y0, x1, y1))
    return mask


def paste_change(pixels: np.ndarray, face: Face, change: np.ndarray) -> np.ndarray:
    """The photo with the face's change added, where the mask allows it.

    Args:
        pixels: the photo, uint8 (H,W,3).
        change: what to add to the crop, float32 (S,S,3) of any S, in levels of 0-255.

    Returns:
        A new array, uint8 (H,W,3); outside the mask as it was, bit for bit.
    """
    result = pixels.copy()
    x0, y0, x1, y1 = _bounds(face, within=pixels.shape)
    if x1 <= x0 or y1 <= y0:
        return result
    side = max(1, min(round(face.side), max(_CHANGE_SIDE, change.shape[0])))
    change = np.ascontiguousarray(change, np.float32)
    if side != change.shape[0]:
        # Brought to the photo's scale first: warpAffine cannot average, and enlarges in steps.
        smaller = side < change.shape[0]
        how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        change = cv2.resize(change, (side, side), interpolation=how)
    mask = face_mask(face.landmarks, _MASK_SIDE)
    for top in range(y0, y1, _STRIP):  # a face may fill 50 megapixels: little memory is faster
        part = (x0, top, x1, min(top + _STRIP, y1))
        weight = _within(mask, face, part)
        delta = _within(change, face, part)
        delta *= weight[..., None]
        place = result[part[1] : part[3], x0:x1]
        cv2.add(place, delta, dst=place, dtype=cv2.CV_8U)  # rounds and clips
    return result


def _within(image: np.ndarray, face: Face, bounds: tuple[int, int, int, int]) -> np.ndarray:
    """A crop (S,S) or (S,S,3) laid into a rectangle of the photo; 0 where there is no crop."""
    x0, y0, x1, y1 = bounds
    matrix = to_photo(face.landmarks, image.shape[0]) - [[0, 0, x0], [0, 0, y0]]
    size = (x1 - x0, y1 - y0)
    return _warp(image, matrix, size, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)


def _bounds(
    face: Face, margin: int = 2, within: tuple[int, ...] | None = None
) -> tuple[int, int, int, int]:
    """The upright rectangle around the face's crop: first and one past the last px."""
    quad = crop_quad(face.landmarks)
    x0, y0 = (int(v) - margin for v in np.floor(quad.min(0)))
    x1, y1 = (int(v) + margin + 1 for v in np.ceil(quad.max(0)))
    if within is not None:
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, within[1]), min(y1, within[0])
    return x0, y0, x1, y1


def _warp(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], how: int, border: int
) -> np.ndarray:
    return cv2.warpAffine(image, matrix, size, flags=how, borderMode=border)


def _smooth(t: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and a curve without corners in between."""
    t = np.clip(t, 0, 1)
    return t * t * t * (t * (6 * t - 15) + 10)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N,2) moved by a map (2,3)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def _square(matrix: np.ndarray) -> np.ndarray:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def _inverse(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.inv(_square(matrix))[:2]


def _scaled(times: int) -> np.ndarray:
    """The map (3,3) to a grid `times` finer, pixel centres at whole numbers in both."""
    shift = (times - 1) / 2
    return np.array([[times, 0, shift], [0, times, shift], [0, 0, 1.0]])
