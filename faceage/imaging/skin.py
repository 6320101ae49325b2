"""The colour of the skin in FFHQ crops."""

import numpy as np
from numpy.typing import NDArray

from faceage.models.windows import skin_window


def skin_colours(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The colour of each face's skin: the median over cheeks and nose.

    Args:
        crops: (N,R,R,3) RGB FFHQ crops.

    Returns:
        (N,3) levels of 0-255.
    """
    rows, columns = skin_window(crops.shape[1])
    medians: NDArray[np.float64] = np.median(crops[:, rows, columns], (1, 2))
    return medians


def lightness(colours: NDArray[np.uint8] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Lightness in levels of 0-255, of (...,3) RGB; the weights of ITU-R BT.601."""
    weighted: NDArray[np.float64] = colours @ np.array([0.299, 0.587, 0.114])
    return weighted
