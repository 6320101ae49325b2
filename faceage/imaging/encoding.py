"""Pixels and metadata as the bytes of a JPEG, PNG, WebP or TIFF file."""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin

from faceage.imaging.metadata import make_exif

if TYPE_CHECKING:
    from faceage.imaging.photos import Photo

_MAX_JPEG_EXIF = 65000  # bytes; a JPEG segment holds 65535 with its header


def encode_picture(
    photo: "Photo", pixels: np.ndarray, format_name: str, mark: Mapping[str, str]
) -> bytes:
    """A result coded like its source.

    Args:
        photo: the source, whose profile, EXIF and coding parameters are taken over.
        pixels: uint8 (H,W,3) RGB.
        format_name: "JPEG", "PNG", "WEBP" or "TIFF".
        mark: from `synthetic_mark`, or empty.

    Raises:
        ValueError: `pixels` has another type or shape.
        OSError, struct.error: the format cannot hold the picture.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels of {pixels.dtype} {pixels.shape}, not uint8 (H,W,3)")
    image, grey = Image.fromarray(np.ascontiguousarray(pixels)), False
    if photo.grey and format_name != "WEBP" and _is_grey(pixels):
        image, grey = Image.fromarray(np.ascontiguousarray(pixels[..., 0])), True
    if photo.alpha is not None and photo.alpha.shape == pixels.shape[:2] and format_name != "JPEG":
        image.putalpha(Image.fromarray(photo.alpha))

    options: dict[str, Any] = {"exif": make_exif(photo.exif, mark)}
    if photo.icc and (grey or photo.icc[16:20] == b"RGB "):
        options["icc_profile"] = photo.icc
    if photo.dpi and format_name != "WEBP":
        options["dpi"] = photo.dpi
    if format_name == "JPEG":
        options |= {"progressive": photo.progressive, "subsampling": photo.subsampling}
        if photo.qtables:
            options["qtables"] = [list(table) for table in photo.qtables]
        else:
            options["quality"] = 95
        if len(options["exif"].tobytes()) > _MAX_JPEG_EXIF:
            options["exif"] = make_exif(b"", mark)
    elif format_name == "PNG":
        options["pnginfo"] = text = PngImagePlugin.PngInfo()
        for key, value in mark.items():
            text.add_text(key, value)
    elif format_name == "WEBP":
        # `exact` keeps the colours of transparent pixels.
        options |= {"lossless": photo.lossless, "exact": True, "method": 4}
        options["quality"] = 80 if photo.lossless else 95  # the effort, if lossless
    elif format_name == "TIFF":
        options["compression"] = photo.compression
    buffer = BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()


def _is_grey(pixels: np.ndarray) -> bool:
    return np.array_equal(pixels, np.broadcast_to(pixels[..., :1], pixels.shape))
