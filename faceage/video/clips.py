"""Clips with the faces at another age: the passes over their frames."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from faceage.ages import format_age
from faceage.api import FaceAger
from faceage.errors import NoFaceError
from faceage.faces.selection import FaceChoice
from faceage.files import replace_file
from faceage.imaging.metadata import synthetic_mark
from faceage.inference.backend import Pixels
from faceage.video.containers import VideoClip
from faceage.video.rendering import render_frames
from faceage.video.tracking import Track, track_faces


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
    clip = VideoClip(path)
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
