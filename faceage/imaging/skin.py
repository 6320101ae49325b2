"""The colour of the skin in FFHQ crops."""

import numpy as np
from numpy.typing import NDArray


def skin_window(side: int) -> tuple[slice, slice]:
    """Rows and columns of cheeks and nose in an FFHQ crop of `side` px."""
    return slice(side // 2, side * 2 // 3), slice(side // 3, side * 2 // 3)


def mouth_window(side: int) -> tuple[slice, slice]:
    """Rows and columns of the mouth in an FFHQ crop of `side` px."""
    return slice(side * 19 // 32, side * 27 // 32), slice(side * 11 // 32, side * 21 // 32)


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
