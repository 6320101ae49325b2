"""What a picture file holds beside its pixels: EXIF, coding parameters, the synthetic mark."""

import math
import os
from collections.abc import Mapping
from io import BytesIO
from typing import Any, BinaryIO

from PIL import ExifTags, Image, JpegImagePlugin

from faceage import __version__
from faceage.imaging.decoding import Encoded

_TAG = ExifTags.Base
# Only these are kept, because the EXIF of a TIFF also describes how its pixels are stored. The
# thumbnail and the maker's note (which may hold a preview) show the unchanged face: they are not.
_KEPT_TAGS = (
    _TAG.Make, _TAG.Model, _TAG.DateTime, _TAG.Artist, _TAG.Copyright, _TAG.HostComputer,
    _TAG.ImageDescription, _TAG.Rating, _TAG.XPTitle, _TAG.XPComment, _TAG.XPAuthor,
    _TAG.XPKeywords, _TAG.XPSubject,
)  # fmt: skip
# The two sizes are those before the photo was turned upright.
_DROPPED_SUBTAGS = (
    _TAG.MakerNote, _TAG.ExifInteroperabilityOffset, _TAG.ExifImageWidth, _TAG.ExifImageHeight,
)  # fmt: skip
# What tells where the photo was taken and who owns the camera.
_PRIVATE_TAGS = (_TAG.HostComputer, ExifTags.IFD.GPSInfo)
_PRIVATE_SUBTAGS = (
    _TAG.BodySerialNumber, _TAG.LensSerialNumber, _TAG.CameraOwnerName, _TAG.ImageUniqueID,
)  # fmt: skip
_SYNTHETIC, _ANNOTATED = "Synthetic image made by faceage", "Ages drawn by faceage"


def kept_exif(image: Image.Image) -> bytes:
    """An image's EXIF without orientation, thumbnail and maker's note; b"" if nothing is left."""
    kept = Image.Exif()
    try:
        source = image.getexif()
        for tag in _KEPT_TAGS:
            if tag in source and _is_writable({tag: source[tag]}):
                kept[tag] = source[tag]
        for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            entries = {
                tag: value
                for tag, value in source.get_ifd(ifd).items()
                if (ifd == ExifTags.IFD.GPSInfo or tag not in _DROPPED_SUBTAGS)
                and _is_writable({ifd: {tag: value}})
            }
            if entries:
                kept[ifd] = entries
        return kept.tobytes() if len(kept) else b""
    except Exception:  # malformed EXIF is common, and no reason to refuse the photo
        return b""


def synthetic_mark(details: Mapping[str, object]) -> dict[str, str]:
    """The EXIF and PNG texts that say that a picture is synthetic, and how it was made.

    Args:
        details: such as {"age": 70, "weights": sha256}.
    """
    text = ", ".join(f"{key}={value}" for key, value in details.items())
    return _make_mark(_SYNTHETIC, f": {text}" if text else "")


def annotation_mark() -> dict[str, str]:
    """The same of a photo with ages drawn on it."""
    return _make_mark(_ANNOTATED)


def is_marked(image: Image.Image) -> bool:
    """Whether an image, not loaded yet, says that it is a result of this program."""
    if image.format == "PNG":  # whose EXIF stands behind the pixels
        description = image.info.get("Description")
    elif image.format == "GIF":
        description = image.info.get("comment", b"").decode("ascii", "replace")
    else:
        description = image.getexif().get(_TAG.ImageDescription)
    return str(description).startswith((_SYNTHETIC, _ANNOTATED))


def make_exif(kept: bytes, mark: Mapping[str, str], keep_private: bool) -> Image.Exif:
    """The EXIF of a result.

    Args:
        kept: of the source, from `kept_exif`.
        mark: from `synthetic_mark` or `annotation_mark`, or empty.
        keep_private: with the GPS position, serial numbers and the owner's name of the source.
    """
    exif = Image.Exif()
    if kept:
        exif.load(kept)
    if not keep_private:
        for tag in _PRIVATE_TAGS:
            if tag in exif:
                del exif[tag]
        camera = exif.get_ifd(ExifTags.IFD.Exif)
        for tag in _PRIVATE_SUBTAGS:
            camera.pop(tag, None)
    exif[_TAG.Orientation] = 1
    if mark:
        before = str(exif.get(_TAG.ImageDescription, "")).strip()
        # The source's own description stays, unless it is an earlier mark.
        after = "" if not before or before.startswith((_SYNTHETIC, _ANNOTATED)) else f" | {before}"
        exif[_TAG.Software] = mark["Software"]
        exif[_TAG.ImageDescription] = mark["Description"] + after
    return exif


def has_several_frames(image: Image.Image) -> bool:
    """Whether an image has several frames or pages; further views in a JPEG are none."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # damaged after the first frame
        return False


def jpeg_settings(image: Image.Image) -> dict[str, Any]:
    """A JPEG's `qtables` (by component: Y, Cb, Cr) and `subsampling`; {} for other formats."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return {}
    tables = image.quantization
    # The result is written as RGB: the fourth component of CMYK is left out.
    order = [layer[3] for layer in image.layer[:3]]
    if not order or any(index not in tables for index in order):
        return {}
    while len(order) > 1 and order[-1] == order[-2]:
        order.pop()
    sampling = JpegImagePlugin.get_sampling(image)
    return {
        "qtables": tuple(tuple(tables[index]) for index in order),
        "subsampling": max(sampling, 0),  # unknown to Pillow: 4:4:4, which loses no colour
    }


def is_lossless(image: Image.Image, encoded: Encoded | None) -> bool:
    """Whether an image's file is coded without loss; a WebP whose file is not given: no."""
    if image.format == "WEBP" and encoded is not None:
        with BytesIO(encoded) if isinstance(encoded, bytes) else encoded.open("rb") as file:
            return _is_lossless_webp(file)
    return image.format not in ("JPEG", "MPO", "WEBP")


def read_dpi(value: Any) -> tuple[float, float] | None:
    """The resolution, or None if it is missing or not usable."""
    try:
        x, y = (float(v) for v in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(v) and 1 <= v < 65535 for v in (x, y)) else None


def tiff_compression(value: Any) -> str:
    """A TIFF's compression if it is lossless and allows RGB, else deflate."""
    known = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate")
    return value if value in known else "tiff_adobe_deflate"


def _make_mark(text: str, details: str = "") -> dict[str, str]:
    description = f"{text} {__version__}{details}"
    return {
        "Software": f"faceage {__version__}",
        "Description": description.encode("ascii", "replace").decode(),
    }


def _is_writable(entries: dict[int, Any]) -> bool:
    """Whether Pillow can write these EXIF entries; it cannot write those of some cameras."""
    exif = Image.Exif()
    exif.update(entries)
    try:
        exif.tobytes()
    except Exception:
        return False
    return True


def _is_lossless_webp(file: BinaryIO) -> bool:
    """Whether the (first) picture in a WebP file is coded as VP8L."""
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
