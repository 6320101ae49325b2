"""Folders without labels: their faces are cut out as FFHQ crops, and their ages predicted."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceage.ages import group_of
from faceage.api import FaceAger, FaceCrops, Prediction
from faceage.balance.folder import REAL, Journal, Row, hash_text
from faceage.balance.plan import to_label
from faceage.data.layouts import UNIT, Sample
from faceage.devices import map_ahead
from faceage.errors import PhotoError
from faceage.faces.alignment import apply, crop_face, to_crop, valid_box
from faceage.files import make_folder
from faceage.imaging.photos import Photo, open_photo, save_photo


@dataclass(frozen=True)
class PhotoFaces:
    """The faces found in photos, and what went wrong.

    Attributes:
        samples: with predicted ages; their files are in `out/real`.
        errors: of photos that could not be opened or have no face.
    """

    samples: list[Sample]
    errors: list[str]


class PhotoReader:
    """Finds faces, predicts their ages and, given a folder, writes their crops.

    Args:
        root: the photos' common folder.
        size: side of the crops, px.
    """

    def __init__(self, root: Path, ager: FaceAger, size: int) -> None:
        self.root, self.ager, self.size = root, ager, size

    def read(
        self, photos: Iterable[Path], out: Path | None, on_progress: Callable[[], object]
    ) -> PhotoFaces:
        """The faces of all photos; with `out`, those that were read before are not read again.

        Raises:
            OutputError: a crop cannot be written.
        """
        samples, errors = [], []
        for row in self._rows(list(photos), out):
            samples += [_as_sample(face) for face in row["faces"]]
            errors += [row["error"]] if row["error"] else []
            on_progress()
        return PhotoFaces(samples, errors)

    def _rows(self, photos: list[Path], out: Path | None) -> Iterator[Row]:
        journal = Journal(out / "photos.jsonl") if out else None
        known = {row["photo"]: row for row in journal.rows} if journal else {}
        names = {path: path.relative_to(self.root).as_posix() for path in photos}
        done = {name for name, row in known.items() if out and _has_crops(row, out)}
        found = map_ahead(self._find, [path for path in photos if names[path] not in done])
        for path in photos:
            name = names[path]
            if name in done:
                yield known[name]
                continue
            row = self._read_one(name, next(found), out)
            if journal and name not in known:
                journal.append(row)
            yield row

    def _find(self, path: Path) -> tuple[Photo, FaceCrops]:
        photo = open_photo(path)
        return photo, self.ager.crop_faces(photo)

    def _read_one(
        self,
        name: str,
        find: Callable[[], tuple[Photo, FaceCrops]],
        out: Path | None,
    ) -> Row:
        try:
            photo, crops = find()
        except PhotoError as error:
            return {"photo": name, "faces": [], "error": str(error)}
        faces = []
        for prediction in self.ager.predict_crops(crops):
            file = f"{name}.face{prediction.number}.png"
            if out:
                crop = crop_face(photo.pixels, prediction.face, self.size)
                make_folder((out / REAL / file).parent)
                save_photo(photo.derive(crop), crop, out / REAL / file, force=True)
            faces.append(_describe(photo, prediction, file))
        return {"photo": name, "faces": faces, "error": ""}


def hash_photos(root: Path, photos: Iterable[Path]) -> str:
    """A hash of the photos' names and sizes in bytes."""
    names = ((path.relative_to(root).as_posix(), path.stat().st_size) for path in photos)
    return hash_text(json.dumps(list(names)))


def _has_crops(row: Row, out: Path) -> bool:
    return all((out / REAL / face["file"]).exists() for face in row["faces"])


def _describe(photo: Photo, prediction: Prediction, file: str) -> Row:
    matrix = to_crop(prediction.face.landmarks, UNIT)
    height, width = photo.pixels.shape[:2]
    return {
        "file": file,
        "age": round(prediction.age, 2),
        "valid": [side / UNIT for side in valid_box(matrix, (height, width), UNIT)],
        "landmarks": np.round(apply(matrix, prediction.face.landmarks), 1).ravel().tolist(),
    }


def _as_sample(face: Row) -> Sample:
    age = to_label(face["age"])
    x0, y0, x1, y1 = face["valid"]
    return Sample(
        file=face["file"],
        group=group_of(age),
        age=float(age),
        valid=(x0, y0, x1, y1),
        landmarks=tuple(face["landmarks"]),
        estimated=True,
    )
