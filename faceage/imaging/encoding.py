"""Pixels and metadata as the bytes of a JPEG, PNG, WebP or TIFF file, or of an animation."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin

from faceage.imaging.decoding import to_8_bit
from faceage.imaging.metadata import make_exif
from faceage.imaging.padding import is_padded, padded_layers

if TYPE_CHECKING:
    from faceage.imaging.photos import Photo

_MAX_JPEG_EXIF = 65000  # bytes; a JPEG segment holds 65535 with its header
_WIDTH, _BITS_PER_SAMPLE = 256, 258  # tags of TIFF
_TRANSPARENT = 255  # number of a GIF's transparent colour, behind the others
_SAMPLES, _SAMPLE_SIDE = 8, 128  # frames, and px, that the palette of a GIF is made from


def encode_picture(
    photo: "Photo",
    pixels: np.ndarray,
    format_name: str,
    mark: Mapping[str, str],
    keep_private: bool,
) -> bytes:
    """A result coded like its source.

    Args:
        photo: the source, whose profile, EXIF and coding parameters are taken over.
        pixels: uint8 or uint16 (H,W,3) RGB; JPEG and WebP get 8 bits.
        format_name: "JPEG", "PNG", "WEBP" or "TIFF".
        mark, keep_private: as for `make_exif`.

    Raises:
        ValueError: `pixels` has another type or shape.
        OSError, struct.error: the format cannot hold the picture.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels of {pixels.dtype} {pixels.shape}, not uint8 (H,W,3)")
    if format_name in ("JPEG", "WEBP"):
        pixels = to_8_bit(pixels)
    grey = photo.grey and format_name != "WEBP" and _is_grey(pixels)
    alpha = photo.alpha
    if format_name == "JPEG" or (alpha is not None and alpha.shape != pixels.shape[:2]):
        alpha = None

    options: dict[str, Any] = {"exif": make_exif(photo.exif, mark, keep_private)}
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
            options["exif"] = make_exif(b"", mark, keep_private)
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

    if pixels.dtype == np.uint16 and not (grey and alpha is None):
        layers = pixels if alpha is None else np.dstack([pixels, alpha.astype(np.uint16)])
        encode = _encode_16_bit_png if format_name == "PNG" else _encode_16_bit_tiff
        return encode(layers, options)
    if format_name == "JPEG" and not grey and is_padded(pixels):
        size = pixels.shape[1], pixels.shape[0]
        image = Image.frombuffer("RGBX", size, padded_layers(pixels), "raw", "RGBX", 0, 1)
        return _save(image, format_name, options)
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    if alpha is not None:
        image.putalpha(Image.fromarray(to_8_bit(alpha)))
    return _save(image, format_name, options)


def encode_animation(
    frames: Sequence[Image.Image],
    seconds: float | Sequence[float],
    mark: Mapping[str, str],
    format_name: str = "WEBP",
    *,
    plays: int = 0,
    lossless: bool = False,
    icc: bytes | None = None,
) -> bytes:
    """An animated WebP or GIF.

    Args:
        frames: of one size, RGB or RGBA; a GIF gets one palette for all, and transparency where
            alpha is less than half.
        seconds: duration of each frame, or of all.
        mark: as for `make_exif`; a GIF gets its description as a comment.
        format_name: "WEBP" or "GIF".
        plays: number of times it is shown; 0 is without end.
        lossless: how a WebP is coded.
        icc: colour profile of a WebP.
    """
    if not isinstance(seconds, Sequence):
        seconds = [seconds] * len(frames)
    durations = [round(1000 * duration) for duration in seconds]
    options: dict[str, Any] = {"save_all": True, "duration": durations}
    if format_name == "GIF":
        frames = _share_palette(frames)
        options["comment"] = mark["Description"].encode()
        if plays != 1:
            options["loop"] = max(0, plays - 1)  # a GIF states the repetitions
        if any("transparency" in frame.info for frame in frames):
            # Each frame replaces the one before, which would show through otherwise.
            options |= {"transparency": _TRANSPARENT, "disposal": 2}
    else:
        options |= {"exif": make_exif(b"", mark, keep_private=False), "loop": plays}
        options |= {"lossless": lossless, "quality": 85, "method": 3}
        if icc:
            options["icc_profile"] = icc
    return _save(frames[0], format_name, {**options, "append_images": frames[1:]})


def _share_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Frames in RGB or RGBA as frames with one palette, by error diffusion.

    With a palette of its own for each frame, the still parts of an animation would flicker.
    """
    step = -(-len(frames) // _SAMPLES)
    samples = [frame.convert("RGB") for frame in frames[::step]]
    for sample in samples:
        sample.thumbnail((_SAMPLE_SIDE, _SAMPLE_SIDE), Image.Resampling.NEAREST)
    width, height = samples[0].size
    together = Image.new("RGB", (width, height * len(samples)))
    for number, sample in enumerate(samples):
        together.paste(sample, (0, number * height))
    palette = together.quantize(_TRANSPARENT, Image.Quantize.MEDIANCUT, kmeans=1)
    result = []
    for frame in frames:
        coded = frame.convert("RGB").quantize(palette=palette)
        clear = frame.mode == "RGBA" and np.asarray(frame.getchannel("A")) < 128
        if np.any(clear):
            numbers = np.asarray(coded).copy()
            numbers[clear] = _TRANSPARENT
            coded = Image.fromarray(numbers, "P")
            coded.putpalette(palette.getpalette() or [])
            coded.info["transparency"] = _TRANSPARENT
        result.append(coded)
    return result


def _save(image: Image.Image, format_name: str, options: dict[str, Any]) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()


# Pillow has no 16-bit colour. So OpenCV writes the pixels of a PNG, and Pillow its metadata; a
# TIFF, whose pixels are plain bytes, is written as one of 8 bits, and its header corrected.


def _encode_16_bit_png(layers: np.ndarray, options: dict[str, Any]) -> bytes:
    """A PNG of uint16 (H,W,3) RGB or (H,W,4) RGBA with the metadata of `options`."""
    import cv2

    swap = cv2.COLOR_RGB2BGR if layers.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    _, data = cv2.imencode(".png", cv2.cvtColor(layers, swap))
    coded = list(_png_chunks(data.tobytes()))
    metadata = _png_chunks(_save(Image.new("RGB", (1, 1)), "PNG", options))
    texts = [chunk for kind, chunk in metadata if kind not in (b"IHDR", b"IDAT", b"IEND")]
    needed = [chunk for kind, chunk in coded if kind in (b"IHDR", b"IDAT", b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join([needed[0], *texts, *needed[1:]])


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG: their kind, and all their bytes."""
    start = 8
    while start < len(data):
        length = int.from_bytes(data[start : start + 4]) + 12
        yield data[start + 4 : start + 8], data[start : start + length]
        start += length


def _encode_16_bit_tiff(layers: np.ndarray, options: dict[str, Any]) -> bytes:
    """A TIFF of uint16 (H,W,3) RGB or (H,W,4) RGBA with the metadata of `options`."""
    height, width, channels = layers.shape
    as_bytes = np.ascontiguousarray(layers, "<u2").view(np.uint8)
    image = Image.fromarray(as_bytes.reshape(height, 2 * width, channels))
    data = bytearray(_save(image, "TIFF", options))
    (directory,) = struct.unpack_from("<4xI", data)
    (count,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", data, entry)
        if tag == _WIDTH:
            struct.pack_into("<HII", data, entry + 2, 4, 1, width)  # type 4: 32 bits
        elif tag == _BITS_PER_SAMPLE:
            (place,) = struct.unpack_from("<I", data, entry + 8)
            struct.pack_into(f"<{channels}H", data, place, *(16,) * channels)
    return bytes(data)


def _is_grey(pixels: np.ndarray) -> bool:
    return np.array_equal(pixels, np.broadcast_to(pixels[..., :1], pixels.shape))
