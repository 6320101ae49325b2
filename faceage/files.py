"""Writing files: checks against overwriting, and atomic writes."""

import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from faceage.errors import OutputError


def make_folder(folder: Path) -> Path:
    """Create a folder for results, with its parents.

    Raises:
        OutputError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot make the folder {folder}: {error.strerror}.", "Use another folder."
        ) from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"Cannot write into the folder {folder}.", "Use another folder.")
    return folder


def check_free(paths: Iterable[Path], force: bool) -> None:
    """Refuse to overwrite files.

    Raises:
        OutputError: one of them exists, unless `force`; or is a folder.
    """
    for path in paths:
        with suppress(OSError):  # a name too long and the like: the write itself reports it
            if path.is_dir():
                raise OutputError(f"Cannot write {path}: it is a folder.", "Use another --out.")
            if not force and (path.exists() or path.is_symlink()):
                raise OutputError(
                    f"{path} exists already.", "Use --force to overwrite it, or --out."
                )


def write_file(path: str | os.PathLike[str], data: bytes, *, force: bool = False) -> Path:
    """Write a file atomically: to a temporary file in the same folder, then renamed.

    Raises:
        OutputError: it exists and `force` is off, or it cannot be written.
    """
    path = Path(path)
    check_free([path], force)
    temporary = path.parent / f".faceage-{secrets.token_hex(6)}.tmp"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
            if force:
                temporary.replace(path)
            else:
                _rename_without_overwriting(temporary, path)
        finally:
            # The folder may not be a folder, which unlink reports as an error of its own.
            with suppress(OSError):
                temporary.unlink()
    except OSError as error:
        check_free([path], force)  # it may have been created meanwhile
        raise OutputError(
            f"Cannot write {path}: {_reason(error)}.", "Choose another place with --out."
        ) from error
    return path


def replace_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Replace a file atomically by what `write` writes to a temporary path.

    For writers that take a path instead of bytes (torch, safetensors). Missing folders are made.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except Exception as error:  # torch and safetensors raise errors of their own
        raise OutputError(f"Cannot write {path}: {_reason(error)}.", "Choose another place.") from (
            error
        )
    finally:
        with suppress(OSError):  # already renamed, or its folder was never made
            temporary.unlink()
    return path


def _rename_without_overwriting(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # unlike a rename it fails when the target exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: reserve the name first, then rename
        target.open("xb").close()
        source.replace(target)


def _reason(error: Exception) -> str:
    """One line: the system's message, or the first line of the library's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
