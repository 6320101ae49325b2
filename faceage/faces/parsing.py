"""Face parsing: which pixel of a face is skin, hair, glasses, ..."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from faceage.errors import ConfigError, WeightsError

SIZE = 448  # px
# Classes of CelebAMask-HQ.
GLASSES, MOUTH, HAT = 6, 11, 18
# Skin, brows, eyes, glasses, ears, earrings, nose, mouth, lips, neck, necklace and hair.
HEAD = (*range(1, 16), 17)


class FaceParser:
    """BiSeNet V2 with the 19 classes of CelebAMask-HQ, run by LiteRT.

    Args:
        path: the .tflite file; input 1,448,448,3 RGB in [-1, 1], output labels 448,448.

    Raises:
        ConfigError: LiteRT is not installed.
        WeightsError: the file is missing or of another network.
    """

    def __init__(self, path: str | Path, threads: int = 2) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise ConfigError(
                "Face parsing needs LiteRT.", "Install it: pip install 'faceage[pairs]'"
            ) from None
        try:
            self._interpreter = Interpreter(str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"Cannot read the face parser {path}: {reason}.") from None
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        if tuple(self._input["shape"]) != (1, SIZE, SIZE, 3):
            raise WeightsError(
                f"{path} takes {tuple(self._input['shape'])}, not (1, {SIZE}, {SIZE}, 3).",
                "Give BiSeNet V2 for faces at 448 px.",
            )

    def parse(self, face: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The class of each pixel, (448,448), of an FFHQ crop (S,S,3) RGB."""
        resized = cv2.resize(face, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        self._interpreter.set_tensor(
            self._input["index"], ((resized.astype(np.float32) - 127.5) / 127.5)[None]
        )
        self._interpreter.invoke()
        labels = self._interpreter.get_tensor(self._output["index"])
        return np.asarray(labels).reshape(SIZE, SIZE).astype(np.uint8)
