"""faceage align: FFHQ crops of the faces in photos, and a csv that lists them, for training."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faceage.cli.batch import Batch
from faceage.cli.common import (
    DetectorOption,
    FaceOption,
    ForceOption,
    MinScoreOption,
    PhotosArgument,
    command,
)
from faceage.cli.outputs import Target, first_face, plan_targets
from faceage.faces.selection import parse_faces
from faceage.files import check_free, make_folder, write_file

if TYPE_CHECKING:
    from faceage.faces.detection import Detector

COLUMNS = ("file", "photo", "face", "score", "valid", "landmarks")
Row = dict[str, Any]  # of the csv


@command
def align(
    photos: PhotosArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the crops and faces.csv.")],
    size: Annotated[int, typer.Option(min=16, max=4096, help="Side of the crops, px.")] = 256,
    face: FaceOption = "all",
    detector: DetectorOption = "yunet",
    min_score: MinScoreOption = 0.6,
    force: ForceOption = False,
) -> int:
    """Cut the faces out of photos as FFHQ does, for training, with a csv that lists them."""
    faces = parse_faces(face)
    batch: Batch[list[Row]] = Batch.collect(photos)
    first = first_face(faces)
    targets = plan_targets(batch.paths, out, lambda target: [target.crop(first)])
    make_folder(out)
    table = out / "faces.csv"
    check_free([table], force)
    batch.reject_failing(lambda path: check_free([targets[path].crop(first)], force))
    if batch.paths:
        from faceage.api import load_detector

        face_detector = load_detector(detector, min_score)

        def work(path: Path) -> list[Row]:
            return align_photo(face_detector, path, targets[path], size, faces, force)

        rows = [row for found in batch.run(work, "aligning") for row in found]
        if rows:
            typer.echo(str(write_table(rows, table, force)))
    return batch.report()


def align_photo(
    detector: "Detector", path: Path, target: Target, size: int, faces: str | int, force: bool
) -> list[Row]:
    """Write the crops of one photo; returns their rows, with the columns `COLUMNS`.

    Raises:
        PhotoError, NoFaceError, OutputError: as in reading, detecting, writing.
    """
    from faceage.faces.alignment import apply, crop_face, to_crop, valid_box
    from faceage.faces.selection import choose_faces
    from faceage.imaging.photos import open_photo, save_photo

    photo = open_photo(path)
    found = choose_faces(photo, detector, faces)
    files = [target.crop(number) for number, _ in found]
    check_free(files, force)
    rows = []
    for file, (number, face) in zip(files, found, strict=True):
        crop = crop_face(photo.pixels, face, size)
        save_photo(photo.derive(crop), crop, file, force=force)
        matrix = to_crop(face.landmarks, size)
        height, width = photo.pixels.shape[:2]
        rows.append(
            {
                "file": file.name,
                "photo": str(path),
                "face": number,
                "score": f"{face.score:.3f}",
                "valid": " ".join(map(str, valid_box(matrix, (height, width), size))),
                "landmarks": " ".join(f"{v:.1f}" for v in apply(matrix, face.landmarks).ravel()),
            }
        )
    return rows


def write_table(rows: list[Row], path: Path, force: bool) -> Path:
    """Write the csv of crops; `faceage train` needs a column `age` or `age_group` added to it.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_file(path, text.getvalue().encode(), force=force)
