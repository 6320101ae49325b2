"""The part of `faceage age` that makes animations of photos."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from faceage.ages import parse_ages
from faceage.cli.batch import load_ager, reject_failing, report_errors, run_batch
from faceage.cli.inputs import Item, note_small_faces, open_item
from faceage.cli.outputs import IfExists, Target, check_one_result, pending_files, plan_targets
from faceage.errors import AgeError, ConfigError
from faceage.faces.selection import FaceChoice, choose_faces
from faceage.files import make_folder

if TYPE_CHECKING:
    from faceage.faces.selection import NumberedFace
    from faceage.imaging.photos import Photo


def animate_photos(
    items: list[Item],
    ages: list[float],
    faces: FaceChoice,
    out: Path | None,
    if_exists: IfExists,
    model: tuple[str, str, str, float],
) -> int:
    """Write an animation of every photo: `STEM.age5-85.mp4`.

    Args:
        ages: years, one a frame.
        out: the folder for results, or the file of one photo; None is beside each photo.
        model: weights, device, detector and least score.

    Returns:
        The exit code.

    Raises:
        ConfigError: PyAV is needed and missing, or `out` is one file for several photos or has an
            unsuitable suffix.
    """
    from faceage.imaging.animations import FORMATS
    from faceage.video.animation import animate_photo
    from faceage.video.containers import check_installed

    file = out if out and _is_file(out) else None
    if file:
        check_one_result(file, len(items) > 1)
    if not file or file.suffix.lower() not in FORMATS:
        check_installed(", or write an animated picture: --out animation.webp")

    def results(target: Target) -> list[Path]:
        name = f"{target.stem}.age{ages[0]:g}-{ages[-1]:g}.mp4"
        return [file or target.folder / name]

    targets = plan_targets(items, None if file else out, results)
    # Checked before the model is loaded, which takes seconds.
    pending: dict[Path, list[Path]] = {}

    def check(item: Item) -> None:
        pending[item.path] = pending_files(results(targets[item.path]), if_exists)

    reject_failing(items, check)
    if any(not item.error and pending[item.path] for item in items):
        ager = load_ager(*model)

    def prepare(item: Item) -> "tuple[Photo, list[NumberedFace]] | None":
        if not pending[item.path]:
            return None
        photo = open_item(item)
        return photo, choose_faces(photo, ager.detector, faces)

    def work(item: Item, prepared: "tuple[Photo, list[NumberedFace]] | None") -> None:
        if prepared:
            photo, found = prepared
            note_small_faces(item, found)
            (path,) = pending[item.path]
            make_folder(path.parent)
            animate_photo(ager, photo, found, ages, path)
            typer.echo(str(path))

    for _ in run_batch(items, prepare, work, "animating"):
        pass
    return report_errors(items, None if file else out)


def parse_span(text: str) -> list[float]:
    """The ages of an animation from the value of `--animate`: "5-85", or "5-85:1".

    The step is 2 years unless given; the last age always belongs to them.

    Raises:
        AgeError: it is no range, or an age is not from 0 to 100.
    """
    span, _, step = text.partition(":")
    low, _, high = span.partition("-")
    try:
        last = float(high)
        float(low)
    except ValueError:
        raise AgeError(
            f"{text!r} is not a range of ages.", "Write two ages: --animate 5-85."
        ) from None
    ages = parse_ages([f"{span}:{step or 2}"])
    return ages if ages[-1] == last else [*ages, last]


def _is_file(out: Path) -> bool:
    """Whether `--out` is the file of an animation, not a folder.

    Raises:
        ConfigError: it is a file of another kind.
    """
    from faceage.imaging.animations import FORMATS
    from faceage.imaging.photos import SUFFIXES, UNREADABLE
    from faceage.video.containers import CONTAINERS

    suffix = out.suffix.lower()
    if out.is_dir():
        return False
    if suffix in {*FORMATS, *CONTAINERS}:
        return True
    if suffix in SUFFIXES | UNREADABLE:
        raise ConfigError(
            f"Animations are not written as {out.suffix}.", "Use .mp4, .webp or .gif."
        )
    return False
