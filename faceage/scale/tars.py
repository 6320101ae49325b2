"""Tar shards in WebDataset layout: the files of one sample share all of their path up to the first
dot of the file name, which is the sample's key."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from faceage.errors import DataError
from faceage.scale.optional import import_optional

_END = 1024  # zero bytes at the end of every complete tar


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without time and owner, so that the same files give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, BytesIO(data))


def add_metadata(archive: tarfile.TarFile, key: str, values: Mapping[str, Any]) -> None:
    """Add a sample's json."""
    text = json.dumps(values, ensure_ascii=False) + "\n"
    add_member(archive, f"{key}.json", text.encode(errors="surrogateescape"))


def make_keys(names: Sequence[str], strip: bool = True) -> dict[str, str]:
    """A key for every photo: its path without the suffix, and without dots in the file name.

    Photos that would have the same key keep their suffix in it: "a/x_jpg" and "a/x_png".

    Args:
        strip: leave out the folders that all photos have in common.
    """
    paths = [PurePosixPath(name.replace("\\", "/")) for name in names]
    parents = [path.parent.parts for path in paths]
    common = list(takewhile(lambda level: len(set(level)) == 1, zip(*parents, strict=False)))
    skip = len(common) if strip else 0
    folders = ["/".join(p for p in parts[skip:] if p not in "/..") for parts in parents]
    short = [
        f"{folder}/{path.stem.replace('.', '_')}".lstrip("/")
        for folder, path in zip(folders, paths, strict=True)
    ]
    counts = Counter(short)
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for name, path, key in zip(names, paths, short, strict=True):
        if counts[key] > 1:
            key += path.suffix.replace(".", "_")
        while key in taken:
            key += "_"
        taken.add(key)
        keys[name] = key
    return keys


def read_pictures(tar: Path, suffixes: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """The pictures of a tar shard, in its order: their names in the tar, and their bytes.

    Args:
        suffixes: of pictures, such as ".jpg"; other files are skipped.

    Raises:
        DataError: the tar is missing, cut short or damaged.
        ConfigError: webdataset is not installed.
    """
    webdataset = import_optional("webdataset", "scale")
    _check_complete(tar)
    try:
        # A list of absolute paths: a string could be expanded, or run as a command ("pipe:").
        urls = [str(tar.absolute())]
        for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False):
            for field, data in sample.items():
                if not field.startswith("__") and f".{field.rpartition('.')[2]}" in suffixes:
                    yield f"{sample['__key__']}.{field}", data
    except (OSError, ValueError, tarfile.TarError) as error:
        raise _unreadable(tar, str(error)) from error


def list_members(tar: Path) -> dict[str, tuple[int, int]]:
    """The files of an uncompressed tar by name: the offset and the size of their bytes.

    Raises:
        DataError: the tar is missing, cut short or damaged.
    """
    _check_complete(tar)
    try:
        with tarfile.open(tar, "r:") as archive:
            return {member.name: (member.offset_data, member.size) for member in archive}
    except (OSError, tarfile.TarError) as error:
        raise _unreadable(tar, str(error)) from error


def _check_complete(tar: Path) -> None:
    try:
        with tar.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _END))
            complete = size >= _END and not any(file.read())
    except OSError as error:
        raise _unreadable(tar, error.strerror or str(error)) from error
    if not complete:
        raise _unreadable(tar, "it is cut short or is no tar")


def _unreadable(tar: Path, reason: str) -> DataError:
    return DataError(f"Cannot read the shard {tar}: {reason}.", "Copy it again from its source.")
