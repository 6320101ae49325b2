"""A photo as an animation: its faces pass through the ages."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from faceage.api import MAX_AHEAD, Aged, FaceAger
from faceage.faces.selection import NumberedFace
from faceage.files import replace_file, write_file
from faceage.imaging.animations import FORMATS
from faceage.imaging.decoding import convert_to_srgb
from faceage.imaging.encoding import encode_animation
from faceage.imaging.metadata import synthetic_mark
from faceage.imaging.photos import Photo
from faceage.inference.backend import Pixels
from faceage.video.containers import write_silent

STEP = 2  # years between frames
RATE = 12  # frames per second
HOLD = 9  # frames for which the first and the last age are shown
MAX_SIDE = 1280  # px; larger photos are reduced


def animate_photo(
    ager: FaceAger,
    photo: Photo,
    found: Sequence[NumberedFace],
    ages: Sequence[float],
    file: Path,
) -> None:
    """Write an animation of a photo whose faces pass through the ages, one a frame.

    It is in sRGB, on white where the photo is transparent, and repeats without end if it is a GIF
    or WebP.

    Args:
        found: the faces that are changed.
        ages: years.
        file: .gif, .webp, or a suffix of `containers.CONTAINERS`; it is replaced if it exists.

    Raises:
        OutputError: it cannot be written.
    """
    title = f"{ages[0]:g} to {ages[-1]:g}"
    mark = synthetic_mark({"age": title, "weights": ager.weights_sha[:16]})
    in_place = photo.full.nbytes >= MAX_AHEAD
    aged = ager.iter_age(photo, ages, found, in_place)
    frames = _hold_ends(_make_frame(result, photo.icc) for result in aged)
    if format_name := FORMATS.get(file.suffix.lower()):
        images = [Image.fromarray(pixels) for pixels in frames]
        write_file(file, encode_animation(images, 1 / RATE, mark, format_name), force=True)
    else:
        write = partial(write_silent, suffix=file.suffix, frames=frames, rate=RATE, mark=mark)
        replace_file(file, write)


def _make_frame(aged: Aged, icc: bytes | None) -> Pixels:
    """A result as a frame: at most `MAX_SIDE` large, with even sides, opaque, in sRGB."""
    image = aged.photo
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    pixels = np.array(convert_to_srgb(image, icc))
    height, width = pixels.shape[:2]
    return np.ascontiguousarray(pixels[: height - height % 2, : width - width % 2])


def _hold_ends(frames: Iterator[Pixels]) -> Iterator[Pixels]:
    """The frames, the first and the last of them `HOLD` times."""
    pixels = next(frames)
    yield from [pixels] * HOLD
    for pixels in frames:
        yield pixels
    yield from [pixels] * (HOLD - 1)
