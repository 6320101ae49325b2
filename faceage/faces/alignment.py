"""The FFHQ crop of a face: its geometry, and cutting it out of a photo.

Coordinates are pixels of the photo, x to the right and y down; the centre of the first pixel is
(0, 0), as in OpenCV. "Image-left" is the left of the picture, the right-hand side of the person.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from faceage.imaging.padding import padded_layers

_MIN_INSIDE = 0.9  # of each edge of the valid box, the part that must lie within the photo


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    Attributes:
        box: x0, y0, x1, y1 in px; may reach beyond the photo.
        landmarks: float64 (5,2) px: image-left eye, image-right eye, nose, image-left and
            image-right corner of the mouth.
        score: the detector's confidence, from 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    @cached_property
    def side(self) -> float:
        """The side of the face's FFHQ crop, in px of the photo."""
        quad = crop_quad(self.landmarks)
        return float(np.linalg.norm(quad[3] - quad[0]))


def crop_quad(landmarks: np.ndarray) -> np.ndarray:
    """The FFHQ crop: its corners top left, bottom left, bottom right, top right, float64 (4,2) px.

    The crop is upright relative to the face. Its side is 4 times the distance of the eyes or 3.6
    times the distance from eyes to mouth, whichever is more: the rule of the FFHQ dataset (Karras
    et al., "A Style-Based Generator Architecture for GANs", 2019).
    """
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = points[:2].mean(0), points[3:5].mean(0)
    eye_to_eye, eye_to_mouth = points[1] - points[0], mouth - eyes
    # The crop's x direction: the mean of the eyes' line and the normal of the eye-mouth line.
    x = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    x /= max(np.linalg.norm(x), 1e-9)
    x *= max(2.0 * np.linalg.norm(eye_to_eye), 1.8 * np.linalg.norm(eye_to_mouth))
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * eye_to_mouth
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def to_photo(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The affine map from px of the crop (size,size) to px of the photo, float64 (2,3)."""
    quad = crop_quad(landmarks)
    x, y = (quad[3] - quad[0]) / size, (quad[1] - quad[0]) / size
    # The quad's corner is the outer corner of the first pixel, half a pixel from its centre.
    return np.column_stack([x, y, quad[0] + 0.5 * (x + y)])


def to_crop(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The affine map from px of the photo to px of the crop (size,size), float64 (2,3)."""
    return np.linalg.inv(_square(to_photo(landmarks, size)))[:2]


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N,2) mapped by an affine map (2,3)."""
    mapped: np.ndarray = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped


def native_size(face: Face, limit: int = 1024) -> int:
    """The side of the face's crop in px of the photo, rounded, `limit` at most."""
    return int(min(max(round(face.side), 1), limit))


def resize_crop(crop: np.ndarray, size: int) -> np.ndarray:
    """A face's crop, uint8 (R,R,3), at another size."""
    how = cv2.INTER_AREA if len(crop) > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, (size, size), interpolation=how), np.uint8)


def crop_face(pixels: np.ndarray, face: Face, size: int) -> np.ndarray:
    """The face's FFHQ crop, uint8 (size,size,3).

    Beyond the photo's border it is filled with the blurred reflection of the photo.

    Args:
        pixels: the photo, uint8 (H,W,3) RGB.
        size: side of the crop in px; may be smaller or larger than the face is in the photo.
    """
    scale = face.side / size  # px of the photo per px of the crop
    region, matrix = _read_region(pixels, face, size, shrink=max(1, int(scale / 2)))
    if scale <= 1.001:
        return warp(region, matrix, (size, size), cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    # Warping to fewer pixels would skip some: warp to a whole multiple of them, then average.
    step = 1.0 / np.linalg.norm(matrix[:, 0])  # px of the region per px of the crop
    times = max(1, int(np.ceil(step - 1e-6)))
    matrix = _finer_grid(times) @ _square(matrix)
    large = (size * times, size * times)
    crop = warp(region, matrix[:2], large, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)


def valid_box(matrix: np.ndarray, shape: tuple[int, int], size: int) -> tuple[int, int, int, int]:
    """The part of a crop that lies within the photo, as x0, y0, x1, y1 in px of the crop.

    Starting from the whole crop, the edge with the least pixels within the photo is moved inwards
    until every edge has nine tenths of its pixels within.

    Args:
        matrix: photo -> crop, 2x3.
        shape: height and width of the photo, px.
        size: side of the crop, px.
    """
    back = np.linalg.inv(matrix[:, :2])
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1)  # the pixels' centres
    places = (grid - matrix[:, 2]) @ back.T  # size,size,2: x and y in the photo
    inside = ((places >= -0.5) & (places <= np.array(shape[::-1]) - 0.5)).all(-1)
    x0, y0, x1, y1 = 0, 0, size, size
    while x1 - x0 > 1 and y1 - y0 > 1:
        box = inside[y0:y1, x0:x1]
        edges = [box[:, 0].mean(), box[0].mean(), box[:, -1].mean(), box[-1].mean()]
        worst = int(np.argmin(edges))
        if edges[worst] >= _MIN_INSIDE:
            break
        x0, y0 = x0 + (worst == 0), y0 + (worst == 1)
        x1, y1 = x1 - (worst == 2), y1 - (worst == 3)
    return x0, y0, x1, y1


def crop_bounds(
    face: Face, margin: int = 2, within: tuple[int, ...] | None = None
) -> tuple[int, int, int, int]:
    """The rectangle of the photo around the face's crop: x0, y0 and, one past the last, x1, y1.

    Args:
        margin: px added on every side.
        within: the photo's shape (H,W,...), to which the rectangle is clipped.
    """
    quad = crop_quad(face.landmarks)
    x0, y0 = (int(v) - margin for v in np.floor(quad.min(0)))
    x1, y1 = (int(v) + margin + 1 for v in np.ceil(quad.max(0)))
    if within is not None:
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, within[1]), min(y1, within[0])
    return x0, y0, x1, y1


def warp(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], interpolation: int, border: int
) -> np.ndarray:
    """An image mapped by `matrix` (2,3), at `size` (width, height); the last two are OpenCV's."""
    return cv2.warpAffine(image, matrix, size, flags=interpolation, borderMode=border)


def _read_region(
    pixels: np.ndarray, face: Face, size: int, shrink: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the photo that the crop needs, `shrink` times smaller, filled beyond the border.

    Returns:
        uint8 (h,w,3), and the map (2,3) from its px to px of the crop.
    """
    x0, y0, x1, y1 = crop_bounds(face, margin=4 * shrink)
    # A whole number of blocks, so that shrinking is an exact average.
    x1, y1 = x1 + (x0 - x1) % shrink, y1 + (y0 - y1) % shrink
    height, width = pixels.shape[:2]
    left, top = max(0, -x0), max(0, -y0)
    right, bottom = max(0, x1 - width), max(0, y1 - height)
    region = padded_layers(pixels)[max(0, y0) : min(y1, height), max(0, x0) : min(x1, width)]
    if outside := left or top or right or bottom:
        region = cv2.copyMakeBorder(region, top, bottom, left, right, cv2.BORDER_REFLECT)
    if shrink > 1:
        small = (x1 - x0) // shrink, (y1 - y0) // shrink
        region = cv2.resize(region, small, interpolation=cv2.INTER_AREA)
    region = region[..., :3]
    if outside:
        edges = (left / shrink, top / shrink, right / shrink, bottom / shrink)
        region = _blur_outside(region, edges, face.side / shrink)
    offset = np.array([[1.0, 0, x0 - 0.5], [0, 1, y0 - 0.5], [0, 0, 1]])
    here = offset @ np.diag([shrink, shrink, 1.0]) @ np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return region, to_crop(face.landmarks, size) @ here


def _blur_outside(
    region: np.ndarray, edges: tuple[float, float, float, float], side: float
) -> np.ndarray:
    """Blur the reflection beyond the photo, more with the distance: it must not show a face."""
    height, width = region.shape[:2]
    left, top, right, bottom = edges
    xs, ys = np.arange(width) + 0.5, np.arange(height) + 0.5
    beyond_x = np.maximum(np.maximum(left - xs, xs - (width - right)), 0)
    beyond_y = np.maximum(np.maximum(top - ys, ys - (height - bottom)), 0)
    # Blurring at a quarter of the resolution looks the same and is many times faster.
    few = cv2.resize(region, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    few = cv2.GaussianBlur(few, (0, 0), max(0.06 * side / 4, 0.5), borderType=cv2.BORDER_REFLECT)
    blurred = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)
    # Within the photo nothing changes: only the four strips around it are mixed.
    rows, columns = np.flatnonzero(beyond_y == 0), np.flatnonzero(beyond_x == 0)
    y0, y1 = (rows[0], rows[-1] + 1) if len(rows) else (height, height)
    x0, x1 = (columns[0], columns[-1] + 1) if len(columns) else (width, width)
    mixed: np.ndarray = region.copy()
    for strip in np.s_[:y0, :], np.s_[y1:, :], np.s_[y0:y1, :x0], np.s_[y0:y1, x1:]:
        beyond = np.maximum(beyond_y[strip[0], None], beyond_x[None, strip[1]])
        weight = np.clip(beyond / (0.04 * side), 0, 1)[..., None].astype(np.float32)
        inside = region[strip].astype(np.float32)
        mixed[strip] = np.rint(inside + weight * (blurred[strip] - inside))
    return mixed


def _square(matrix: np.ndarray) -> np.ndarray:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def _finer_grid(times: int) -> np.ndarray:
    """The map (3,3) to a grid `times` finer, pixel centres at whole numbers in both."""
    shift = (times - 1) / 2
    return np.array([[times, 0, shift], [0, times, shift], [0, 0, 1.0]])
