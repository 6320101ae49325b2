"""A typical FFHQ face and its geometry, for the tests of cropping and pasting."""

import numpy as np

from faceage.faces.alignment import Face
from faceage.faces.hair import widen
from faceage.faces.paste import photo_mask

# The five points of a typical face in FFHQ's own pictures, at 256 px.
FFHQ = np.array([[96, 121], [160, 121], [128, 155], [103, 186], [153, 186]], float)


def face_at(landmarks: np.ndarray) -> Face:
    (x0, y0), (x1, y1) = landmarks.min(0), landmarks.max(0)
    return Face((x0, y0, x1, y1), np.asarray(landmarks, float), 0.9)


def turned(
    points: np.ndarray, degrees: float, scale: float = 1.0, centre: float = 128
) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - centre) @ turn.T * scale + centre


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def waves(width: int, height: int) -> np.ndarray:
    """A smooth colourful picture, uint8."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [np.sin(x / 17), np.sin(y / 23), np.sin((x + y) / 31)]
    return np.rint(127.5 + 100 * np.stack(channels, 2)).astype(np.uint8)


def crop_region(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    """Where a photo may change: the face's crop and the hair around it, bool (H,W)."""
    return photo_mask(widen(face), shape, np.ones((8, 8), np.float32)) > 0
