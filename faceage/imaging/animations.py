"""Reading animated GIF and WebP."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from faceage.errors import PhotoError
from faceage.imaging.decoding import decode_image
from faceage.imaging.metadata import is_lossless
from faceage.imaging.photos import check_size, damaged_error, pillow_settings

FORMATS = {".gif": "GIF", ".webp": "WEBP"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of an animation, complete: what the file leaves out as unchanged is filled in.

    Attributes:
        pixels: uint8 (H,W,3) RGB.
        alpha: uint8 (H,W), or None if all of it is opaque.
        seconds: how long it is shown.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    seconds: float


@dataclass(frozen=True)
class AnimationInfo:
    """What an animation's file holds beside the frames.

    Attributes:
        count: of frames.
        plays: number of times it is shown; 0 is without end.
        lossless: the coding was lossless.
        icc: the colour profile, or None.
    """

    count: int
    plays: int
    lossless: bool
    icc: bytes | None


def is_animation(path: Path) -> bool:
    """Whether a file is a GIF or WebP of several frames."""
    if path.suffix.lower() not in FORMATS:
        return False
    try:
        return read_animation_info(path).count > 1
    except PhotoError:  # reading it as a photo reports the error
        return False


def read_animation_info(path: Path) -> AnimationInfo:
    """The properties of an animation.

    Raises:
        PhotoError: it cannot be read, or is too large.
    """
    with pillow_settings():
        try:
            with Image.open(path, formats=list(FORMATS.values())) as image:
                check_size(str(path), *image.size)
                loop = image.info.get("loop")
                plays = loop or 0
                if image.format == "GIF":  # it states the repetitions, or nothing for none
                    plays = 1 if loop is None else loop + 1 if loop else 0
                return AnimationInfo(
                    getattr(image, "n_frames", 1),
                    plays,
                    is_lossless(image, path),
                    image.info.get("icc_profile"),
                )
        except UnidentifiedImageError:
            raise PhotoError(f"{path} is no GIF or WebP.", "Use another file.") from None
        except PhotoError:
            raise
        except Exception as error:  # decoders raise all kinds of errors on damaged files
            raise damaged_error(path, error) from error


def read_animation(path: Path) -> Iterator[Frame]:
    """The frames of an animation.

    Raises:
        PhotoError: it cannot be read.
    """
    try:
        with pillow_settings():
            image = Image.open(path, formats=list(FORMATS.values()))
        with image:
            for index in range(getattr(image, "n_frames", 1)):
                with pillow_settings():
                    image.seek(index)
                    decoded = decode_image(image.copy())
                seconds = image.info.get("duration", 0) / 1000  # known after decoding
                alpha = decoded.alpha
                opaque = alpha is None or alpha.min() == 255
                yield Frame(decoded.pixels, None if opaque else alpha, seconds)
    except Exception as error:
        raise damaged_error(path, error) from error
