"""The folder that a run writes: its lock, its options, and a journal of what is done.

A run that was killed is continued by the same command. The journal is appended to after each
picture is written, so a picture without an entry is made again, with the same bytes.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faceage.data.datasets import Dataset
from faceage.errors import ConfigError, DataError, OutputError
from faceage.files import make_folder, replace_file, write_file

try:
    import fcntl
except ImportError:  # Windows: two runs into one folder are not detected
    fcntl = None  # type: ignore[assignment]

LOCK, OPTIONS = ".lock", "balance.json"
REAL, SYNTHETIC = "real", "synthetic"  # folders of pictures
Row = dict[str, Any]


@contextmanager
def open_folder(out: Path, options: Mapping[str, Any]) -> Iterator[Path]:
    """A new folder, or that of an earlier run with the same options, for this process alone.

    Raises:
        OutputError: another process writes into it, it cannot be written, or has other files.
        ConfigError: the earlier run had other options.
    """
    _check_empty(out)
    make_folder(out)
    # The system frees the lock when the process ends, however it ends.
    with _explain_full_disk(), (out / LOCK).open("a") as lock:
        try:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"Another faceage balance is writing into {out}.",
                "Wait for it to end, or use another --out.",
            ) from error
        for left_over in out.rglob(".*.tmp"):  # by a process that was killed while writing
            left_over.unlink()
        _check_options(out, options)
        yield out


@contextmanager
def _explain_full_disk() -> Iterator[None]:
    """Say of an error by a full disk that the run can be continued.

    Raises:
        OutputError: instead of any error with this cause.
    """
    try:
        yield
    except (OutputError, OSError) as error:
        cause = error.__cause__ if isinstance(error, OutputError) else error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"The disk is full: {cause.strerror}.",
                "Free some space and run the same command again: it continues.",
            ) from error
        raise


class Journal:
    """Entries in a file, one JSON object a line, in the order in which they were appended.

    A last line that was cut short, because the process was killed or the disk is full, is removed.

    Raises:
        DataError: another line is not a JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.rows: list[Row] = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self.rows.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                raise DataError(
                    f"{path}, line {number}, cannot be read.", "Restore it, or use another --out."
                ) from None
        if len(whole) < len(data):
            os.truncate(path, len(whole))

    def append(self, row: Row) -> None:
        """Add an entry.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(row).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error.strerror}.") from error
        self.rows.append(row)


def link_real(dataset: Dataset, out: Path) -> None:
    """Put the pictures or zips of a dataset into `out/real`: as hard links, else as copies.

    Raises:
        DataError: pictures are missing in the dataset.
        OutputError: they cannot be written, or another file has the place of one.
    """
    dataset.check_files()
    for name in dict.fromkeys(sample.zip or sample.file for sample in dataset.samples):
        source, target = dataset.root / name, out / REAL / name
        if target.exists():
            if target.stat().st_size != source.stat().st_size:
                raise OutputError(
                    f"{target} is not the picture {source}.", "Delete it, or use another --out."
                )
            continue
        make_folder(target.parent)
        try:
            os.link(source.resolve(), target)
        except OSError:  # another file system, or one without hard links
            replace_file(target, lambda path, source=source: shutil.copyfile(source, path))  # type: ignore[misc]


def write_table(path: Path, text: str) -> Path:
    """Write a csv, unless it has this text already.

    Raises:
        OutputError: it has another text, which could be the user's work.
    """
    data = text.encode()
    if path.exists() and path.read_bytes() != data:
        raise OutputError(
            f"{path} does not match the pictures of its folder: it was changed after it was "
            "written.",
            "Rename it and run the same command again to have it written anew.",
        )
    return path if path.exists() else write_file(path, data)


def hash_text(text: str) -> str:
    """The sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _check_empty(out: Path) -> None:
    with suppress(OSError):  # not there, or not a folder: creating it reports that
        names = {path.name for path in out.iterdir() if path.suffix != ".tmp"} - {LOCK}
        if names and OPTIONS not in names:
            raise OutputError(
                f"The folder {out} has files that faceage balance did not write.",
                "Use a new folder as --out.",
            )


def _check_options(out: Path, options: Mapping[str, Any]) -> None:
    path = out / OPTIONS
    if not path.exists():
        write_file(path, json.dumps(options, indent=2).encode())
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise DataError(f"{path} cannot be read.", "Restore it, or use another --out.") from None
    changed = [name for name in options if before.get(name) != options[name]]
    if changed:
        raise ConfigError(
            f"{out} was begun with other values of: {', '.join(changed)}.",
            "Use the same options and pictures, or another --out.",
        )
