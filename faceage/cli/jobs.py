"""What the commands do with one photo: predict, age, align. Files in, files and rows out."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faceage.ages import format_age
from faceage.api import FaceAger, NumberedFace, choose_faces, prediction_row
from faceage.cli.batch import AgePlan, AlignPlan
from faceage.faces.alignment import crop_face, to_crop
from faceage.faces.detection import Detector
from faceage.files import check_free, write_file
from faceage.imaging import drawing
from faceage.imaging.photos import Photo, open_photo, save_photo

SHEET_TILE = 256  # px; side of a face on a contact sheet
ALIGNED_COLUMNS = ("file", "photo", "face", "score", "valid", "landmarks")
MIN_INSIDE = 0.9  # share of an edge of the valid box that must be picture


def predict_photo(
    ager: FaceAger, path: Path, faces: str | int, drawn: Path | None, force: bool
) -> list[dict[str, Any]]:
    """The rows of one photo; with `drawn`, also the photo with boxes and ages drawn on it."""
    if drawn:
        check_free([drawn], force)
    photo = open_photo(path)
    rows = [prediction_row(str(path), found) for found in ager.predict(photo, faces)]
    if drawn:
        pixels = drawing.draw_faces(photo.pixels, rows)
        save_photo(photo, pixels, drawn, force=force, synthetic=None)
    return rows


def age_photo(ager: FaceAger, path: Path, plan: AgePlan) -> list[Path]:
    """Write one photo at all ages; returns the files written.

    Raises:
        PhotoError, NoFaceError, OutputError: as in reading, detecting, writing.
    """
    photo = open_photo(path)
    found = choose_faces(photo, ager.detector, plan.faces)
    if plan.crop:  # now that the number of faces is known
        check_free((f for number, _ in found for f in plan.aged(path, number)), plan.force)

    def save(source: Photo, pixels: np.ndarray, file: Path, ages: str) -> None:
        mark = {"age": ages, "weights": ager.weights_sha[:16]}
        written.append(save_photo(source, pixels, file, force=plan.force, synthetic=mark))

    written: list[Path] = []
    tiles = [[crop_face(photo.pixels, face, SHEET_TILE)] for _, face in found]
    for i, aged in enumerate(ager.iter_age(photo, plan.ages, found)):
        if plan.crop:
            for number, crop in zip(aged.numbers, aged.crops, strict=True):
                save(_bare(photo, crop), crop, plan.aged(path, number)[i], format_age(aged.age))
        else:
            save(photo, aged.pixels, plan.aged(path, 1)[i], format_age(aged.age))
        if plan.sheet:
            for row, face in zip(tiles, aged.faces, strict=True):
                row.append(crop_face(aged.pixels, face, SHEET_TILE))
    if plan.sheet:
        sheet = _sheet(tiles, plan.ages, found)
        save(
            _bare(photo, sheet), sheet, plan.sheet_path(path), " ".join(map(format_age, plan.ages))
        )
    return written


def align_photo(detector: Detector, path: Path, plan: AlignPlan) -> list[dict[str, Any]]:
    """Write the crops of one photo; returns their rows, with the columns `ALIGNED_COLUMNS`.

    Raises:
        PhotoError, NoFaceError, OutputError: as in reading, detecting, writing.
    """
    check_free([plan.result(path)], plan.force)
    photo = open_photo(path)
    found = choose_faces(photo, detector, plan.faces)
    files = [plan.result(path, number) for number, _ in found]
    check_free(files, plan.force)
    rows = []
    for file, (number, face) in zip(files, found, strict=True):
        crop = crop_face(photo.pixels, face, plan.size)
        save_photo(_bare(photo, crop), crop, file, force=plan.force, synthetic=None)
        matrix = to_crop(face.landmarks, plan.size)  # 2x3
        landmarks = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
        valid = valid_box(matrix, photo.pixels.shape[:2], plan.size)
        rows.append(
            {
                "file": file.name,
                "photo": str(path),
                "face": number,
                "score": f"{face.score:.3f}",
                "valid": " ".join(map(str, valid)),
                "landmarks": " ".join(f"{value:.1f}" for value in landmarks.ravel()),
            }
        )
    return rows


def write_aligned(rows: Sequence[dict[str, Any]], plan: AlignPlan) -> Path:
    """Write the csv of crops; `faceage train` reads it once it has a column `age` or `age_group`.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, ALIGNED_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_file(plan.table, text.getvalue().encode(), force=plan.force)


def valid_box(matrix: np.ndarray, shape: tuple[int, int], size: int) -> tuple[int, int, int, int]:
    """The part of a crop that is picture and not padding, as x0, y0, x1, y1 in px of the crop.

    Starting from the whole crop, the worst edge is moved in until each is picture for nine tenths.

    Args:
        matrix: photo -> crop, 2x3.
        shape: height and width of the photo, px.
        size: side of the crop, px.
    """
    back = np.linalg.inv(matrix[:, :2])
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1)  # the pixels' centres
    places = (grid - matrix[:, 2]) @ back.T  # size,size,2: x and y in the photo
    inside = ((places >= -0.5) & (places <= np.array(shape[::-1]) - 0.5)).all(-1)
    x0, y0, x1, y1 = 0, 0, size, size
    while x1 - x0 > 1 and y1 - y0 > 1:
        box = inside[y0:y1, x0:x1]
        shares = [box[:, 0].mean(), box[0].mean(), box[:, -1].mean(), box[-1].mean()]
        worst = int(np.argmin(shares))
        if shares[worst] >= MIN_INSIDE:
            break
        x0, y0 = x0 + (worst == 0), y0 + (worst == 1)
        x1, y1 = x1 - (worst == 2), y1 - (worst == 3)
    return x0, y0, x1, y1


def _sheet(
    tiles: list[list[np.ndarray]], ages: Sequence[float], found: Sequence[NumberedFace]
) -> np.ndarray:
    captions = ["original", *(format_age(age).lstrip("0") or "0" for age in ages)]
    if len(tiles) == 1:
        return np.asarray(drawing.strip(tiles[0], captions, tile=SHEET_TILE))
    labels = [f"face {number}" for number, _ in found]
    return np.asarray(drawing.contact_sheet(tiles, captions, labels, tile=SHEET_TILE))


def _bare(photo: Photo, pixels: np.ndarray) -> Photo:
    """What a crop or sheet takes over from its photo: the colour profile, not the camera's data."""
    return Photo(pixels, icc=photo.icc, path=photo.path)
