"""Writing files: checks against overwriting, and atomic writes."""

import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from faceage.errors import OutputError


def make_folder(folder: Path) -> Path:
    """Create a folder, with its parents, if it does not exist.

    Raises:
        OutputError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot create the folder {folder}: {error.strerror}.", "Use another folder."
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
        with suppress(OSError):  # such as a name that is too long: writing reports it
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
            # If the folder is in fact a file, unlink raises an error other than FileNotFoundError.
            with suppress(OSError):
                temporary.unlink()
    except OSError as error:
        check_free([path], force)  # another process may have created it meanwhile
        raise OutputError(
            f"Cannot write {path}: {_reason(error)}.", "Choose another place with --out."
        ) from error
    return path


def replace_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Replace a file atomically by what `write` writes to a temporary path.

    For libraries that write to a path (torch, safetensors). Missing folders are created.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors creates files that only their owner can read
        temporary.replace(path)
    except Exception as error:  # torch and safetensors have their own error classes
        raise OutputError(f"Cannot write {path}: {_reason(error)}.", "Choose another place.") from (
            error
        )
    finally:
        with suppress(OSError):  # already renamed, or never written
            temporary.unlink()
    return path


def _rename_without_overwriting(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # unlike a rename it fails when the target exists
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system: reserve the name, then rename
        target.open("xb").close()
        source.replace(target)


def _reason(error: Exception) -> str:
    """The system's message, or the first line of the library's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
