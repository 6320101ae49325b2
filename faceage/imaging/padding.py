"""Arrays of RGB pixels with a fourth byte a pixel, in which Pillow and OpenCV work without a copy.

Pillow keeps RGB in 4 bytes a pixel, and OpenCV copies an array whose pixels are not next to each
other. So a photo of 200 megapixels is held once: its array (H,W,3) is a part of one of (H,W,4).
"""

import mmap

import numpy as np


def allocate_padded(height: int, width: int) -> np.ndarray:
    """An array of zeros, uint8 (H,W,3), that is a part of one of (H,W,4).

    Its memory is taken from the system page by page, as it is written. Arrays of NumPy take it in
    huge pages, so that writing the first columns would take all of it.
    """
    memory = mmap.mmap(-1, height * width * 4)
    return np.ndarray((height, width, 4), np.uint8, memory)[..., :3]


def is_padded(pixels: np.ndarray) -> bool:
    """Whether an array (H,W,3) is one of `allocate_padded`, as a whole."""
    whole = pixels.base
    return (
        isinstance(whole, np.ndarray)
        and whole.dtype == pixels.dtype == np.uint8
        and whole.shape == (*pixels.shape[:2], 4)
        and whole.strides == pixels.strides
        and whole.ctypes.data == pixels.ctypes.data
    )


def padded_layers(pixels: np.ndarray) -> np.ndarray:
    """The array (H,W,4) that a padded array is a part of; other arrays are returned as they are.

    The fourth layer has no meaning.
    """
    return pixels.base if is_padded(pixels) else pixels  # type: ignore[return-value]
