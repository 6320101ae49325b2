"""A photo whose faces are encoded once, and then shown at any ages."""

from collections.abc import Mapping, Sequence

import numpy as np

from faceage.ages import check_age
from faceage.faces.alignment import Face, crop_face, native_size, resize_crop
from faceage.faces.hair import continue_beyond, hair_mask, widen
from faceage.faces.paste import add_change, face_mask, head_mask
from faceage.faces.segmentation import SIZE, segment_head
from faceage.faces.selection import NumberedFace
from faceage.imaging.photos import Photo
from faceage.inference.backend import Backend, FaceChange, Floats, Pixels

# Mean difference of the colour channels, in levels of 0-255, below which a crop is black and white.
GREY = 1.5
# How many times the model's size a face must exceed to get details of the fine level.
LEAST_FINE = 2
# Least fraction of the face that is found to be head; below it, the segmentation has failed.
MIN_HEAD = 0.4


class PhotoEditor:
    """Some faces of one photo, encoded; made by `FaceAger.edit`.

    Attributes:
        photo: as opened.
        numbers: the numbers of the faces in the photo, 1 for the largest face.
        faces: their boxes, landmarks and scores, in the same order.
    """

    def __init__(self, backend: Backend, photo: Photo, found: Sequence[NumberedFace]) -> None:
        self.photo = photo
        self.numbers, self.faces = zip(*found, strict=True)
        self._backend = backend
        crops = np.stack([crop_face(photo.pixels, f, backend.size) for f in self.faces])
        self._heads = [segment_head(crop) for crop in crops]
        self._hair = [
            hair_mask(photo.pixels, face, head)
            for face, head in zip(self.faces, self._heads, strict=True)
        ]
        self._encoded = backend.encode(crops)
        self._native = [crop_face(photo.pixels, face, native_size(face)) for face in self.faces]
        self._grey = [_is_grey(crop) for crop in self._native]

    def decode(self, index: int, ages: Sequence[float]) -> list[FaceChange]:
        """The changes of the face at `index` to all target ages (years), for `refine`."""
        return self._backend.decode(self._encoded, index, ages)

    def refine(self, index: int, change: FaceChange) -> FaceChange:
        """A change from `decode` as it is to be added to the photo: see `refine_change`."""
        return refine_change(self._backend, self.faces[index], self._native[index], change)

    def render(self, ages: Mapping[int, float]) -> np.ndarray:
        """The photo with each face at an age of its own.

        Args:
            ages: target ages in years, by the numbers of the faces; the other faces stay.

        Returns:
            A new array of the shape and type of `photo.full`.

        Raises:
            AgeError: a target age is out of range.
        """
        pixels = self.photo.full.copy()
        for index, number in enumerate(self.numbers):
            if number in ages:
                change = self.decode(index, [check_age(ages[number])])[0]
                self.paste(pixels, index, self.refine(index, change))
        return pixels

    def paste(self, pixels: np.ndarray, index: int, change: FaceChange) -> None:
        """Add a change from `refine` to `pixels`, an array like `photo.full`."""
        levels = change_levels(self._backend, self._native[index], change, self._grey[index])
        mask = self.mask(index, change)
        add_levels(pixels, self.faces[index], levels, mask, self.hair(index))

    def mask(self, index: int, change: FaceChange) -> Floats:
        """The weight of a change at each pixel of the crop, (128,128) from 0 to 1.

        It covers the head as it is in the photo and as it is after the change.
        """
        head = np.maximum(self._heads[index], segment_head(self.crop(index, change)))
        inner = face_mask(self.faces[index].landmarks, SIZE)
        return head_mask(head) if _is_head(head, inner) else inner

    def hair(self, index: int) -> Floats | None:
        """The mask of the hair beyond the crop, for `add_levels`."""
        inner = face_mask(self.faces[index].landmarks, SIZE)
        return self._hair[index] if _is_head(self._heads[index], inner) else None

    def is_grey(self, index: int) -> bool:
        """Whether the face at `index` is black and white."""
        return self._grey[index]

    def crop(self, index: int, change: FaceChange) -> Pixels:
        """The changed face alone, uint8 (R,R,3) at the size of the change's residual."""
        side = change.residual.shape[-1]
        aged = self._backend.apply(resize_crop(self._native[index], side), change)
        levels: Pixels = ((aged + 1) * np.float32(127.5)).round().astype(np.uint8)
        return levels


def refine_change(backend: Backend, face: Face, crop: Pixels, change: FaceChange) -> FaceChange:
    """A change of a face as it is to be added to a photo.

    Its displacement is reduced to zero towards the edge of the paste mask: blending displaced
    content with the photo would show both. If the model has a fine level and the crop more than
    twice the model's size, so that details would show, the fine level adds them.

    Args:
        crop: of the face, uint8 (R,R,3) at the photo's resolution.
        change: from `Backend.decode`.
    """
    mask = face_mask(face.landmarks, change.flow.shape[-1])
    change = change._replace(flow=change.flow * mask)
    if backend.fine_size and len(crop) > LEAST_FINE * backend.size:
        change = backend.refine(resize_crop(crop, backend.fine_size), change)
    return change


def change_levels(backend: Backend, crop: Pixels, change: FaceChange, grey: bool) -> Floats:
    """What a change adds to a face's crop, float32 (R,R,3) in levels of 0-255.

    Args:
        crop: of the face, uint8 (R,R,3) at any resolution R.
        change: from `refine_change`.
        grey: change only the brightness, as of a black-and-white photo.
    """
    original = crop.astype(np.float32) / np.float32(127.5) - 1
    levels: Floats = (backend.apply(crop, change) - original) * np.float32(127.5)
    return np.repeat(levels.mean(axis=2, keepdims=True), 3, axis=2) if grey else levels


def add_levels(
    pixels: np.ndarray, face: Face, levels: Floats, mask: Floats, hair: Floats | None
) -> None:
    """Add the change of a face to a photo, and continue it on the hair beyond the crop.

    Args:
        pixels: the photo, uint8 or uint16 (H,W,3).
        levels: from `change_levels`.
        mask: of the crop, from `PhotoEditor.mask`.
        hair: of the wider crop, from `hair_mask`.
    """
    add_change(pixels, face, levels, mask)
    if hair is not None and hair.any():
        add_change(pixels, widen(face), continue_beyond(levels, mask), hair)


def _is_head(head: Floats, inner: Floats) -> bool:
    """Whether the segmentation has found the head; in a drawing it may not."""
    return bool((head * inner).sum() >= MIN_HEAD * inner.sum())


def _is_grey(crop: Pixels) -> bool:
    red, green, blue = np.moveaxis(crop, 2, 0)
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return bool((highest - lowest).mean() < GREY)
