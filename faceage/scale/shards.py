"""Shards: equal parts of a list of photos, each with one output file.

    OUT/shards.json                        what the shards were made from; another run must match
    OUT/predictions/00003-of-00016.parquet one file per shard; a shard whose file exists is done
    OUT/failures/00003-of-00016.csv        the photos of the shard that failed, if any
    OUT/failures.csv                       all of them

A shard's file is written under a temporary name and renamed when it is complete.
"""

import csv
import io
import json
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from faceage.errors import ConfigError, OutputError
from faceage.files import make_folder, replace_file, write_file

Item = TypeVar("Item")
Failure = tuple[str, str]  # file, error

SHARD_SIZE = 1000  # photos in a shard, unless the number of shards is given
MANIFEST = "shards.json"
FAILURES = "failures.csv"


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    @property
    def name(self) -> str:
        """Its name in files: "00003-of-00016"."""
        return f"{self.index:05}-of-{self.count:05}"

    def select(self, items: Sequence[Item]) -> Sequence[Item]:
        """The shard's part of a sequence: contiguous, and equal to the others up to one item."""
        size = len(items)
        return items[size * (self.index - 1) // self.count : size * self.index // self.count]


def parse_shard(text: str) -> Shard:
    """The shard that "3/16" names.

    Raises:
        ConfigError: it is not of this form, or out of range.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"Cannot read the shard {text!r}.", "Use 1/16 to 16/16, for example.")
    return Shard(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class ShardFolder:
    """The output folder of one command.

    Attributes:
        root: the folder.
        kind: the sub-folder for the shards' files, such as "predictions".
        suffix: of the shards' files.
    """

    root: Path
    kind: str
    suffix: str

    def file(self, shard: Shard) -> Path:
        """The shard's output file."""
        return self.root / self.kind / f"{shard.name}{self.suffix}"

    def claim(
        self,
        contents: Mapping[str, Any],
        force: bool,
        hint: str = "Use another --out, or --force to delete these results.",
    ) -> None:
        """Write the manifest, or check that the present one has the same contents.

        Args:
            contents: what determines the results; it must be the same for all shards.
            force: delete the results of another manifest instead of raising an error.
            hint: of that error.

        Raises:
            OutputError: the folder has results of other photos or options, or cannot be written.
        """
        path = self.root / MANIFEST
        make_folder(self.root)
        data = (json.dumps(contents, indent=2, ensure_ascii=False) + "\n").encode()
        with suppress(OutputError):  # it exists already
            write_file(path, data)
        present = self._read_manifest(path)
        if present != json.loads(data):
            if not force:
                keys = sorted(k for k in {*contents, *present} if present.get(k) != contents.get(k))
                raise OutputError(
                    f"{self.root} has results of another run; it differs in {', '.join(keys)}.",
                    hint,
                )
            for results in (f"{self.kind}/*-of-*{self.suffix}", "failures/*-of-*.csv"):
                for file in self.root.glob(results):
                    file.unlink()
            write_file(path, data, force=True)
        make_folder(self.root / self.kind)

    def _read_manifest(self, path: Path) -> dict[str, Any]:
        try:
            present = json.loads(path.read_text(encoding="utf-8"))
            return present if isinstance(present, dict) else {}
        except OSError as error:
            raise OutputError(
                f"Cannot write {path}: {error.strerror}.", "Choose another place with --out."
            ) from error
        except ValueError:
            return {}

    def write_failures(self, shard: Shard, failures: Sequence[Failure]) -> None:
        """Write the csv of the photos of a shard that failed; none if there are none.

        Raises:
            OutputError: it cannot be written.
        """
        write_failures(self._failures_file(shard), failures)

    def read_failures(self, shards: Iterable[Shard]) -> list[Failure]:
        """The photos that failed, of those of the shards that are complete."""
        failures: list[Failure] = []
        for shard in shards:
            path = self._failures_file(shard)
            if path.exists() and self.file(shard).exists():
                rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
                failures += [(file, error) for file, error in list(rows)[1:]]
        return failures

    def merge_failures(self, count: int) -> Path | None:
        """Write `failures.csv` of all `count` shards; None if no photo failed so far.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.root / FAILURES
        failures = self.read_failures(Shard(index, count) for index in range(1, count + 1))
        return write_failures(path, failures)

    def _failures_file(self, shard: Shard) -> Path:
        return self.root / "failures" / f"{shard.name}.csv"


@contextmanager
def shard_file(path: Path) -> Iterator[Path]:
    """A temporary folder, in which the file `path.name` is to be made; then it becomes `path`.

    Temporary folders that killed runs left behind for this file are deleted.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        replace_file(path, lambda place: (temporary / path.name).replace(place))
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror or error}.", "Run the command again later."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def write_failures(path: Path, failures: Sequence[Failure]) -> Path | None:
    """Write a csv of photos that failed, replacing that of an earlier run; None without failures.

    Raises:
        OutputError: it cannot be written, or the file is not such a csv.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "error"))
    header = text.getvalue().encode()
    writer.writerows(failures)
    if path.is_file() and not path.read_bytes().startswith(header):
        raise OutputError(f"{path} is no list of failures.", "Move it, or use another --out.")
    if not failures:
        path.unlink(missing_ok=True)
        return None
    make_folder(path.parent)
    return write_file(path, text.getvalue().encode(errors="surrogateescape"), force=True)
