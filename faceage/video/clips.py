"""Reading clips, and writing them with the faces at another age."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faceage.ages import format_age
from faceage.api import FaceAger
from faceage.errors import ConfigError, NoFaceError, PhotoError
from faceage.faces.selection import FaceChoice
from faceage.files import replace_file
from faceage.imaging.metadata import synthetic_mark
from faceage.inference.backend import Pixels
from faceage.video.rendering import render_frames
from faceage.video.tracking import Track, track_faces

# The container of each suffix, in FFmpeg's names, and the coding of its pictures.
CONTAINERS = {
    ".mp4": ("mp4", "libx264"),
    ".m4v": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
}
_QUALITY = {"libx264": {"crf": "17"}, "libvpx-vp9": {"crf": "24", "b": "0"}}
_BT601, _BT709 = 5, 1  # FFmpeg's numbers of colour matrices; 2 is unknown
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


def age_clip(
    ager: FaceAger,
    path: Path,
    files: dict[float, Path],
    faces: FaceChoice = "all",
    report: Callable[[int], object] = lambda frames: None,
) -> None:
    """Write a clip with the faces at other ages; sound is copied.

    Args:
        files: the result of each age (years); existing files are replaced.
        faces: "all", or numbers of people, 1 for the one with the largest area over the clip.
        report: called with 1 after every frame of every pass.

    Raises:
        PhotoError: the clip cannot be read.
        NoFaceError: there is no face, or not so many people.
        OutputError: a result cannot be written.
    """
    times: list[int] = []

    def frames(note_times: bool = False) -> Iterator[Pixels]:
        for time, pixels in read_frames(path):
            if note_times:
                times.append(time)
            yield pixels

    tracks = track_faces(frames(note_times=True), ager.detector, lambda: report(1))
    tracks = _choose(tracks, faces, path)
    for age, file in files.items():
        aged = _count(render_frames(ager.backend, frames(), tracks, age), report)
        mark = synthetic_mark({"age": format_age(age), "weights": ager.weights_sha[:16]})
        timed = zip(times, aged, strict=True)
        replace_file(file, partial(_write_clip, path, file.suffix, timed, mark["Description"]))


def check_installed() -> None:
    """Check that PyAV is there.

    Raises:
        ConfigError: it is not installed.
    """
    _import_av()


def count_frames(path: Path) -> int:
    """The number of frames that the clip states, 0 if it states none."""
    av = _import_av()
    try:
        with av.open(str(path)) as container:
            return int(container.streams.video[0].frames) if container.streams.video else 0
    except av.error.FFmpegError:
        return 0  # reading it reports the error


def _count(frames: Iterator[Pixels], report: Callable[[int], object]) -> Iterator[Pixels]:
    for pixels in frames:
        report(1)
        yield pixels


def _choose(tracks: list[Track], faces: FaceChoice, path: Path) -> list[Track]:
    people = {track.person for track in tracks}
    if not people:
        raise NoFaceError(f"No face found in {path}.", "Use a clip with a larger face.")
    if faces == "all":
        return tracks
    if missing := [number for number in faces if number not in people]:
        raise NoFaceError(
            f"{path} has {len(people)} people, but no face {missing[0]}.", "Use --face 1."
        )
    return [track for track in tracks if track.person in faces]


def _write_clip(
    source: Path, suffix: str, frames: Iterator[tuple[int, Pixels]], comment: str, path: Path
) -> None:
    """Write frames, and the sound of the source, to `path`."""
    av = _import_av()
    format_name, codec = CONTAINERS[suffix.lower()]
    with av.open(str(source)) as original, av.open(str(path), "w", format=format_name) as result:
        before = original.streams.video[0]
        stream = result.add_stream(codec, rate=before.average_rate or Fraction(25))
        stream.options = dict(_QUALITY[codec])
        result.metadata["comment"] = comment
        sounds = {
            sound.index: result.add_stream_from_template(sound) for sound in original.streams.audio
        }
        packets = _SoundPackets(original, sounds)
        for index, (time, pixels) in enumerate(frames):
            height, width = pixels.shape[:2]
            if index == 0:
                stream.width, stream.height = width, height
                even = width % 2 == height % 2 == 0
                stream.pix_fmt = "yuv420p" if even else "yuv444p"
                context = stream.codec_context
                context.time_base = before.time_base
                matrix = _matrix_number(before.codec_context.colorspace, height)
                context.colorspace = matrix
                context.color_primaries = before.codec_context.color_primaries
                context.color_trc = before.codec_context.color_trc
                context.color_range = 1  # limited, as video has it
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=matrix)
            frame.pts, frame.time_base = time, before.time_base
            for packet in stream.encode(frame):
                packets.mux_until(result, float(time * before.time_base))
                result.mux(packet)
        for packet in stream.encode(None):
            result.mux(packet)
        packets.mux_until(result, float("inf"))


class _SoundPackets:
    """The sound of a clip, copied packet by packet beside the pictures."""

    def __init__(self, container: Any, streams: dict[int, Any]) -> None:
        self._streams = streams
        self._packets = container.demux(*container.streams.audio) if streams else iter(())
        self._next = next(self._packets, None)

    def mux_until(self, result: Any, seconds: float) -> None:
        """Copy the packets up to a time."""
        while self._next is not None:
            packet = self._next
            if packet.dts is not None:
                if float(packet.dts * packet.time_base) > seconds:
                    return
                packet.stream = self._streams[packet.stream.index]
                result.mux(packet)
            self._next = next(self._packets, None)


def _colour_matrix(frame: Any) -> int:
    return _matrix_number(frame.colorspace, frame.height)


def _matrix_number(stated: int, height: int) -> int:
    """The colour matrix that a clip states, or that its size suggests."""
    if int(stated) != 2:
        return int(stated)
    return _BT709 if height >= _HD_HEIGHT else _BT601


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise ConfigError("Clips need PyAV.", "Install it: pip install 'faceage[video]'") from None
    return av
