"""Photos in and out: any usual picture becomes upright 8-bit RGB, and goes back as it came.

What the file said beside its pixels (alpha, ICC profile, EXIF, JPEG tables, resolution) stays with
the `Photo`, so that a result can be written like its source.
"""

import glob
import os
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from faceage import __version__
from faceage.errors import OutputError, PhotoError
from faceage.files import check_free, write_file
from faceage.imaging.metadata import (
    is_lossless,
    jpeg_settings,
    kept_exif,
    read_dpi,
    tiff_compression,
    to_rgb,
)

MIN_SIDE = 16  # px; below this there is no face to speak of
MAX_PIXELS = 200_000_000

# Only these are tried: Pillow also knows formats that run other programs (EPS) or guess (TGA).
READABLE = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
    ".ppm", ".pgm", ".jp2", ".avif",
})  # fmt: skip
# Results are written in formats that hold all colours and can say that they are synthetic.
_WRITABLE = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG",
    ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip

_TAG = ExifTags.Base


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, upright, with what is needed to write a result like its source.

    Attributes:
        pixels: uint8 (H,W,3) RGB.
        alpha: uint8 (H,W), or None.
        icc: the colour profile of `pixels`, or None.
        path: the file it came from, or None.
        format: Pillow's name of the source's format: "JPEG", "PNG", ...
        grey: the source had one colour channel; all three of `pixels` are alike.
        exif: what stays of the source's EXIF, without orientation and thumbnail; or b"".
        dpi: resolution, or None.
        qtables: a JPEG's quantisation tables, one per component, last ones alike left out.
        subsampling: of a JPEG, as Pillow counts it: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0.
        progressive: the source was a progressive JPEG.
        lossless: the source's coding lost nothing (matters for WebP, which has both).
        compression: a TIFF's, as Pillow names it.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
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

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return str(self.path) if self.path else "the photo"


def open_photo(path: str | os.PathLike[str]) -> Photo:
    """Read a photo: the first frame, turned upright by its EXIF orientation, as 8-bit RGB.

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
    with _pillow():
        try:
            with Image.open(path, formats=READABLE) as image:
                return _read(image, path, is_lossless(image, path))
        except Image.UnidentifiedImageError:
            raise PhotoError(
                f"{path} is not an image of a known kind.",
                "Use JPEG, PNG, WebP, TIFF, AVIF, BMP or GIF.",
            ) from None
        except OSError as error:
            if error.errno is not None:  # the system's, not the decoder's
                raise PhotoError(
                    f"Cannot open {path}: {_reason(error)}.", "Check its permissions."
                ) from error
            raise _damaged(path, error) from error
        except PhotoError:
            raise
        except Exception as error:  # decoders meet damaged files with errors of every kind
            raise _damaged(path, error) from error


def as_photo(source: str | os.PathLike[str] | Image.Image | np.ndarray | Photo) -> Photo:
    """A `Photo` of a path, a PIL image, or a uint8 array (H,W), (H,W,3) RGB or (H,W,4) RGBA.

    Raises:
        PhotoError: it cannot be opened, is too small or too large, or is an array of another kind.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, np.ndarray):
        fits = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))
        if source.dtype != np.uint8 or not fits or 0 in source.shape:
            raise PhotoError(
                f"An array of {source.dtype} {source.shape} is no photo.", "Give uint8 (H,W,3) RGB."
            )
        source = Image.fromarray(np.ascontiguousarray(source))
    if not isinstance(source, Image.Image):
        return open_photo(source)
    with _pillow():
        try:
            return _read(source, None, source.format not in ("JPEG", "MPO", "WEBP"))
        except PhotoError:
            raise
        except Exception as error:
            raise _damaged("the photo", error) from error


def find_photos(arguments: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The photos meant by files, folders (their images, sorted) and globs, each once.

    A file that does not exist stays in the list: opening it fails then, and the rest goes on.

    Raises:
        PhotoError: a folder or a glob has no images.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(argument)
        try:
            is_folder, exists = path.is_dir(), path.exists()
            if is_folder:
                matches = sorted(filter(_looks_like_photo, path.iterdir()))
            elif not exists and glob.has_magic(str(argument)):
                matches = sorted(Path(m) for m in glob.glob(str(argument), recursive=True))  # noqa: PTH207
                matches = list(filter(_looks_like_photo, matches))
            else:
                found[path] = None
                continue
        except (OSError, ValueError) as error:
            raise PhotoError(f"Cannot open {path}: {_reason(error)}.", "Check the path.") from error
        if not matches:
            kind = "The folder" if is_folder else "The pattern"
            raise PhotoError(f"{kind} {argument} has no photos.", "Name JPEG, PNG, WebP... files.")
        found.update(dict.fromkeys(matches))
    return list(found)


def result_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix a result of this photo is written with: its own, or ".png".

    GIF holds too few colours, and BMP and others cannot say that a picture is synthetic.
    """
    suffix = Path(path).suffix
    return suffix if suffix.lower() in _WRITABLE else ".png"


def save_photo(
    photo: Photo,
    pixels: np.ndarray,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    synthetic: Mapping[str, object] | None = None,
) -> Path:
    """Write a result like its source, in one go: the whole file is there, or nothing.

    The path's suffix says the format. Alpha and greyscale are kept when `pixels` has the photo's
    size and is grey.

    Args:
        photo: the source.
        pixels: uint8 (H,W,3) RGB, upright.
        path: where to; see `result_suffix` for the suffixes that become ".png".
        force: overwrite what is there.
        synthetic: what to say of how it was made, such as {"age": 70, "weights": sha}; None for
            a picture that shows nothing synthetic.

    Returns:
        The path written.

    Raises:
        OutputError: it exists and `force` is off, or it cannot be written.
    """
    path = Path(path)
    path = path.with_suffix(result_suffix(path))
    check_free([path], force)
    try:
        data = _encode(photo, pixels, _WRITABLE[path.suffix.lower()], synthetic)
    except (OSError, ValueError, struct.error) as error:
        raise OutputError(
            f"Cannot write {path}: {_reason(error)}.", "Try another format, such as .png."
        ) from error
    return write_file(path, data, force=force)


# --- reading ---------------------------------------------------------------------------------


def _read(image: Image.Image, path: Path | None, lossless: bool) -> Photo:
    name = str(path) if path else "the photo"
    width, height = image.size
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
    source_format = "JPEG" if image.format == "MPO" else image.format or "PNG"
    jpeg = jpeg_settings(image)
    upright = ImageOps.exif_transpose(image)  # loads all pixels
    info, exif = image.info, kept_exif(image)  # of some formats known only now
    colours = to_rgb(upright)
    return Photo(
        pixels=colours.pixels,
        alpha=colours.alpha,
        icc=colours.icc,
        path=path,
        format=source_format,
        grey=colours.grey,
        exif=exif,
        dpi=read_dpi(info.get("dpi")),
        progressive=bool(info.get("progressive")),
        lossless=lossless,
        compression=tiff_compression(info.get("compression")),
        **jpeg,
    )


# --- writing ---------------------------------------------------------------------------------


def _encode(
    photo: Photo, pixels: np.ndarray, kind: str, synthetic: Mapping[str, object] | None
) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels of {pixels.dtype} {pixels.shape}, not uint8 (H,W,3)")
    image, grey = Image.fromarray(np.ascontiguousarray(pixels)), False
    if photo.grey and kind != "WEBP" and np.array_equal(pixels, _grey(pixels)):
        image, grey = Image.fromarray(np.ascontiguousarray(pixels[..., 0])), True
    if photo.alpha is not None and photo.alpha.shape == pixels.shape[:2] and kind != "JPEG":
        image.putalpha(Image.fromarray(photo.alpha))

    options: dict[str, Any] = {}
    if photo.icc and (grey or photo.icc[16:20] == b"RGB "):
        options["icc_profile"] = photo.icc
    if photo.dpi and kind != "WEBP":
        options["dpi"] = photo.dpi
    mark = _mark(synthetic) if synthetic is not None else {}
    options["exif"] = _exif(photo, mark)
    if kind == "JPEG":
        options |= {"progressive": photo.progressive, "subsampling": photo.subsampling}
        if photo.qtables:
            options["qtables"] = [list(table) for table in photo.qtables]
        else:
            options["quality"] = 95
        if len(options["exif"].tobytes()) > 65000:  # a JPEG has no room for more
            options["exif"] = _exif(Photo(pixels), mark)
    elif kind == "PNG":
        options["pnginfo"] = text = PngImagePlugin.PngInfo()
        for key, value in mark.items():
            text.add_text(key, value)
    elif kind == "WEBP":
        # `exact` keeps the colours under transparent pixels.
        options |= {"lossless": photo.lossless, "exact": True, "method": 4}
        options["quality"] = 80 if photo.lossless else 95  # of a lossless one: the effort
    elif kind == "TIFF":
        options["compression"] = photo.compression
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _grey(pixels: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pixels[..., :1], pixels.shape)


def _mark(synthetic: Mapping[str, object]) -> dict[str, str]:
    said = ", ".join(f"{key}={value}" for key, value in synthetic.items())
    description = f"Synthetic image made by faceage {__version__}" + (f": {said}" if said else "")
    return {
        "Software": f"faceage {__version__}",
        "Description": description.encode("ascii", "replace").decode(),
    }


def _exif(photo: Photo, mark: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    if photo.exif:
        exif.load(photo.exif)
    exif[_TAG.Orientation] = 1
    if mark:
        before = str(exif.get(_TAG.ImageDescription, "")).strip()
        # The source's own words stay, unless they are an earlier mark.
        after = "" if not before or before.startswith("Synthetic image") else f" | {before}"
        exif[_TAG.Software] = mark["Software"]
        exif[_TAG.ImageDescription] = mark["Description"] + after
    return exif


# --- small helpers ---------------------------------------------------------------------------

_PILLOW = threading.Lock()


@contextmanager
def _pillow() -> Iterator[None]:
    """Pillow without its warnings and its size limit: ours is checked before pixels are read.

    Both are settings of the whole process, so they change under a lock and only for a while.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _looks_like_photo(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _damaged(name: object, error: Exception) -> PhotoError:
    return PhotoError(f"{name} is damaged: {_reason(error)}.", "Copy it again from its source.")


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join((text or type(error).__name__).split()).rstrip(".")
