"""The labels of a dataset: three layouts, recognised by the content of the folder.

- A csv with the columns `file` and `age` or `age_group`; optional `set` (train|val|test), `person`,
  `weight`, `valid` ("x0 y0 x1 y1", px of a 256 px crop: the picture without its padding), `sharp`,
  `gender`, `source`, `landmarks` ("x y" of both eyes, nose and both corners of the mouth, px of a
  256 px crop, image-left ones first), `label` (dataset|estimated), `kept` (rows with 0 are
  skipped), `zip`, `tar`, `offset`, `size`. Pictures lie in the folder, in zips beside the csv, or
  in tars, where offset and size are those of the picture's bytes.
- FFHQ-Aging: its csv, and its pictures as `00000/00000.png` or `00000.png`.
- UTKFace: files named `[age]_[gender]_[race]_[date].jpg`, no csv.

Held-out pictures are split in two by a hash of the person (of the file name where the person is
unknown): `val`, for choices, and `test`, for reported figures. A `set` column that has `test` rows
is used unchanged, and so is that of pictures in tars.

The csv is not trusted: it must be a regular file of limited size, and no row may name a file
outside the dataset's folder.
"""

import csv
import hashlib
import math
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, TextIO

from faceage.ages import GROUP_NAMES, group_of, parse_group
from faceage.errors import AgeError, DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_LABEL = 130  # years; UTKFace has labels up to 116
MAX_TABLE_BYTES = 1 << 29  # of a csv; FFHQ-Aging's has 5 MB
WHOLE = (0.0, 0.0, 1.0, 1.0)
UNIT = 256  # px; side of the crop in which a csv states `valid` and `landmarks`
HELD_OUT = 0.1  # fraction of the people, where a dataset names no split

_UTK_NAME = re.compile(r"(\d{1,3})_([01])_.*", re.ASCII)


class NoLabelsError(DataError):
    """A folder has no labels in any of the layouts."""


@dataclass(frozen=True)
class Sample:
    """One labelled picture.

    Attributes:
        file: path inside the dataset.
        group: age group 0-9.
        age: years, or None where only the group is known.
        weight: sampling frequency relative to others of its group.
        valid: (x0, y0, x1, y1) as fractions of the side: the picture without its padding.
        sharp: Laplacian variance of the face, or None.
        gender: "M", "F" or "".
        source: the collection that the picture comes from, or "".
        zip: the archive beside the csv that contains the file, or "".
        tar: the tar beside the csv that contains the picture, or "".
        offset, size: of the picture's bytes in the tar.
        landmarks: x and y of the five landmarks in turn, px of a 256 px crop; () if unknown.
        estimated: the label is an estimate (the csv's column `label` is "estimated").
        person: identifies the person within the dataset, or "".
    """

    file: str
    group: int
    age: float | None = None
    weight: float = 1.0
    valid: tuple[float, float, float, float] = WHOLE
    sharp: float | None = None
    gender: str = ""
    source: str = ""
    zip: str = ""
    landmarks: tuple[float, ...] = ()
    estimated: bool = False
    person: str = ""
    tar: str = ""
    offset: int = 0
    size: int = 0


def read_samples(root: Path, split: str) -> tuple[str, list[Sample]]:
    """The name and the samples of one split of the dataset in a folder.

    Raises:
        DataError: no layout fits, or a csv lacks a column or has an invalid value.
    """
    tables = sorted(root.glob("*.csv"))
    for table in tables:
        header = _header(table)
        if {"image_number", "age_group"} <= header:
            return "ffhq-aging", _ffhq_aging(root, table, split)
        if "file" in header:
            return root.resolve().name, _with_csv(table, header, split)
    if tables:
        raise NoLabelsError(
            f"{tables[0]} has no column 'file'.",
            "A dataset's csv needs the columns file and age (or age_group).",
        )
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if _is_image(p.name))
    if any(_UTK_NAME.fullmatch(Path(name).name) for name in names):
        return "utkface", _utkface(names, split)
    if (root / "shards.json").exists():
        raise NoLabelsError(
            f"{root} has no faces.csv: its packing has not ended.",
            "Run the same faceage pack command again.",
        )
    raise NoLabelsError(
        f"No labels found in {root}.",
        "Put a csv with the columns file and age there, or name the pictures as UTKFace does.",
    )


def describe_sample(sample: Sample, split: str) -> dict[str, Any]:
    """The labels of a sample by the columns of a csv, without its place in a zip or tar."""
    return {
        "file": sample.file,
        "set": split,
        "age": sample.age,
        "age_group": GROUP_NAMES[sample.group],
        "label": "estimated" if sample.estimated else "dataset",
        "person": sample.person,
        "gender": sample.gender,
        "source": sample.source,
        "weight": sample.weight,
        "valid": [UNIT * value for value in sample.valid],
        "sharp": sample.sharp,
        "landmarks": list(sample.landmarks),
    }


def format_row(labels: Mapping[str, Any]) -> dict[str, str]:
    """Labels as the texts of a csv, from which `read_samples` reads the same sample."""
    return {
        name: " ".join(map(str, value))
        if isinstance(value, list)
        else ""
        if value is None
        else str(value)
        for name, value in labels.items()
    }


def _header(table: Path) -> set[str]:
    with _reading(table) as file:
        return set(next(csv.reader(file), []))


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with _reading(table) as file:
        yield from enumerate(csv.DictReader(file), 2)


@contextmanager
def _reading(table: Path) -> Iterator[TextIO]:
    try:
        found = table.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_TABLE_BYTES:
            raise DataError(
                f"{table} is not a file of at most {MAX_TABLE_BYTES >> 20} MiB.",
                "Remove it, or use another folder.",
            )
        with table.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {table}: {error}.", "Save it as csv in UTF-8.") from None


def _with_csv(table: Path, header: set[str], split: str) -> list[Sample]:
    if not header & {"age", "age_group"}:
        raise NoLabelsError(
            f"{table} has neither a column 'age' nor 'age_group'.",
            "A dataset's csv needs the columns file and age (or age_group).",
        )
    samples = []
    fixed = "tar" in header or any(row.get("set") == "test" for _, row in _rows(table))
    for line, row in _rows(table):
        if row.get("kept") == "0":
            continue
        if not row["file"]:
            raise DataError(
                f"{table}, line {line}: the column file is empty.", "Fill it in or remove the row."
            )
        person = row.get("person") or row["file"]
        named = row.get("set") or ""
        if named == "val" and not fixed:
            named = _hashed_half(person)
        if (named or _hashed_set(person)) != split:
            continue
        try:
            age = _number(row["age"], "age", MAX_LABEL) if row.get("age") else None
            group = group_of(age) if age is not None else parse_group(row.get("age_group") or "")
            samples.append(
                Sample(
                    file=_inside(row["file"], "file"),
                    group=group,
                    age=age,
                    weight=_number(row.get("weight") or "1", "weight"),
                    valid=_valid_box(row["valid"]) if row.get("valid") else WHOLE,
                    sharp=_number(row["sharp"], "sharp") if row.get("sharp") else None,
                    gender=row.get("gender") or "",
                    source=row.get("source") or "",
                    zip=_inside(row.get("zip") or "", "zip"),
                    landmarks=_landmarks(row.get("landmarks") or ""),
                    estimated=row.get("label") == "estimated",
                    person=row.get("person") or "",
                    tar=_inside(row.get("tar") or "", "tar"),
                    offset=_whole_number(row.get("offset") or "0", "offset"),
                    size=_whole_number(row.get("size") or "0", "size"),
                )
            )
        except (ValueError, TypeError, AgeError) as error:
            raise DataError(
                f"{table}, line {line}: {error}", "Correct or remove the row."
            ) from None
    return samples


def _inside(text: str, column: str) -> str:
    """A path of a csv, if it does not leave the folder on any system."""
    path = PureWindowsPath(text)  # knows both kinds of separators
    if path.anchor or ".." in path.parts:
        raise ValueError(f"{column} {text!r} is outside the dataset's folder.")
    return text


def _number(text: str, name: str, most: float = math.inf) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= most):
        raise ValueError(f"{name} {text} is out of range.")
    return value


def _whole_number(text: str, name: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError(f"{name} {text!r} is not a whole number.")
    return int(text)


def _valid_box(text: str) -> tuple[float, float, float, float]:
    box = [float(value) / UNIT for value in text.split()]
    if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise ValueError(f"valid {text!r} is not x0 y0 x1 y1 inside 256 px.")
    return box[0], box[1], box[2], box[3]


def _landmarks(text: str) -> tuple[float, ...]:
    points = tuple(float(value) for value in text.split())
    if len(points) not in (0, 10) or not all(map(math.isfinite, points)):
        raise ValueError(f"landmarks {text!r} are not x and y of five points.")
    return points


def _ffhq_aging(root: Path, table: Path, split: str) -> list[Sample]:
    """FFHQ-Aging's own split and the filter of LATS (Or-El et al., ECCV 2020)."""
    samples = []
    for line, row in _rows(table):
        try:
            number = int(row["image_number"])
            own = "train" if number < 69000 else _hashed_half(str(number))
            if own != split or not _clear_face(row):
                continue
            group = parse_group(row["age_group"])
        except (KeyError, ValueError, TypeError, AgeError) as error:
            raise DataError(
                f"{table}, line {line}: cannot read {error}.", "Is this FFHQ-Aging's own csv?"
            ) from None
        gender = {"male": "M", "female": "F"}.get((row.get("gender") or "").lower(), "")
        samples.append(Sample(_ffhq_file(root, number), group, gender=gender))
    return samples


def _clear_face(row: dict[str, str]) -> bool:
    """FFHQ-Aging's filter; -1 stands for a missing measurement and does not pass."""
    value = {
        name: float(row[name])
        for name in (
            "age_group_confidence",
            "gender_confidence",
            "head_pitch",
            "head_yaw",
            "left_eye_occluded",
            "right_eye_occluded",
        )
    }
    left, right = value["left_eye_occluded"], value["right_eye_occluded"]
    return (
        value["age_group_confidence"] > 0.6
        and value["gender_confidence"] > 0.66
        and abs(value["head_pitch"]) < 30
        and abs(value["head_yaw"]) < 40
        and min(left, right) != -1
        and max(left, right) < 90
        and min(left, right) < 50
        and row["glasses"] not in ("Dark", "-1")
    )


def _ffhq_file(root: Path, number: int) -> str:
    folder = f"{number - number % 1000:05d}"
    names = [f"{stem}/{number:05d}.png" for stem in (folder, f"images/{folder}")]
    names += [f"{number:05d}.png", f"images/{number:05d}.png"]
    return next((name for name in names if (root / name).exists()), names[0])


def _utkface(names: list[str], split: str) -> list[Sample]:
    samples = []
    for name in names:
        match = _UTK_NAME.fullmatch(Path(name).name)
        if match and _hashed_set(name) == split:
            age = float(match[1])
            samples.append(Sample(name, group_of(age), age, gender="MF"[int(match[2])]))
    return samples


def _hashed_set(person: str) -> str:
    """The split of a person: it does not change when files are added or removed."""
    return _hashed_half(person) if _hash(person) < HELD_OUT else "train"


def _hashed_half(person: str) -> str:
    """The held-out split of a person: "val" or "test"."""
    return "val" if _hash(f"{person}/held-out") < 0.5 else "test"


def _hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    data = text.encode(errors="surrogateescape")  # file names need not be UTF-8
    return int(hashlib.sha256(data).hexdigest()[:8], 16) / 2**32


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES
