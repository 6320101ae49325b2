"""One uploaded photo: its faces, shown at ages of their own, and the files made from it.

Sliders work on a smaller copy of the photo, whose faces are encoded once; a download renders the
photo itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from faceage.ages import format_age
from faceage.api import FaceAger, Prediction
from faceage.editing import PhotoEditor
from faceage.errors import PhotoError
from faceage.faces.alignment import Face, crop_face
from faceage.faces.selection import NumberedFace
from faceage.files import write_file
from faceage.imaging.drawing import draw_boxes, strip
from faceage.imaging.encoding import encode_animation
from faceage.imaging.metadata import synthetic_mark
from faceage.imaging.photos import Photo, as_photo, open_photo, result_suffix, save_photo
from faceage.inference.backend import FaceChange, Pixels

MAX_FACES = 6  # the largest faces get a slider
PREVIEW_SIDE = 1280  # px
MAX_PIXELS = 60_000_000  # of an uploaded photo
TILE = 256  # px; a face on a contact sheet
FRAME = 512  # px; a face in an animation
FRAME_SECONDS = 0.1


@dataclass(frozen=True, eq=False)
class Session:
    """One photo on the page.

    Attributes:
        photo: as uploaded.
        name: its file name, which the results are named after.
        predictions: of the faces that have a slider, largest first.
    """

    ager: FaceAger
    photo: Photo
    name: str
    predictions: list[Prediction]

    @classmethod
    def open(cls, ager: FaceAger, source: Path | np.ndarray) -> "Session":
        """Read a photo, find its faces and predict their ages.

        Raises:
            PhotoError: it cannot be read, or has more than `MAX_PIXELS`.
            NoFaceError: there is no face.
        """
        photo = open_photo(source) if isinstance(source, Path) else as_photo(source)
        name = source.name if isinstance(source, Path) else "photo.png"
        height, width = photo.pixels.shape[:2]
        if height * width > MAX_PIXELS:
            raise PhotoError(
                f"The photo has {height * width / 1e6:.0f} megapixels; this page takes "
                f"{MAX_PIXELS // 1_000_000}.",
                "Make it smaller, or use faceage age.",
            )
        return cls(ager, photo, name, ager.predict(photo)[:MAX_FACES])

    @property
    def current_ages(self) -> list[int]:
        """The predicted ages as whole years, where the sliders start."""
        return [round(prediction.age) for prediction in self.predictions]

    @property
    def centre(self) -> float:
        """The middle of the largest face, as a fraction of the photo's width."""
        x0, _, x1, _ = self.predictions[0].face.box
        return float(np.clip((x0 + x1) / 2 / self.photo.pixels.shape[1], 0, 1))

    @cached_property
    def before(self) -> Pixels:
        """The copy of the photo that is shown, uint8 (h,w,3)."""
        pixels = self.photo.pixels
        scale = min(1.0, PREVIEW_SIDE / max(pixels.shape[:2]))
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    def draw_faces(self) -> Pixels:
        """The copy with the boxes, numbers, ages and intervals of the faces."""
        labels = [
            f"{p.number}: {p.age:.0f} years ({p.interval[0]:.0f}-{p.interval[1]:.0f})"
            for p in self.predictions
        ]
        boxes = [face.box for _, face in self._found(self._scale)]
        return draw_boxes(self.before, boxes, labels)

    def render(self, ages: Sequence[float]) -> Pixels:
        """The copy with each face at its age; a face whose age is unchanged stays as it is."""
        editor, pixels = self._preview, self.before.copy()
        for index, age in self._changed(ages).items():
            editor.paste(pixels, index, self._change(index, age))
        return pixels

    def save(self, ages: Sequence[float], folder: Path) -> Path:
        """Write the whole photo with each face at its age, marked as synthetic.

        Raises:
            PhotoError: no age is changed.
            OutputError: it cannot be written.
        """
        changed = self._changed(ages)
        if not changed:
            raise PhotoError("No face is changed yet.", "Move a slider first.")
        targets = {self.predictions[index].number: age for index, age in changed.items()}
        editor = PhotoEditor(self.ager.backend, self.photo, self._found(1.0))
        text = "-".join(f"age{format_age(age)}" for age in targets.values())
        name = Path(self.name)
        path = folder / f"{name.stem}.{text}{result_suffix(name)}"
        mark = {"age": " ".join(map(format_age, targets.values())), **self._weights()}
        return save_photo(self.photo, editor.render(targets), path, force=True, synthetic=mark)

    def save_sheet(self, index: int, ages: Sequence[float], folder: Path) -> Path:
        """Write a contact sheet of one face: the original and all ages."""
        face = self._found(self._scale)[index][1]
        tiles = [crop_face(self.before, face, TILE)]
        tiles += [self._cut_out(index, age, TILE) for age in ages]
        sheet = np.asarray(strip(tiles, ["original", *map(format_age, ages)], wrap=5, tile=TILE))
        path = folder / f"{Path(self.name).stem}.ages.jpg"
        mark = {"age": " ".join(map(format_age, ages)), **self._weights()}
        return save_photo(self.photo.derive(sheet), sheet, path, force=True, synthetic=mark)

    def save_animation(self, index: int, ages: Sequence[float], folder: Path) -> Path:
        """Write an animated WebP of one face that passes through all ages and back."""
        frames = [Image.fromarray(self._cut_out(index, age, FRAME)) for age in ages]
        frames += frames[-2:0:-1]
        mark = synthetic_mark({"age": f"{ages[0]:g} to {ages[-1]:g}", **self._weights()})
        data = encode_animation(frames, FRAME_SECONDS, mark)
        return write_file(folder / f"{Path(self.name).stem}.ages.webp", data, force=True)

    def _cut_out(self, index: int, age: float, side: int) -> Pixels:
        pixels = self.before.copy()
        self._preview.paste(pixels, index, self._change(index, age))
        return crop_face(pixels, self._found(self._scale)[index][1], side)

    def _changed(self, ages: Sequence[float]) -> dict[int, float]:
        current = self.current_ages
        return {i: age for i, age in enumerate(ages[: len(current)]) if age != current[i]}

    def _change(self, index: int, age: float) -> FaceChange:
        return self._preview.refine(index, self._preview.decode(index, [age])[0])

    def _weights(self) -> Mapping[str, str]:
        return {"weights": self.ager.weights_sha[:16]}

    @property
    def _scale(self) -> float:
        return float(self.before.shape[1] / self.photo.pixels.shape[1])

    @cached_property
    def _preview(self) -> PhotoEditor:
        return PhotoEditor(self.ager.backend, as_photo(self.before), self._found(self._scale))

    def _found(self, scale: float) -> list[NumberedFace]:
        """The faces in a copy of the photo, `scale` times as large."""
        found = []
        for prediction in self.predictions:
            face = prediction.face
            x0, y0, x1, y1 = (scale * value for value in face.box)
            landmarks = (face.landmarks + 0.5) * scale - 0.5
            found.append((prediction.number, Face((x0, y0, x1, y1), landmarks, face.score)))
        return found
