"""Reading and writing photos: any usual format is read as upright RGB, and written back.

A `Photo` keeps what its file holds beside the pixels (alpha, colour profile, EXIF, JPEG tables,
resolution), so that a result is written with the properties of its source.
"""

import os
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from faceage.errors import OutputError, PhotoError
from faceage.files import check_free, write_file
from faceage.imaging.decoding import Encoded, decode_image, to_8_bit
from faceage.imaging.encoding import encode_picture
from faceage.imaging.metadata import (
    annotation_mark,
    has_several_frames,
    is_lossless,
    is_marked,
    jpeg_settings,
    kept_exif,
    read_dpi,
    synthetic_mark,
    tiff_compression,
)

if TYPE_CHECKING:
    from faceage.imaging.credentials import ContentSigner

try:  # the extra `heif`
    from pillow_heif import register_heif_opener
except ImportError:
    HAS_HEIF = False
else:
    register_heif_opener()
    HAS_HEIF = True

MIN_SIDE = 16  # px; a face needs more
MAX_PIXELS = 200_000_000

# Pillow also knows formats that run other programs (EPS) or have no signature (TGA).
READABLE: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_HEIC = frozenset({".heic", ".heif"})
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
    ".ppm", ".pgm", ".jp2", ".avif",
})  # fmt: skip
# Pictures that Pillow cannot read without further libraries.
UNREADABLE = frozenset({
    ".jxl", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
})  # fmt: skip
if HAS_HEIF:
    READABLE += ("HEIF",)
    SUFFIXES |= _HEIC
else:
    UNREADABLE |= _HEIC
# Formats that hold all colours and have metadata for the synthetic mark.
_WRITABLE = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG",
    ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
_MEDIA_TYPES = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, upright, with what is needed to write a result like its source.

    Attributes:
        pixels: uint8 (H,W,3) RGB.
        alpha: (H,W), uint16 if `deep` is given, else uint8; or None.
        deep: uint16 (H,W,3) RGB of a 16-bit source, whose 8-bit version `pixels` is; or None.
        icc: the colour profile of `pixels`, or None.
        path: the file it was read from, or None.
        format: Pillow's name of the source's format: "JPEG", "PNG", ...
        grey: the source had one colour channel; the three of `pixels` are equal.
        exif: the source's EXIF without orientation and thumbnail, or b"".
        dpi: resolution, or None.
        qtables: a JPEG's quantisation tables, one per component, equal last ones left out.
        subsampling: of a JPEG, in Pillow's numbers: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0.
        progressive: the source was a progressive JPEG.
        lossless: the source's coding was lossless (WebP has both kinds).
        compression: a TIFF's, in Pillow's names.
        several: the file holds more frames or pages; `pixels` is the first.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    deep: np.ndarray | None = None
    icc: bytes | None = None
    path: Path | None = None
    format: str = "PNG"
    grey: bool = False
    exif: bytes = b""
    dpi: tuple[float, float] | None = None
    qtables: tuple[tuple[int, ...], ...] | None = None
    subsampling: int = 0
    progressive: bool = False
    lossless: bool = True
    compression: str = "tiff_adobe_deflate"
    several: bool = False

    @property
    def full(self) -> np.ndarray:
        """The pixels at the source's own depth: `deep`, or else `pixels`."""
        return self.pixels if self.deep is None else self.deep

    @property
    def name(self) -> str:
        """The photo's name in messages."""
        return str(self.path) if self.path else "the photo"

    def derive(self, pixels: np.ndarray) -> "Photo":
        """A crop or sheet made from this photo: keeps the colour profile, not the camera's data."""
        return Photo(pixels, icc=self.icc, path=self.path)


PhotoLike = str | os.PathLike[str] | Image.Image | np.ndarray | Photo


def open_photo(path: str | os.PathLike[str]) -> Photo:
    """Read a photo: the first frame, turned upright by its EXIF orientation.

    Raises:
        PhotoError: missing, a folder, empty, not an image, damaged, smaller than 16 px, or larger
            than 200 megapixels.
    """
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise PhotoError(f"No such photo: {path}.", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise PhotoError(f"Cannot open {path}: {_reason(error)}.", "Check the path.") from error
    if path.is_dir():
        raise PhotoError(f"{path} is a folder, not a photo.", "Name a photo in it.")
    if not path.is_file():
        raise PhotoError(f"{path} is not a regular file.", "Name a photo.")
    if status.st_size == 0:
        raise PhotoError(f"{path} is empty (0 bytes).", "Copy it again from its source.")
    with pillow_settings():
        try:
            with Image.open(path, formats=READABLE) as image:
                return _read(image, path, path)
        except UnidentifiedImageError:
            suffix = path.suffix.lower()
            what = "in a format" if suffix in UNREADABLE else "not an image of a kind"
            hint = "Use JPEG, PNG, WebP, TIFF, AVIF, BMP or GIF."
            if suffix in UNREADABLE & _HEIC:
                hint = "Run pip install 'faceage[heif]', or convert it to JPEG."
            raise PhotoError(f"{path} is {what} that cannot be read.", hint) from None
        except OSError as error:
            if error.errno is not None:  # from the system, not from the decoder
                raise PhotoError(
                    f"Cannot open {path}: {_reason(error)}.", "Check its permissions."
                ) from error
            raise damaged_error(path, error) from error
        except PhotoError:
            raise
        except Exception as error:  # decoders raise all kinds of errors on damaged files
            raise damaged_error(path, error) from error


def read_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> Photo:
    """As `open_photo`, for the bytes of a file.

    Raises:
        PhotoError: not an image, damaged, smaller than 16 px, or of more than `max_pixels`.
    """
    with pillow_settings():
        try:
            with Image.open(BytesIO(data), formats=READABLE) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise PhotoError(
                        f"The photo has {width * height / 1e6:.0f} megapixels; the limit is "
                        f"{max_pixels / 1e6:.0f}.",
                        "Make it smaller first.",
                    )
                return _read(image, data)
        except UnidentifiedImageError:
            raise PhotoError(
                "The photo is not an image of a kind that can be read.",
                "Use JPEG, PNG, WebP, TIFF, AVIF, BMP or GIF.",
            ) from None
        except PhotoError:
            raise
        except Exception as error:  # decoders raise all kinds of errors on damaged files
            raise damaged_error("the photo", error) from error


def is_own_result(path: Path) -> bool:
    """Whether a file says in its metadata that it was made by this program."""
    with pillow_settings():
        try:
            with Image.open(path, formats=READABLE) as image:
                return is_marked(image)
        except Exception:  # whatever is wrong with it, `open_photo` says so
            return False


def as_photo(source: PhotoLike) -> Photo:
    """A `Photo` of a path, a PIL image, or an array (H,W), (H,W,3) RGB or (H,W,4) RGBA.

    Arrays are uint8 or uint16.

    Raises:
        PhotoError: it cannot be opened, is too small or too large, or is an array of another kind.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if not isinstance(source, Image.Image):
        return open_photo(source)
    with pillow_settings():
        try:
            return _read(source)
        except PhotoError:
            raise
        except Exception as error:
            raise damaged_error("the photo", error) from error


def is_writable_suffix(suffix: str) -> bool:
    """Whether results are written in the format of a suffix, such as ".jpg"."""
    return suffix.lower() in _WRITABLE


def media_type(suffix: str) -> str | None:
    """The media type of a writable suffix, such as "image/jpeg"; None of others."""
    return _MEDIA_TYPES.get(_WRITABLE.get(suffix.lower(), ""))


def result_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a result of this photo: the photo's own, or ".png".

    GIF holds too few colours; BMP and others have no metadata for the synthetic mark.
    """
    suffix = Path(path).suffix
    return suffix if is_writable_suffix(suffix) else ".png"


def save_photo(
    photo: Photo,
    pixels: np.ndarray,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    synthetic: Mapping[str, object] | None = None,
    annotated: bool = False,
    keep_private: bool = False,
    signer: "ContentSigner | None" = None,
) -> Path:
    """Write a result like its source, atomically.

    The path's suffix determines the format. Alpha and greyscale are kept when `pixels` has the
    photo's size and is grey.

    Args:
        photo: the source.
        pixels: uint8 or uint16 (H,W,3) RGB, upright; 16 bits are written to PNG and TIFF.
        path: where to; see `result_suffix` for the suffixes that become ".png".
        force: overwrite an existing file.
        synthetic: how a synthetic picture was made, such as {"age": 70, "weights": sha256}, for
            its mark; None for a picture that is not synthetic.
        annotated: mark the picture as one with ages drawn on it.
        keep_private: let the GPS position, serial numbers and the owner's name pass from the
            source into a synthetic picture; others always get them.
        signer: adds Content Credentials (C2PA).

    Returns:
        The path written.

    Raises:
        OutputError: it exists and `force` is off, or it cannot be written.
    """
    path = Path(path)
    path = path.with_suffix(result_suffix(path))
    check_free([path], force)
    try:
        data = encode_photo(
            photo,
            pixels,
            path.suffix,
            synthetic=synthetic,
            annotated=annotated,
            keep_private=keep_private,
        )
    except (OSError, ValueError, struct.error) as error:
        raise OutputError(
            f"Cannot write {path}: {_reason(error)}.", "Try another format, such as .png."
        ) from error
    if signer:
        data = signer.sign(data, path, photo.path)
    return write_file(path, data, force=force)


def encode_photo(
    photo: Photo,
    pixels: np.ndarray,
    suffix: str,
    *,
    synthetic: Mapping[str, object] | None = None,
    annotated: bool = False,
    keep_private: bool = False,
) -> bytes:
    """The bytes of the file that `save_photo` would write.

    Args:
        suffix: one for which `is_writable_suffix` is true; the others are as for `save_photo`.

    Raises:
        OSError, ValueError, struct.error: the format cannot hold the picture.
    """
    mark = annotation_mark() if annotated else {}
    if synthetic is not None:
        mark = synthetic_mark(synthetic)
    keep_private = keep_private or synthetic is None
    return encode_picture(photo, pixels, _WRITABLE[suffix.lower()], mark, keep_private)


def _from_array(array: np.ndarray) -> Photo:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype not in (np.uint8, np.uint16) or not fits or 0 in array.shape:
        raise PhotoError(
            f"An array of {array.dtype} {array.shape} is no photo.", "Give uint8 (H,W,3) RGB."
        )
    check_size("the photo", array.shape[1], array.shape[0])
    grey = array.ndim == 2
    colours = np.repeat(array[..., None], 3, axis=2) if grey else array[..., :3].copy()
    return Photo(
        pixels=to_8_bit(colours),
        deep=colours if array.dtype == np.uint16 else None,
        alpha=None if grey or array.shape[2] == 3 else array[..., 3].copy(),
        grey=grey,
    )


def check_size(name: str, width: int, height: int) -> None:
    """Check that a photo is neither too small nor too large.

    Raises:
        PhotoError: it is.
    """
    if width * height > MAX_PIXELS:
        raise PhotoError(
            f"{name} has {width * height / 1e6:.0f} megapixels; the limit is "
            f"{MAX_PIXELS // 1_000_000}.",
            "Make it smaller first.",
        )
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            f"{name} has only {width}x{height} px.", f"Use a photo of {MIN_SIDE} px at least."
        )


def _read(image: Image.Image, encoded: Encoded | None = None, path: Path | None = None) -> Photo:
    check_size(str(path) if path else "the photo", *image.size)
    source_format = "JPEG" if image.format == "MPO" else image.format or "PNG"
    jpeg, several = jpeg_settings(image), has_several_frames(image)
    decoded = decode_image(image, encoded)
    info, exif = image.info, kept_exif(image)  # some formats give these only after loading
    return Photo(
        pixels=decoded.pixels,
        alpha=decoded.alpha,
        deep=decoded.deep,
        icc=decoded.icc,
        path=path,
        format=source_format,
        grey=decoded.grey,
        exif=exif,
        dpi=read_dpi(info.get("dpi")),
        progressive=bool(info.get("progressive")),
        lossless=is_lossless(image, encoded),
        compression=tiff_compression(info.get("compression")),
        several=several,
        **jpeg,
    )


_PILLOW = threading.Lock()


@contextmanager
def pillow_settings() -> Iterator[None]:
    """Pillow without its warnings and its size limit; `_read` checks the size before decoding.

    Both are settings of the whole process, so they are changed under a lock, and restored.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def damaged_error(name: object, error: Exception) -> PhotoError:
    """The error of a photo whose decoder failed with `error`."""
    return PhotoError(f"{name} is damaged: {_reason(error)}.", "Copy it again from its source.")


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join((text or type(error).__name__).split()).rstrip(".")
