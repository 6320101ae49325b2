"""Shards: zip archives of pictures, with a table of what was rendered."""

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceage.errors import DataError
from faceage.files import write_file

TABLE = "rendered.csv"  # inside the archive
WEBP_QUALITY = 92


@dataclass(frozen=True)
class Rendered:
    """One rendered face.

    Attributes:
        file: its name in the archive.
        person: number of the person.
        step: along the age direction, from the person's own code.
        goal: the linear prediction of age that was asked for; not the age of the face.
    """

    file: str
    person: int
    step: float
    goal: float


def write_shard(
    path: Path, rendered: Sequence[Rendered], images: Sequence[NDArray[np.uint8]]
) -> Path:
    """Write a shard atomically, replacing an existing one.

    Raises:
        OutputError: it cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for row, image in zip(rendered, images, strict=True):
            data = io.BytesIO()
            Image.fromarray(image).save(data, "WEBP", quality=WEBP_QUALITY, method=4)
            _add(archive, row.file, data.getvalue())
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(Rendered)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rendered)
        _add(archive, TABLE, text.getvalue().encode())
    return write_file(path, buffer.getvalue(), force=True)


def read_table(path: Path) -> list[Rendered]:
    """What a shard contains.

    Raises:
        DataError: missing or damaged.
    """
    with _reading(path) as archive:
        text = archive.read(TABLE).decode()
        return [
            Rendered(row["file"], int(row["person"]), float(row["step"]), float(row["goal"]))
            for row in csv.DictReader(io.StringIO(text))
        ]


def read_images(path: Path) -> list[NDArray[np.uint8]]:
    """The faces of a shard, in the order of its table.

    Raises:
        DataError: missing or damaged.
    """
    rows = read_table(path)
    with _reading(path) as archive:
        return [
            np.asarray(Image.open(io.BytesIO(archive.read(row.file))).convert("RGB"))
            for row in rows
        ]


@contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"Cannot read the shard {path}: {error}.", "Delete it and run the command again."
        ) from None


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    # A fixed date, so that the same faces give the same bytes.
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
