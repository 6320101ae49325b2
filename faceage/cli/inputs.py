"""Finding the photos that the arguments of a command name."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from faceage.cli.common import list_some, note
from faceage.errors import PhotoError

if TYPE_CHECKING:
    from faceage.faces.selection import NumberedFace
    from faceage.imaging.photos import Photo

STDIN = "-"
SMALL_FACE = 40  # px


@dataclass
class Item:
    """One photo of a batch, or an argument that names none.

    Attributes:
        path: the photo.
        subfolder: where it is below the folder argument in which it was found.
        named: given by itself, not found in a folder, by a glob or in a list.
        error: why it cannot be processed; empty as long as it can.
        label: its name, where this is not the path.
    """

    path: Path
    subfolder: Path = Path()
    named: bool = False
    error: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """The photo's name in messages and rows."""
        return self.label or str(self.path)


def collect_items(
    arguments: Iterable[str], *, recursive: bool = False, exclude: Path | None = None
) -> list[Item]:
    """The photos named by files, folders, globs and "-" (a list on stdin), each once, in order.

    Of a folder, all images are taken, sorted. A file that does not exist is listed, too: opening
    it fails later. An argument that names no photo becomes an item with an error.

    Args:
        recursive: also take the images in sub-folders.
        exclude: a folder that is left out of the recursion, because it gets the results.
    """
    items: dict[Path, Item] = {}
    for argument, listed in _read_lists(arguments):
        try:
            found = _expand(argument, recursive, exclude)
        except PhotoError as error:
            found = [Item(Path(argument), error=str(error))]
        for item in found:
            named = item.named and not listed
            items.setdefault(item.path.absolute(), replace(item, named=named))
    return list(items.values())


def leave_out_results(items: list[Item], include_synthetic: bool) -> list[Item]:
    """The items without this program's own results, by their metadata.

    Files given by themselves are kept, and all with `include_synthetic`.
    """
    from faceage.imaging.photos import is_own_result

    if include_synthetic:
        return items
    kept = [item for item in items if item.named or item.error or not is_own_result(item.path)]
    if count := len(items) - len(kept):
        note(f"left out {count} of {len(items)} pictures, made by faceage (--include-synthetic).")
    return kept


def _read_lists(arguments: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The arguments, and the lines of stdin for "-"; whether each is from such a list."""
    for argument in arguments:
        if argument == STDIN:
            yield from ((line, True) for line in sys.stdin.read().splitlines() if line)
        else:
            yield argument, False


def _expand(argument: str, recursive: bool, exclude: Path | None) -> list[Item]:
    """The photos that one argument names.

    Raises:
        PhotoError: a folder or a glob has no images.
    """
    path = Path(argument)
    try:
        if path.is_dir():
            found = _only_photos(_files_below(path, recursive, exclude))
            items = [Item(photo, photo.relative_to(path).parent) for photo in found]
            if not items and not recursive and any(p.is_dir() for p in path.iterdir()):
                raise PhotoError(
                    f"The folder {argument} has no photos.", "Use --recursive for its sub-folders."
                )
        elif glob.has_magic(argument) and not path.exists():
            matches = sorted(Path(m) for m in glob.glob(argument, recursive=True))  # noqa: PTH207
            tars = [match for match in matches if match.suffix == ".tar"]
            items = [Item(path) for path in tars or _only_photos(matches)]
        else:
            return [Item(path, named=True)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PhotoError(f"Cannot open {path}: {reason}.", "Check the path.") from error
    if not items:
        kind = "folder" if path.is_dir() else "pattern"
        raise PhotoError(f"The {kind} {argument} has no photos.", "Name JPEG, PNG, WebP... files.")
    return items


def _files_below(folder: Path, recursive: bool, exclude: Path | None) -> list[Path]:
    if not recursive:
        return sorted(folder.iterdir())
    found: list[Path] = []
    excluded = exclude.absolute() if exclude else None
    for name, folders, files in os.walk(folder):
        here = Path(name)
        folders[:] = [
            f for f in folders if not f.startswith(".") and (here / f).absolute() != excluded
        ]
        found += (here / file for file in files)
    return sorted(found)


def _only_photos(paths: list[Path]) -> list[Path]:
    """Those that look like photos, with a note about pictures that cannot be read."""
    from faceage.imaging.photos import SUFFIXES, UNREADABLE

    visible = [path for path in paths if not path.name.startswith(".")]
    if skipped := [path for path in visible if path.suffix.lower() in UNREADABLE]:
        note(f"skipped {list_some(skipped)}: cannot read this format. Convert to JPEG first.")
    return [path for path in visible if path.suffix.lower() in SUFFIXES and path.is_file()]


def open_item(item: Item) -> "Photo":
    """The photo of an item, with a note if the file holds more than one picture.

    Raises:
        PhotoError: it cannot be opened.
    """
    from faceage.imaging.photos import open_photo

    photo = open_photo(item.path)
    if photo.several:
        note(f"{item.name} has several frames or pages; only the first is used.")
    return photo


def note_small_faces(item: Item, found: "Sequence[NumberedFace]") -> None:
    """Note the faces whose boxes have a shorter side than `SMALL_FACE`."""
    small = [number for number, face in found if _shorter_side(face.box) < SMALL_FACE]
    if small:
        one = len(small) == 1
        which = f"face {small[0]}" if one else f"{len(small)} of {len(found)} faces"
        verb = "is" if one else "are"
        note(f"{item.name}: {which} {verb} under {SMALL_FACE} px; the result is unreliable.")


def _shorter_side(box: tuple[float, float, float, float]) -> float:
    return min(box[2] - box[0], box[3] - box[1])
