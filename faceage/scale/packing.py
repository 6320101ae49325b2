"""Packing a dataset into tars.

    OUT/shards.json                    what the tars are made from; another run must match
    OUT/train/00003-of-00016.tar       pictures and their labels in WebDataset layout
    OUT/SHA256SUMS                     of all files, for `sha256sum -c`
    OUT/faces.csv                      labels, and the place of every picture; written last

`faces.csv` makes the folder a dataset. It lists the pictures in the order of the source dataset,
so that a training takes the same steps on either.
"""

import csv
import hashlib
import io
import random
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faceage import __version__
from faceage.data.datasets import Dataset, EmptySplitError, open_dataset
from faceage.data.layouts import describe_sample, format_row
from faceage.errors import DataError, OutputError
from faceage.files import write_file
from faceage.hub import file_sha256
from faceage.scale.shards import MANIFEST, Shard, ShardFolder, shard_file
from faceage.scale.tars import add_member, add_metadata, list_members

SPLITS = ("train", "val", "test")
TABLE = "faces.csv"
CHECKSUMS = "SHA256SUMS"

_SUFFIXES = {
    **{"JPEG": "jpg", "MPO": "jpg"},  # MPO: a JPEG followed by further pictures
    **{"PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"},
}
Members = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class PlannedShard:
    """One tar.

    Attributes:
        split: "train", "val" or "test".
        path: the file to write.
        indices: of the pictures in `Dataset.samples`, in the order of the tar.
    """

    split: str
    path: Path
    indices: Sequence[int]


class Packer:
    """Packs a dataset; the same arguments continue what a run that was killed has left.

    Args:
        data: as for `open_dataset`.
        out: the folder to write.
        shard_bytes: of the pictures in a tar, at most, unless one picture has more.
        splits: those to pack; the ones without pictures are left out.
        seed: of the order of the pictures in the tars.

    Raises:
        DataError: the dataset is malformed, or a picture is missing.
        OutputError: the folder has other files, or the results of other options.
    """

    def __init__(
        self,
        data: str,
        out: Path,
        shard_bytes: int,
        splits: Sequence[str] = SPLITS,
        seed: int = 0,
    ) -> None:
        self._out = out
        self._datasets = _open_splits(data, splits)
        self._sizes = {
            split: [dataset.find_size(sample) for sample in dataset.samples]
            for split, dataset in self._datasets.items()
        }
        _check_empty(out)
        contents = {
            "command": "pack",
            "version": __version__,
            "shard_bytes": shard_bytes,
            "seed": seed,
            "pictures": {split: len(dataset) for split, dataset in self._datasets.items()},
            "labels_sha256": self._hash_labels(),
        }
        self.shards: list[PlannedShard] = []
        for split, sizes in self._sizes.items():
            folder = ShardFolder(out, split, ".tar")
            folder.claim(contents, force=False, hint="Use another --out.")
            parts = divide(sizes, shard_bytes, seed)
            self.shards += [
                PlannedShard(split, folder.file(Shard(number, len(parts))), indices)
                for number, indices in enumerate(parts, 1)
            ]
        self._members: dict[Path, Members] = {}
        for shard in self.shards:
            with suppress(DataError):  # not written yet, or cut short since
                members = list_members(shard.path)
                if self._is_whole(shard, members):
                    self._members[shard.path] = members

    @property
    def missing(self) -> list[PlannedShard]:
        """The tars that do not exist or are not whole."""
        return [shard for shard in self.shards if shard.path not in self._members]

    def write_shards(self, on_progress: Callable[[], object]) -> Iterator[Path]:
        """Write the missing tars.

        Args:
            on_progress: called after each picture.

        Raises:
            DataError: a picture is missing, damaged or has changed.
            OutputError: a tar cannot be written.
        """
        try:
            for shard in self.missing:
                self._write(shard, on_progress)
                self._members[shard.path] = list_members(shard.path)
                yield shard.path
        finally:
            for dataset in self._datasets.values():
                dataset.close()

    def write_table(self) -> Path:
        """Write `faces.csv` and the checksums, after all tars.

        Raises:
            OutputError: they cannot be written, or were changed since an earlier run.
        """
        rows = []
        places = {
            (shard.split, Path(name).stem): (shard.path, *place)
            for shard in self.shards
            for name, place in self._members[shard.path].items()
            if not name.endswith(".json")
        }
        for split, dataset in self._datasets.items():
            for index, sample in enumerate(dataset.samples):
                tar, offset, size = places[split, _key(index)]
                place = {
                    "tar": tar.relative_to(self._out).as_posix(),
                    "offset": offset,
                    "size": size,
                }
                rows.append(format_row(describe_sample(sample, split) | place))
        table = _to_csv(rows)
        sums = {shard.path.relative_to(self._out): file_sha256(shard.path) for shard in self.shards}
        sums[Path(TABLE)] = hashlib.sha256(table).hexdigest()
        lines = [f"{sha256}  {path.as_posix()}\n" for path, sha256 in sums.items()]
        self._check_unchanged(lines)
        _write_once(self._out / CHECKSUMS, "".join(lines).encode())
        return _write_once(self._out / TABLE, table)

    def _write(self, shard: PlannedShard, on_progress: Callable[[], object]) -> None:
        dataset, sizes = self._datasets[shard.split], self._sizes[shard.split]
        path = shard.path
        with shard_file(path) as folder, tarfile.open(folder / path.name, "w") as archive:
            for index in shard.indices:
                sample = dataset.samples[index]
                data, kind = dataset.read_file(sample)
                if len(data) != sizes[index]:
                    raise DataError(
                        f"{sample.file} in {dataset.root} changed while it was packed.",
                        "Pack the dataset again, with another --out.",
                    )
                add_member(archive, f"{_key(index)}.{_SUFFIXES[kind]}", data)
                labels = describe_sample(sample, shard.split)
                known = {
                    name: value for name, value in labels.items() if value not in (None, "", [])
                }
                add_metadata(archive, _key(index), known)
                on_progress()

    def _check_unchanged(self, lines: Sequence[str]) -> None:
        """Raises `OutputError` if a tar has not the checksum that an earlier run wrote."""
        with suppress(OSError, ValueError):  # not written yet
            written = (self._out / CHECKSUMS).read_text(encoding="utf-8").splitlines(keepends=True)
            changed = [line for line in written if line not in lines]
            if changed and len(written) == len(lines):
                name = changed[0].partition("  ")[2].strip()
                raise OutputError(
                    f"{self._out / name} was changed after it was written.",
                    "Delete it and run the same command again.",
                )

    def _is_whole(self, shard: PlannedShard, members: Members) -> bool:
        sizes = self._sizes[shard.split]
        found = [
            (Path(n).stem, size) for n, (_, size) in members.items() if Path(n).suffix != ".json"
        ]
        return found == [(_key(index), sizes[index]) for index in shard.indices]

    def _hash_labels(self) -> str:
        """A hash of all labels and sizes, which changes with the dataset."""
        rows: list[dict[str, Any]] = [
            describe_sample(sample, split) | {"size": size}
            for split, dataset in self._datasets.items()
            for sample, size in zip(dataset.samples, self._sizes[split], strict=True)
        ]
        return hashlib.sha256(_to_csv(rows)).hexdigest()


def divide(sizes: Sequence[int], limit: int, seed: int) -> list[list[int]]:
    """Divide pictures in random order into tars.

    Args:
        sizes: of the pictures, bytes.
        limit: of a tar, bytes; a larger picture has a tar of its own.
        seed: of the order.

    Returns:
        Indices of the pictures of each tar.
    """
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    parts: list[list[int]] = []
    filled = limit + 1
    for index in order:
        if filled + sizes[index] > limit:
            parts.append([])
            filled = 0
        parts[-1].append(index)
        filled += sizes[index]
    return parts


def _open_splits(data: str, splits: Sequence[str]) -> dict[str, Dataset]:
    found: dict[str, Dataset] = {}
    for split in splits:
        try:
            found[split] = open_dataset(data, split)
        except EmptySplitError:
            if len(splits) == 1:
                raise
    if not found:
        raise DataError(f"No labelled pictures in {data}.", "Check the folder.")
    return found


def _check_empty(out: Path) -> None:
    with suppress(OSError):  # not there, or not a folder: creating it reports that
        names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
        if names and MANIFEST not in names:
            raise OutputError(
                f"The folder {out} has files that faceage pack did not write.",
                "Use a new folder as --out.",
            )


def _key(index: int) -> str:
    """The key of a sample: the files of each are named after its place in the dataset."""
    return f"{index:08}"


def _to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        return text.getvalue().encode()
    except UnicodeEncodeError as error:
        row = error.object[error.object.rindex("\n", 0, error.start) + 1 :]
        name = ascii(row.partition(",")[0])
        raise DataError(f"The name of a picture is not UTF-8: {name}.", "Rename it.") from None


def _write_once(path: Path, data: bytes) -> Path:
    """Write a file, unless it has these contents already."""
    try:
        return write_file(path, data)
    except OutputError:
        if path.is_file() and path.read_bytes() != data:
            raise OutputError(
                f"{path} was changed after it was written.",
                "Rename it and run the same command again.",
            ) from None
        if not path.is_file():
            raise
        return path
