"""Datasets of labelled FFHQ crops, and their pictures decoded into memory.

Files are not trusted: pictures must be regular files or members of zips or tars, of limited size,
in one of `FORMATS`, and of limited resolution.
"""

import io
import os
import stat
import tarfile
import threading
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from faceage.ages import GROUPS, group_range
from faceage.data.layouts import WHOLE as WHOLE
from faceage.data.layouts import Sample, read_samples
from faceage.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_BYTES = 1 << 26  # of a picture's file; FFHQ's largest crops have 2 MB
MAX_PIXELS = 1 << 26  # of a picture: 8192 x 8192

# Raised by Pillow and zipfile for damaged, encrypted or oversized files.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    SyntaxError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)


class EmptySplitError(DataError):
    """A dataset has no pictures in a split."""


class Dataset:
    """The labelled samples of one split, and access to their pictures."""

    def __init__(self, name: str, root: Path, samples: Sequence[Sample]) -> None:
        self.name = name
        self.root = root
        self.samples = list(samples)
        if not self.samples:
            raise EmptySplitError(
                f"No labelled pictures in {root}.", "Check the folder and the column set."
            )
        # Open zips, which processes and threads must not share.
        self._archives: dict[tuple[int, int, str], zipfile.ZipFile] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_archives": {}}

    @property
    def male(self) -> Tensor:
        """(N,) 1 for male, 0 for female, -1 where unknown."""
        code = {"M": 1.0, "F": 0.0}
        return torch.tensor([code.get(sample.gender, -1.0) for sample in self.samples])

    def read(self, sample: Sample) -> Image.Image:
        """The picture of a sample, RGB. Zips stay open until `close`.

        Raises:
            DataError: the file is missing, damaged, too large, or no picture.
        """
        with self._explain_errors(sample):
            file = io.BytesIO(self._read_bytes(sample))
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"more than {MAX_PIXELS} pixels")
                return image.convert("RGB")

    def read_file(self, sample: Sample) -> tuple[bytes, str]:
        """The bytes of a sample's picture, and its format, one of `FORMATS` or "MPO"; not decoded.

        Raises:
            DataError: as for `read`, except for damage that the file's header does not show.
        """
        with self._explain_errors(sample):
            data = self._read_bytes(sample)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return data, str(image.format)

    def find_size(self, sample: Sample) -> int:
        """The size of a sample's picture in bytes, as its folder or archive states it.

        Raises:
            DataError: it is missing, or its archive is missing or damaged.
        """
        with self._explain_errors(sample):
            if sample.tar:
                return sample.size
            if sample.zip:
                return self._open_zip(sample.zip).getinfo(sample.file).file_size
            return (self.root / sample.file).stat().st_size

    def read_crop(self, index: int, size: int) -> NDArray[np.uint8]:
        """The picture of a sample as (size,size,3) RGB, resized by area or, upwards, cubically.

        Raises:
            DataError: as for `read`.
        """
        image = self.read(self.samples[index])
        if image.size != (size, size):
            enlarged = image.width < size
            method = Image.Resampling.BICUBIC if enlarged else Image.Resampling.BOX
            image = image.resize((size, size), method)
        return np.asarray(image)

    def check_files(self) -> None:
        """Check that all pictures are there, without reading them.

        Raises:
            DataError: some are missing, or a zip is missing or damaged, or a tar is cut short.
        """
        members = {name: self._list_zip(name) for name in {s.zip for s in self.samples if s.zip}}
        ends: dict[str, int] = defaultdict(int)
        missing = []
        for sample in self.samples:
            if sample.tar:
                ends[sample.tar] = max(ends[sample.tar], sample.offset + sample.size)
            elif not (
                sample.file in members[sample.zip]
                if sample.zip
                else (self.root / sample.file).is_file()
            ):
                missing.append(sample.file)
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self)} pictures in {self.root} are missing, such as "
                f"{missing[0]}.",
                "Restore them or remove their rows from the csv.",
            )
        for name, end in ends.items():
            path = self.root / name
            if not path.is_file() or path.stat().st_size < end:
                what = "is cut short" if path.is_file() else "is missing"
                raise DataError(f"{path} {what}.", "Copy it again from its source.")

    def close(self) -> None:
        """Close the zips that this process has opened."""
        for key in [key for key in self._archives if key[0] == os.getpid()]:
            self._archives.pop(key).close()

    @contextmanager
    def _explain_errors(self, sample: Sample) -> Iterator[None]:
        archive = sample.tar or sample.zip
        restore = f"Copy {archive} again" if sample.tar else "Restore the picture"
        try:
            yield
        except (KeyError, FileNotFoundError):
            raise DataError(
                f"{sample.file} is named in the csv but missing from {self.root / archive}.",
                f"{restore} or remove the row.",
            ) from None
        except _UNREADABLE as error:
            raise DataError(
                f"Cannot read {sample.file} in {self.root}: {error}.",
                f"{restore} or remove it from the dataset.",
            ) from None

    def _read_bytes(self, sample: Sample) -> bytes:
        if sample.tar:
            data = self._read_member(sample)
        elif not sample.zip:
            path = self.root / sample.file
            _check_regular(path)
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        else:
            archive = self._open_zip(sample.zip)
            member = archive.getinfo(sample.file)
            if member.file_size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("another compression than stored or deflated")
            with archive.open(member) as file:
                data = file.read(member.file_size)  # no more, whatever it unpacks to
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
        return data

    def _read_member(self, sample: Sample) -> bytes:
        """A picture in a tar, whose header precedes it and must match the csv."""
        header = sample.offset - tarfile.BLOCKSIZE
        if header < 0 or sample.size > MAX_BYTES:
            raise ValueError(f"offset {sample.offset} and size {sample.size} are out of range")
        size = tarfile.BLOCKSIZE + sample.size
        path = self.root / sample.tar
        _check_regular(path)
        with path.open("rb", buffering=0) as file:
            file.seek(header)
            data = file.read(size)
        if len(data) < size:
            raise ValueError(f"{sample.tar} is cut short")
        try:
            member = tarfile.TarInfo.frombuf(data[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            member = tarfile.TarInfo()
        if member.size != sample.size:
            raise ValueError(f"the csv does not match {sample.tar}")
        return data[tarfile.BLOCKSIZE :]

    def _list_zip(self, name: str) -> set[str]:
        try:
            return set(self._open_zip(name).namelist())
        except _UNREADABLE as error:
            raise DataError(
                f"Cannot read {self.root / name}: {error}.", "Restore the zip or remove its rows."
            ) from None

    def _open_zip(self, name: str) -> zipfile.ZipFile:
        key = (os.getpid(), threading.get_ident(), name)
        if key not in self._archives:
            _check_regular(self.root / name)
            self._archives[key] = zipfile.ZipFile(self.root / name)
        return self._archives[key]


@dataclass
class Labels:
    """The labels of N pictures as tensors, all on one device."""

    ages: Tensor  # (N,) years; the middle of the group where only the group is known
    exact: Tensor  # (N,) bool: the age is known, not only the group
    groups: Tensor  # (N,) age groups 0-9
    valid: Tensor  # N,4, x0 y0 x1 y1 as fractions of the side
    weights: Tensor  # (N,) sampling frequency relative to others of the group
    sharp: Tensor  # (N,) Laplacian variance relative to the median; 1 where unknown
    strata: Tensor  # (N,) index of the combination of source and gender
    people: Tensor  # (N,) index of the person; a number of their own for pictures of unknown people

    def __len__(self) -> int:
        return len(self.ages)

    def __getitem__(self, index: Tensor | slice) -> "Labels":
        return Labels(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> "Labels":
        return Labels(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass
class DecodedDataset:
    """A dataset in memory."""

    labels: Labels
    images: Tensor  # N,R,R,3 uint8

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pictures of each batch of indices (M,), M,R,R,3 uint8."""
        return (self.images[index] for index in indices)


def open_dataset(data: str | Path, split: str = "train") -> Dataset:
    """One split of a dataset.

    Args:
        data: a folder, or a name: `ffhq-aging` stands for `$FACEAGE_DATA/ffhq-aging`.
        split: "train", "val" or "test".

    Raises:
        DataError: no such dataset, no layout fits, or a csv lacks a column.
    """
    root = _find_root(str(data))
    name, samples = read_samples(root, split)
    return Dataset(name, root, samples)


def decode(
    dataset: Dataset, size: int, on_progress: Callable[[int], None] | None = None
) -> DecodedDataset:
    """Decode a whole dataset to `size` px.

    Args:
        size: side R in px; see `Dataset.read_crop`.
        on_progress: called with the number of pictures decoded since the last call.

    Raises:
        DataError: a picture is missing or damaged.
    """
    images = np.empty((len(dataset), size, size, 3), np.uint8)

    def work(index: int) -> None:
        images[index] = dataset.read_crop(index, size)

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for done, _ in enumerate(pool.map(work, range(len(dataset))), 1):
            if on_progress and (done % 64 == 0 or done == len(dataset)):
                on_progress((done - 1) % 64 + 1)
    finally:  # after an error or Ctrl-C without decoding the rest
        pool.shutdown(cancel_futures=True)
        dataset.close()
    return DecodedDataset(make_labels(dataset.samples), torch.from_numpy(images))


def make_labels(samples: Sequence[Sample]) -> Labels:
    """The labels of samples as tensors."""
    middles = [sum(group_range(g)) / 2 for g in range(GROUPS)]
    known = [s.sharp for s in samples if s.sharp is not None]
    median = float(np.median(known)) if known else 1.0
    median = median if median > 0 else 1.0
    strata = sorted({(s.source, s.gender) for s in samples})
    numbers = {stratum: number for number, stratum in enumerate(strata)}
    names = [s.person or f"picture {number}" for number, s in enumerate(samples)]
    people = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return Labels(
        ages=torch.tensor([middles[s.group] if s.age is None else s.age for s in samples]),
        exact=torch.tensor([s.age is not None for s in samples]),
        groups=torch.tensor([s.group for s in samples]),
        valid=torch.tensor([s.valid for s in samples]),
        weights=torch.tensor([s.weight for s in samples]),
        sharp=torch.tensor([median if s.sharp is None else s.sharp for s in samples]) / median,
        strata=torch.tensor([numbers[s.source, s.gender] for s in samples]),
        people=torch.tensor([people[name] for name in names]),
    )


def join_labels(parts: Sequence[Labels]) -> Labels:
    """The labels of several datasets, one after the other; they share no person and no stratum."""
    joined = {f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Labels)}
    for name in ("strata", "people"):
        offset, columns = 0, []
        for part in parts:
            columns.append(getattr(part, name) + offset)
            offset += int(getattr(part, name).max()) + 1
        joined[name] = torch.cat(columns)
    return Labels(**joined)


def _find_root(data: str) -> Path:
    root = Path(data).expanduser()
    if data == "ffhq-aging" and not root.is_dir():
        folder = os.environ.get("FACEAGE_DATA")
        root = Path(folder, data) if folder else root
        if not root.is_dir():
            raise DataError(
                f"FFHQ-Aging is not at {root if folder else '$FACEAGE_DATA/ffhq-aging'}.",
                "Get the pictures from NVlabs/ffhq-dataset and ffhq_aging_labels.csv from "
                "royorel/FFHQ-Aging-Dataset, put both there, and set FACEAGE_DATA.",
            )
    if not root.is_dir():
        raise DataError(f"No dataset folder {data!r}.", "Give a folder, or ffhq-aging.")
    return root


def _check_regular(path: Path) -> None:
    """Refuse devices, pipes and folders, which may have no end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
