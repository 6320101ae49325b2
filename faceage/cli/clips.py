"""The part of `faceage age` that changes clips: videos, and animated GIF and WebP."""

from functools import partial
from pathlib import Path

import typer

from faceage.ages import format_age
from faceage.cli.batch import load_ager
from faceage.cli.common import is_quiet, say
from faceage.cli.inputs import Item
from faceage.cli.outputs import IfExists, check_one_result, collision_error, pending_files
from faceage.errors import ConfigError, FaceAgeError, OutputError
from faceage.faces.selection import FaceChoice
from faceage.files import make_folder


def find_clips(items: list[Item], animations: bool) -> list[Item]:
    """The clips among the items: all videos and, with `animations`, animated GIF and WebP."""
    from faceage.imaging.animations import is_animation
    from faceage.video.containers import CONTAINERS

    def is_clip(path: Path) -> bool:
        return path.suffix.lower() in CONTAINERS or (animations and is_animation(path))

    return [item for item in items if not item.error and is_clip(item.path)]


def age_clips(
    clips: list[Item],
    ages: list[float],
    faces: FaceChoice,
    out: Path | None,
    if_exists: IfExists,
    model: tuple[str, str, str, float],
    alone: bool,
) -> tuple[int, dict[Path, Path]]:
    """Write every clip at every age; a clip that fails is reported, the others are done.

    Args:
        out: the folder for results, or the file of one clip at one age; None is beside each clip.
        model: weights, device, detector and least score.
        alone: the command has no photos beside the clips.

    Returns:
        The exit code, and the clips by the absolute paths of their results.

    Raises:
        ConfigError: PyAV is needed and missing, or `out` is one file for several results, or of
            another kind than the clip.
    """
    from faceage.imaging.photos import SUFFIXES, UNREADABLE
    from faceage.progress import progress_bar
    from faceage.video.clips import age_clip, open_clip
    from faceage.video.containers import CONTAINERS, check_installed

    if any(clip.path.suffix.lower() in CONTAINERS for clip in clips):
        check_installed()
    kinds = {*CONTAINERS, *SUFFIXES, *UNREADABLE}
    file = out if out and out.suffix.lower() in kinds and not out.is_dir() else None
    if file:
        _check_file(file, clips[0].path, several=len(clips) * len(ages) > 1 or not alone)
    ager, failed = None, False
    sources = {clip.path.absolute() for clip in clips}
    made: dict[Path, Path] = {}
    for clip in clips:
        path = clip.path
        folder = path.parent if out is None else out / clip.subfolder
        names = {a: folder / f"{path.stem}.age{format_age(a)}{path.suffix}" for a in ages}
        files = {ages[0]: file} if file else names
        try:
            for result in files.values():
                if result.absolute() in sources:
                    raise OutputError(
                        f"{path}: its result {result} is itself one of the clips.", "Use --out."
                    )
                if result.absolute() in made:
                    raise collision_error(path, result, made[result.absolute()])
                made[result.absolute()] = path
            pending = pending_files(files.values(), if_exists)
            wanted = {age: result for age, result in files.items() if result in pending}
            if not wanted:
                continue
            if not path.is_file():
                raise FaceAgeError(f"No such clip: {path}.", "Check the path.")
            ager = ager or load_ager(*model)
            for result in wanted.values():
                make_folder(result.parent)
            total = open_clip(path).count() * (1 + len(wanted)) or None
            with progress_bar(shown=not is_quiet()) as bar:
                task = bar.add_task(path.name, total=total)
                age_clip(ager, path, wanted, faces, partial(bar.advance, task))
            for result in wanted.values():
                typer.echo(str(result))
        except FaceAgeError as error:
            say(f"error: {error}")
            failed = True
    return int(failed), made


def _check_file(file: Path, clip: Path, several: bool) -> None:
    """Check that a file can be the result of a clip.

    Raises:
        ConfigError: there are several results, or the clip is of another kind.
    """
    from faceage.imaging.animations import FORMATS
    from faceage.video.containers import CONTAINERS

    check_one_result(file, several)
    kind = CONTAINERS if clip.suffix.lower() in CONTAINERS else FORMATS
    if file.suffix.lower() not in kind:
        raise ConfigError(
            f"{clip} is not written as {file.suffix}.", f"Use {', '.join(sorted(kind))}."
        )
