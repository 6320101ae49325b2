"""The pixels of PIL images of any mode as RGB: 8 bits, and 16 where the file has them."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from faceage.imaging.padding import allocate_padded, padded_layers

_STRIP = 64  # rows that are converted at a time
# Larger JPEGs are decoded by OpenCV, which gives the same pixels, into padded arrays: Pillow needs
# 4 bytes a pixel beside the 3 of other arrays, to read a picture and to write it.
_LARGE_JPEG = 1 << 26  # px

Encoded = Path | bytes  # a picture file, or its content

# What each EXIF orientation asks for, on arrays (H,W,...).
_TO_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
_INVERSE = {6: 8, 8: 6}  # the orientation that undoes another; all others undo themselves


@dataclass(frozen=True, eq=False)
class Decoded:
    """The pixels of an image, upright.

    Attributes:
        pixels: uint8 (H,W,3) RGB.
        deep: uint16 (H,W,3) RGB of a 16-bit image, or None; `pixels` is its 8-bit version.
        alpha: (H,W), uint16 of a 16-bit image, else uint8; or None.
        icc: the image's colour profile if it applies to `pixels`, or None.
        grey: the image had one colour channel.
    """

    pixels: np.ndarray
    deep: np.ndarray | None
    alpha: np.ndarray | None
    icc: bytes | None
    grey: bool


def decode_image(image: Image.Image, encoded: Encoded | None = None) -> Decoded:
    """The pixels of an image of any mode, turned upright by its EXIF orientation.

    Args:
        encoded: its file, from which 16-bit colours are read: Pillow reduces them to 8 bits.
    """
    has_16_bits = encoded is not None and _is_16_bit_colour(image)  # known before loading only
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if encoded is not None and _is_large_jpeg(image):
        large = _decode_jpeg(encoded, orientation, image.size)
        if large is not None:
            icc = image.info.get("icc_profile")
            fits = _colour_space(icc) == b"RGB "
            return Decoded(large, None, None, icc if fits else None, grey=False)
    image.load()
    if orientation in _TO_UPRIGHT:
        image = ImageOps.exif_transpose(image)
    icc = image.info.get("icc_profile")
    alpha, deep = None, None
    one_channel = image.mode in ("I", "F") or image.mode.startswith("I;16")
    grey = one_channel or image.mode in ("1", "L", "LA", "La")
    fits = _colour_space(icc) == (b"GRAY" if grey else b"RGB ")
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        deep = np.repeat(levels[..., None], 3, axis=2)
    elif one_channel:
        image = _to_8_bit_grey(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        image = Image.merge("RGB", image.split()[:3])  # keeps the colours of transparent pixels
    if image.mode in ("CMYK", "LAB"):
        # The file's profile describes CMYK or Lab; RGB without a profile is taken for sRGB.
        return Decoded(np.array(convert_to_srgb(image, icc)), None, alpha, None, grey)
    if deep is None:
        pixels = _to_array(image if image.mode == "RGB" else image.convert("RGB"))
        if encoded is not None and has_16_bits:
            deep, alpha = _read_16_bits(encoded, orientation, pixels, alpha)
    if deep is not None:
        pixels = to_8_bit(deep)
    return Decoded(pixels, deep, alpha, icc if fits else None, grey)


def to_8_bit(levels: np.ndarray) -> np.ndarray:
    """uint16 levels of 0-65535 as uint8 levels of 0-255, rounded; uint8 is returned as it is."""
    if levels.dtype == np.uint8:
        return levels
    rounded = np.empty(levels.shape, np.uint8)
    for top in range(0, len(levels), _STRIP):  # strips need less memory
        rows = slice(top, top + _STRIP)
        rounded[rows] = (levels[rows].astype(np.uint32) + 128) // 257
    return rounded


def _to_array(image: Image.Image) -> np.ndarray:
    """The pixels of an RGB image, uint8 (H,W,3).

    As `np.array(image)`, but strip by strip, which needs half the time and less memory.
    """
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def _is_16_bit_colour(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel in more than one channel."""
    if isinstance(image, PngImagePlugin.PngImageFile) and image.mode in ("RGB", "RGBA", "LA"):
        return bool(image.tile) and str(image.tile[0].args).endswith(";16B")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("RGB", "RGBA"):
        return set(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, ())) == {16}
    return False


def _colour_space(icc: bytes | None) -> bytes:
    """The colour space that a profile describes, such as b"RGB "; b"" without a profile."""
    return icc[16:20] if icc and len(icc) > 128 else b""


def _is_large_jpeg(image: Image.Image) -> bool:
    in_colour = image.format in ("JPEG", "MPO") and image.mode == "RGB"
    return in_colour and image.width * image.height > _LARGE_JPEG


def _decode_jpeg(encoded: Encoded, orientation: int, size: tuple[int, int]) -> np.ndarray | None:
    """The pixels of a JPEG of `size` (W,H) in colour, upright; None if OpenCV cannot decode it.

    The array is padded, see `allocate_padded`.
    """
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    width, height = size
    upright = allocate_padded(*((width, height) if orientation >= 5 else (height, width)))
    memory = None
    if orientation in _TO_UPRIGHT:
        stored = _TO_UPRIGHT[_INVERSE.get(orientation, orientation)](upright)
        # Each strip gives its memory back once it is turned: both arrays are never needed whole.
        memory = mmap.mmap(-1, height * width * 3)
        room = np.frombuffer(memory, np.uint8).reshape(height, width, 3)
    else:  # decoded into the end of the array, and moved to its place from the first row on
        stored = upright
        room = padded_layers(upright).reshape(-1)[height * width :].reshape(height, width, 3)
    pixels = None if isinstance(encoded, bytes) else _read_by_opencv(encoded, flags, room)
    if pixels is None:  # bytes, or a path that OpenCV cannot open, as some on Windows
        pixels = _decode_by_opencv(encoded, flags)
    if pixels is None or pixels.shape != room.shape:
        return None
    for top in range(0, height, _STRIP):
        rows = slice(top, top + _STRIP)
        stored[rows] = pixels[rows, :, ::-1].copy()  # OpenCV's order is BGR
        if memory is not None:
            _release(memory, (top + _STRIP) * width * 3)
    return upright


def _release(memory: mmap.mmap, end: int) -> None:
    """Give the whole pages before the byte `end` back to the system; their content is lost."""
    whole = min(end, len(memory)) // mmap.PAGESIZE * mmap.PAGESIZE
    if whole and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        memory.madvise(mmap.MADV_DONTNEED, 0, whole)


def _decode_by_opencv(encoded: Encoded, flags: int) -> np.ndarray | None:
    import cv2

    with _silent_opencv():
        try:
            if isinstance(encoded, bytes):
                return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
            return cv2.imdecode(np.fromfile(encoded, np.uint8), flags)
        except cv2.error:
            return None


def _read_by_opencv(path: Path, flags: int, pixels: np.ndarray) -> np.ndarray | None:
    """The file's image, in the array `pixels` if that has its shape; None if it is not readable.

    `imdecode` decodes into a matrix of its own and copies that: twice the memory.
    """
    import cv2

    with _silent_opencv():
        try:
            return cv2.imread(str(path), pixels, flags)
        except cv2.error:
            return None


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """OpenCV without the warnings that it prints on stderr."""
    from cv2.utils import logging

    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _read_16_bits(
    encoded: Encoded, orientation: int, pixels: np.ndarray, alpha: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The colours and alpha of a 16-bit file by OpenCV; None and `alpha` if it reads others.

    Args:
        pixels, alpha: what Pillow reads, the high bytes.
    """
    import cv2

    stored = _decode_by_opencv(encoded, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 3:
        return None, alpha
    # OpenCV turns some files upright and others not.
    turned = _TO_UPRIGHT[orientation](stored) if orientation in _TO_UPRIGHT else stored
    for upright in (stored, turned):
        deep = np.ascontiguousarray(upright[..., 2::-1])
        if deep.shape == pixels.shape and np.array_equal(deep >> 8, pixels):
            if alpha is not None and upright.shape[2] == 4:
                alpha = np.ascontiguousarray(upright[..., 3])
            return deep, alpha
    return None, alpha


def _to_8_bit_grey(image: Image.Image) -> Image.Image:
    """Greyscale of 32 bits or floating point as 8 bits."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    largest = float(values.max())
    if image.mode == "F":
        # The format does not define white: most files use 1, some 255.
        white = 1.0 if largest <= 1 else max(largest, 255.0)
    else:
        white = 255.0 if largest <= 255 else max(largest, 65535.0)
    return Image.fromarray(np.clip(np.rint(values / white * 255), 0, 255).astype(np.uint8))


def convert_to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """RGB, CMYK or Lab as sRGB, by the file's own profile if it has a usable one."""
    spaces = {"RGB": b"RGB ", "CMYK": b"CMYK"}
    target = ImageCms.createProfile("sRGB")
    try:
        if image.mode == "LAB":
            source: Any = ImageCms.createProfile("LAB")
        elif icc and _colour_space(icc) == spaces[image.mode]:
            source = ImageCms.ImageCmsProfile(BytesIO(icc))
        else:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")
    assert converted is not None  # None only when converting in place
    return converted
