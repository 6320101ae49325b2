"""The pixels of PIL images of any mode as 8-bit RGB."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms


@dataclass(frozen=True, eq=False)
class Decoded:
    """The pixels of an image.

    Attributes:
        pixels: uint8 (H,W,3) RGB.
        alpha: uint8 (H,W), or None.
        icc: the image's colour profile if it applies to `pixels`, or None.
        grey: the image had one colour channel.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    icc: bytes | None
    grey: bool


def decode_image(image: Image.Image) -> Decoded:
    """The pixels of an image of any mode, as 8-bit RGB."""
    icc = image.info.get("icc_profile")
    space = icc[16:20] if icc and len(icc) > 128 else b""
    alpha = None
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    grey = deep or image.mode in ("1", "L", "LA", "La")
    if deep:
        image = _to_8_bit(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        image = Image.merge("RGB", image.split()[:3])  # keeps the colours of transparent pixels
    if image.mode in ("CMYK", "LAB"):
        # The file's profile describes CMYK or Lab; RGB without a profile is taken for sRGB.
        return Decoded(np.array(_convert_to_srgb(image, icc)), alpha, None, grey)
    fits = space == (b"GRAY" if grey else b"RGB ")
    # np.array copies: np.asarray of an image is read-only.
    return Decoded(np.array(image.convert("RGB")), alpha, icc if fits else None, grey)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits or floating point as 8 bits."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    largest = float(values.max())
    if image.mode == "F":
        # The format does not define white: most files use 1, some 255.
        white = 1.0 if largest <= 1 else max(largest, 255.0)
    elif image.mode == "I" and largest <= 255:
        white = 255.0
    else:
        white = max(largest, 65535.0) if image.mode == "I" else 65535.0
    return Image.fromarray(np.clip(np.rint(values / white * 255), 0, 255).astype(np.uint8))


def _convert_to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """CMYK or Lab as sRGB, by the file's own profile if it has a usable one."""
    target = ImageCms.createProfile("sRGB")
    try:
        if image.mode == "LAB":
            source: Any = ImageCms.createProfile("LAB")
        elif icc and icc[16:20] == b"CMYK":
            source = ImageCms.ImageCmsProfile(BytesIO(icc))
        else:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")
    assert converted is not None  # None only when converting in place
    return converted
