"""What a file says beside its pixels, and its pixels as 8-bit RGB: plain values from PIL images."""

import math
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin

_TAG = ExifTags.Base
# A list of what stays, as a TIFF's EXIF also says how its pixels are stored. The thumbnail and the
# maker's note (which may hold a preview) show the old face and are left behind.
_KEPT_TAGS = (
    _TAG.Make, _TAG.Model, _TAG.DateTime, _TAG.Artist, _TAG.Copyright, _TAG.HostComputer,
    _TAG.ImageDescription, _TAG.Rating, _TAG.XPTitle, _TAG.XPComment, _TAG.XPAuthor,
    _TAG.XPKeywords, _TAG.XPSubject,
)  # fmt: skip
# The pixel sizes are of the photo before it was turned upright.
_DROPPED_SUBTAGS = (
    _TAG.MakerNote, _TAG.ExifInteroperabilityOffset, _TAG.ExifImageWidth, _TAG.ExifImageHeight,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Colours:
    """What an image shows: uint8 `pixels` (H,W,3) RGB, and `alpha` (H,W) or None.

    `icc` is the profile if it fits them; `grey` says that the image had one colour channel.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    icc: bytes | None
    grey: bool


def to_rgb(image: Image.Image) -> Colours:
    """The colours of an image of any mode, as 8-bit RGB."""
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
        image = Image.merge("RGB", image.split()[:3])  # also under transparent pixels
    if image.mode in ("CMYK", "LAB"):
        # The profile does not fit RGB any more; without its own one, RGB means sRGB.
        return Colours(np.array(_convert_by_profile(image, icc)), alpha, None, grey)
    fits = space == (b"GRAY" if grey else b"RGB ")
    # np.array copies: an array of the image's own memory would be read-only.
    return Colours(np.array(image.convert("RGB")), alpha, icc if fits else None, grey)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits or floating point as 8 bits."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    largest = float(values.max())
    if image.mode == "F":
        # No rule says what white is: 1 in most files, 255 in some.
        white = 1.0 if largest <= 1 else max(largest, 255.0)
    elif image.mode == "I" and largest <= 255:
        white = 255.0
    else:
        white = max(largest, 65535.0) if image.mode == "I" else 65535.0
    return Image.fromarray(np.clip(np.rint(values / white * 255), 0, 255).astype(np.uint8))


def _convert_by_profile(image: Image.Image, icc: bytes | None) -> Image.Image:
    """CMYK or Lab as sRGB, by the file's own profile where it has a usable one."""
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


def jpeg_settings(image: Image.Image) -> dict[str, Any]:
    """A JPEG's `qtables` (by component: Y, Cb, Cr) and `subsampling`; {} of other formats."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return {}
    tables = image.quantization
    # Only components that exist in the RGB written back: the fourth of CMYK is left out.
    order = [layer[3] for layer in image.layer[:3]]
    if not order or any(index not in tables for index in order):
        return {}
    while len(order) > 1 and order[-1] == order[-2]:
        order.pop()
    sampling = JpegImagePlugin.get_sampling(image)
    return {
        "qtables": tuple(tuple(tables[index]) for index in order),
        "subsampling": max(sampling, 0),  # an unusual one, unknown to Pillow: lose no colour
    }


def kept_exif(image: Image.Image) -> bytes:
    """What is kept of an image's EXIF, or b"": no orientation, thumbnail or maker's note."""
    kept = Image.Exif()
    try:
        source = image.getexif()
        for tag in _KEPT_TAGS:
            if tag in source and _fits({tag: source[tag]}):
                kept[tag] = source[tag]
        for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            entries = {
                tag: value
                for tag, value in source.get_ifd(ifd).items()
                if (ifd == ExifTags.IFD.GPSInfo or tag not in _DROPPED_SUBTAGS)
                and _fits({ifd: {tag: value}})
            }
            if entries:
                kept[ifd] = entries
        return kept.tobytes() if len(kept) else b""
    except Exception:  # EXIF is often malformed, and no reason to refuse the photo
        return b""


def _fits(entries: dict[int, Any]) -> bool:
    """Whether EXIF entries can be written back; those of some cameras cannot."""
    exif = Image.Exif()
    exif.update(entries)
    try:
        exif.tobytes()
    except Exception:
        return False
    return True


def is_lossless(image: Image.Image, path: Path) -> bool:
    """Whether the file's coding lost nothing of the pixels."""
    if image.format == "WEBP":
        return _webp_is_lossless(path)
    return image.format not in ("JPEG", "MPO")


def _webp_is_lossless(path: Path) -> bool:
    """Whether the (first) picture in a WebP file is coded as VP8L."""
    with path.open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            kind, size = header[:4], int.from_bytes(header[4:], "little")
            if kind in (b"VP8L", b"VP8 "):
                return kind == b"VP8L"
            if kind == b"ANMF":  # a frame: 16 bytes, then chunks of its own
                file.seek(16, os.SEEK_CUR)
            else:
                file.seek(size + size % 2, os.SEEK_CUR)
    return False


def read_dpi(value: Any) -> tuple[float, float] | None:
    """The resolution, or None when it is missing or nonsense."""
    try:
        x, y = (float(v) for v in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(v) and 1 <= v < 65535 for v in (x, y)) else None


def tiff_compression(value: Any) -> str:
    """A TIFF's compression if it loses nothing and takes RGB, or else deflate."""
    known = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate")
    return value if value in known else "tiff_adobe_deflate"
