"""Clips with the faces at another age: videos, and animated GIF and WebP."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from faceage.ages import format_age
from faceage.api import FaceAger
from faceage.errors import NoFaceError
from faceage.faces.selection import FaceChoice
from faceage.files import replace_file
from faceage.imaging.animations import FORMATS, read_animation, read_animation_info
from faceage.imaging.encoding import encode_animation
from faceage.imaging.metadata import synthetic_mark
from faceage.inference.backend import Pixels
from faceage.video.containers import VideoClip
from faceage.video.rendering import render_frames
from faceage.video.tracking import Track, track_faces


class AnimatedPicture:
    """An animated GIF or WebP, which has the methods of `VideoClip`.

    Raises:
        PhotoError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._info = read_animation_info(path)
        self._alphas: list[Pixels | None] = []
        self._seconds: list[float] = []

    def count(self) -> int:
        """The number of frames."""
        return self._info.count

    def frames(self) -> Iterator[Pixels]:
        """The frames, RGB (H,W,3)."""
        alphas, seconds = [], []
        for frame in read_animation(self.path):
            alphas.append(frame.alpha)
            seconds.append(frame.seconds)
            yield frame.pixels
        self._alphas, self._seconds = alphas, seconds

    def write(
        self, path: Path, suffix: str, frames: Iterator[Pixels], mark: Mapping[str, str]
    ) -> None:
        """Write changed frames with the durations, the repetitions and the transparency.

        Args:
            suffix: ".gif" or ".webp".
            mark: from `synthetic_mark`.
        """
        images = []
        for pixels, alpha in zip(frames, self._alphas, strict=True):
            layers = pixels if alpha is None else np.dstack([pixels, alpha])
            images.append(Image.fromarray(layers))
        data = encode_animation(
            images,
            self._seconds,
            mark,
            FORMATS[suffix.lower()],
            plays=self._info.plays,
            lossless=self._info.lossless,
            icc=self._info.icc,
        )
        path.write_bytes(data)


def open_clip(path: Path) -> VideoClip | AnimatedPicture:
    """The clip in a file.

    Raises:
        PhotoError: it cannot be read.
    """
    return AnimatedPicture(path) if path.suffix.lower() in FORMATS else VideoClip(path)


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
    clip = open_clip(path)
    tracks = track_faces(clip.frames(), ager.detector, lambda: report(1))
    tracks = _choose(tracks, faces, path)
    for age, file in files.items():
        aged = _count(render_frames(ager.backend, clip.frames(), tracks, age), report)
        mark = synthetic_mark({"age": format_age(age), "weights": ager.weights_sha[:16]})
        write = partial(clip.write, suffix=file.suffix, frames=aged, mark=mark)
        replace_file(file, write)


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
