"""Finding the photos that the arguments of a command name: files, folders and globs."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from faceage.errors import PhotoError


def find_photos(arguments: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The photos named by files, folders (their images, sorted) and globs, each once.

    A file that does not exist is listed, too: opening it fails later, and the others are done.

    Raises:
        PhotoError: a folder or a glob has no images.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(argument)
        try:
            is_folder, exists = path.is_dir(), path.exists()
            if is_folder:
                matches = sorted(filter(_looks_like_photo, path.iterdir()))
            elif not exists and glob.has_magic(str(argument)):
                matches = sorted(Path(m) for m in glob.glob(str(argument), recursive=True))  # noqa: PTH207
                matches = list(filter(_looks_like_photo, matches))
            else:
                found[path] = None
                continue
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PhotoError(f"Cannot open {path}: {reason}.", "Check the path.") from error
        if not matches:
            kind = "The folder" if is_folder else "The pattern"
            raise PhotoError(f"{kind} {argument} has no photos.", "Name JPEG, PNG, WebP... files.")
        found.update(dict.fromkeys(matches))
    return list(found)


def leave_out_results(paths: Iterable[Path], arguments: Iterable[str]) -> list[Path]:
    """Photos without this program's own results, so that a folder can be aged twice.

    A result is `x.age05.jpg` or `x.sheet.jpg` if `x.jpg` (any suffix) is there, too. Files that
    `arguments` name one by one are kept.
    """
    paths, named = list(paths), {Path(text) for text in arguments}
    stems = {(path.parent, path.stem) for path in paths}
    pattern = re.compile(r"(.+?)(?:\.face\d+)?\.(?:age[\d.]+|sheet|faces)")
    return [
        path
        for path in paths
        if path in named
        or not ((match := pattern.fullmatch(path.stem)) and (path.parent, match[1]) in stems)
    ]


def _looks_like_photo(path: Path) -> bool:
    from faceage.imaging.photos import SUFFIXES

    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
