"""Video files, read and written by PyAV (the extra `video`)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from faceage.errors import ConfigError, PhotoError
from faceage.inference.backend import Pixels

# The container of each suffix, in FFmpeg's names, and the coding of its pictures.
CONTAINERS = {
    ".mp4": ("mp4", "libx264"),
    ".m4v": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
}
_QUALITY = {"libx264": {"crf": "17"}, "libvpx-vp9": {"crf": "24", "b": "0"}}
_BT601, _BT709, _UNKNOWN = 5, 1, 2  # FFmpeg's numbers of colour matrices
_HD_HEIGHT = 720  # px, from which pictures without a stated colour matrix are taken for BT.709


def read_frames(path: Path) -> Iterator[tuple[int, Pixels]]:
    """The frames of a clip, upright: presentation time in the stream's unit, and RGB (H,W,3).

    Raises:
        ConfigError: PyAV is not installed.
        PhotoError: the clip is missing or damaged, or has no pictures.
    """
    av = _import_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PhotoError(f"{path} has no pictures.", "Give a video.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                matrix = _colour_matrix(frame)
                pixels = frame.to_ndarray(format="rgb24", src_colorspace=matrix)
                yield frame.pts, np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
    except av.error.FFmpegError as error:
        reason = (error.strerror or "unknown error").rstrip(".")
        raise PhotoError(f"Cannot read the clip {path}: {reason}.", "Copy it again.") from None


def check_installed(hint: str = "") -> None:
    """Check that PyAV is there.

    Args:
        hint: what else can be done about its absence.

    Raises:
        ConfigError: it is not installed.
    """
    _import_av(hint)


class VideoClip:
    """A video file. Its frames are read before its results are written, which get their times."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._times: list[int] = []

    def count(self) -> int:
        """The number of frames that the file states, 0 if it states none."""
        av = _import_av()
        try:
            with av.open(str(self.path)) as container:
                return int(container.streams.video[0].frames) if container.streams.video else 0
        except av.error.FFmpegError:
            return 0  # reading it reports the error

    def frames(self) -> Iterator[Pixels]:
        """The frames, upright, RGB (H,W,3)."""
        times = []
        for time, pixels in read_frames(self.path):
            times.append(time)
            yield pixels
        self._times = times

    def write(
        self, path: Path, suffix: str, frames: Iterator[Pixels], mark: Mapping[str, str]
    ) -> None:
        """Write changed frames with the sound, the times and the colour tags of the clip.

        Args:
            suffix: of the container, a key of `CONTAINERS`.
            mark: from `synthetic_mark`, for the metadata.
        """
        times = self._times
        with _import_av().open(str(self.path)) as original:
            before = original.streams.video[0]
            context = before.codec_context
            coding = _Coding(
                before.average_rate or Fraction(25), before.time_base,
                context.colorspace, context.color_primaries, context.color_trc,
            )  # fmt: skip
            _write(path, suffix, zip(times, frames, strict=True), coding, mark, original)


def write_silent(
    path: Path, suffix: str, frames: Iterable[Pixels], rate: int, mark: Mapping[str, str]
) -> None:
    """Write a clip without sound, of `rate` frames a second; otherwise as `VideoClip.write`."""
    coding = _Coding(Fraction(rate), Fraction(1, rate))
    _write(path, suffix, enumerate(frames), coding, mark)


@dataclass(frozen=True)
class _Coding:
    """How the pictures of a clip are timed, and what their colours mean, in FFmpeg's numbers."""

    rate: Fraction
    time_base: Fraction
    matrix: int = _UNKNOWN
    primaries: int = _UNKNOWN
    transfer: int = _UNKNOWN


def _write(
    path: Path,
    suffix: str,
    frames: Iterable[tuple[int, Pixels]],
    coding: _Coding,
    mark: Mapping[str, str],
    original: Any = None,
) -> None:
    """Write frames, and the sound of the container `original`, if given."""
    av = _import_av()
    format_name, codec = CONTAINERS[suffix.lower()]
    with av.open(str(path), "w", format=format_name) as result:
        stream = result.add_stream(codec, rate=coding.rate)
        stream.options = dict(_QUALITY[codec])
        result.metadata["comment"] = mark["Description"]
        sounds = _SoundPackets(original, result)
        for index, (time, pixels) in enumerate(frames):
            height, width = pixels.shape[:2]
            if index == 0:
                stream.width, stream.height = width, height
                even = width % 2 == height % 2 == 0
                stream.pix_fmt = "yuv420p" if even else "yuv444p"
                context = stream.codec_context
                context.time_base = coding.time_base
                matrix = _matrix_number(coding.matrix, height)
                context.colorspace = matrix
                context.color_primaries = coding.primaries
                context.color_trc = coding.transfer
                context.color_range = 1  # limited, as video has it
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=matrix)
            frame.pts, frame.time_base = time, coding.time_base
            for packet in stream.encode(frame):
                sounds.mux_until(float(time * coding.time_base))
                result.mux(packet)
        for packet in stream.encode(None):
            result.mux(packet)
        sounds.mux_until(float("inf"))


class _SoundPackets:
    """The sound of a clip, copied packet by packet beside the pictures."""

    def __init__(self, original: Any, result: Any) -> None:
        found = original.streams.audio if original else ()
        self._result = result
        self._streams = {sound.index: result.add_stream_from_template(sound) for sound in found}
        self._packets = original.demux(*found) if found else iter(())
        self._next = next(self._packets, None)

    def mux_until(self, seconds: float) -> None:
        """Copy the packets up to a time."""
        while self._next is not None:
            packet = self._next
            if packet.dts is not None:
                if float(packet.dts * packet.time_base) > seconds:
                    return
                packet.stream = self._streams[packet.stream.index]
                self._result.mux(packet)
            self._next = next(self._packets, None)


def _colour_matrix(frame: Any) -> int:
    return _matrix_number(frame.colorspace, frame.height)


def _matrix_number(stated: int, height: int) -> int:
    """The colour matrix that a clip states, or that its size suggests."""
    if int(stated) != _UNKNOWN:
        return int(stated)
    return _BT709 if height >= _HD_HEIGHT else _BT601


def _import_av(hint: str = "") -> Any:
    try:
        import av
    except ImportError:
        raise ConfigError(
            "Video needs PyAV.", f"Install it: pip install 'faceage[video]'{hint}"
        ) from None
    return av
