"""Where the head is in a face crop: a small network that OpenCV runs."""

import threading
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from faceage import hub
from faceage.errors import WeightsError
from faceage.faces.alignment import resize_crop

SIZE = 128  # px; side of the network's input and output


def segment_head(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The probability of each pixel to be head: skin, hair, ears, neck or glasses.

    Background, clothes and hats are not head. The mean over the crop and its mirror image.

    Args:
        crop: an FFHQ crop, uint8 (S,S,3) RGB.

    Returns:
        (128,128), from 0 to 1.

    Raises:
        WeightsError: the network's file is missing or damaged.
    """
    network, lock = _load()
    resized = resize_crop(crop, SIZE)
    views = []
    for view in (resized, resized[:, ::-1]):
        inputs = cv2.dnn.blobFromImage(view, 1 / 127.5, mean=(127.5, 127.5, 127.5))
        with lock:  # a network of OpenCV holds its input and output
            network.setInput(inputs)
            views.append(network.forward()[0, 0].copy())
    mean: NDArray[np.float32] = (views[0] + views[1][:, ::-1]) / 2
    return mean


@cache
def _load() -> tuple[cv2.dnn.Net, threading.Lock]:
    path = hub.find("head-segmenter")
    try:
        return cv2.dnn.readNetFromONNX(str(path)), threading.Lock()
    except cv2.error as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path} is damaged ({reason}).", "Reinstall the package.") from None
