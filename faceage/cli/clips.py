"""The part of `faceage age` that changes clips."""

from functools import partial
from pathlib import Path

import typer

from faceage.ages import format_age
from faceage.cli.batch import load_ager
from faceage.cli.common import is_quiet, say
from faceage.cli.outputs import IfExists, pending_files
from faceage.errors import ConfigError, FaceAgeError
from faceage.faces.selection import FaceChoice
from faceage.files import make_folder

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm"})


def find_clips(arguments: list[str]) -> list[Path]:
    """The arguments that are clips: all of them or none.

    Raises:
        ConfigError: there are clips and photos.
    """
    clips = [Path(name) for name in arguments if Path(name).suffix.lower() in SUFFIXES]
    if clips and len(clips) < len(arguments):
        raise ConfigError("Clips and photos are given together.", "Use one command for each.")
    return clips


def age_clips(
    clips: list[Path],
    ages: list[float],
    faces: FaceChoice,
    out: Path | None,
    if_exists: IfExists,
    model: tuple[str, str, str, float],
) -> int:
    """Write every clip at every age; a clip that fails is reported, the others are done.

    Args:
        out: the folder for results, or the file of one clip at one age; None is beside each clip.
        model: weights, device, detector and least score.

    Returns:
        The exit code.

    Raises:
        ConfigError: PyAV is not installed, or `out` is one file for several results.
    """
    from faceage.progress import progress_bar
    from faceage.video.clips import age_clip
    from faceage.video.containers import VideoClip, check_installed

    check_installed()
    single = out is not None and out.suffix.lower() in SUFFIXES and not out.is_dir()
    if single and len(clips) * len(ages) > 1:
        raise ConfigError(
            f"--out {out} is one file, but there are several results.", "Name a folder."
        )
    ager, failed = None, False
    for clip in clips:
        folder = clip.parent if out is None or single else out
        names = {a: folder / f"{clip.stem}.age{format_age(a)}{clip.suffix}" for a in ages}
        files = {ages[0]: out} if single and out else names
        try:
            pending = pending_files(files.values(), if_exists)
            wanted = {age: file for age, file in files.items() if file in pending}
            if not wanted:
                continue
            if not clip.is_file():
                raise FaceAgeError(f"No such clip: {clip}.", "Check the path.")
            ager = ager or load_ager(*model)
            for file in wanted.values():
                make_folder(file.parent)
            total = VideoClip(clip).count() * (1 + len(wanted)) or None
            with progress_bar(shown=not is_quiet()) as bar:
                task = bar.add_task(clip.name, total=total)
                age_clip(ager, clip, wanted, faces, partial(bar.advance, task))
            for file in wanted.values():
                typer.echo(str(file))
        except FaceAgeError as error:
            say(f"error: {error}")
            failed = True
    return int(failed)
