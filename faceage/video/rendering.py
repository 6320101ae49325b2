"""Frames with the faces at another age, the change of each face smoothed over time."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from faceage.editing import PhotoEditor, add_levels, change_levels, refine_change
from faceage.faces.alignment import crop_face, native_size
from faceage.faces.hair import WIDE
from faceage.imaging.photos import Photo
from faceage.inference.backend import Backend, FaceChange, Floats, Pixels
from faceage.video.tracking import Track

STRIDE = 4  # frames between those whose change is computed by the networks
REACH = 12  # frames before and after over which changes are averaged


class KeyChange(NamedTuple):
    """What the networks computed for one face in one frame.

    Attributes:
        frame: its index.
        change: in the coordinates of the face's crop.
        mask: weight of the change at each pixel of the crop, (M,M) from 0 to 1.
        hair: the same of the wider crop, for the hair beyond the crop.
        grey: 1 for a black-and-white face, else 0.
    """

    frame: int
    change: FaceChange
    mask: Floats
    hair: Floats
    grey: float


def smooth_change(keys: Iterable[KeyChange], index: int, reach: int) -> KeyChange:
    """The change at a frame: the mean of the changes around it, nearer ones with more weight.

    The weights are a raised cosine that is 0 beyond `reach` frames; if there is no change within,
    the nearest one is taken.
    """
    keys = list(keys)
    near = [key for key in keys if abs(key.frame - index) <= reach]
    if not near:
        near = [min(keys, key=lambda key: abs(key.frame - index))]
    distances = np.array([abs(key.frame - index) for key in near]) / (reach + 1)
    weights = np.float32(1) + np.cos(np.pi * np.minimum(distances, 0.999)).astype(np.float32)
    weights /= weights.sum()

    def mean(arrays: list[Floats]) -> Floats:
        total: Floats = np.tensordot(weights, np.stack(arrays), 1)
        return total

    change = FaceChange(
        mean([key.change.residual for key in near]), mean([key.change.flow for key in near])
    )
    grey = float(np.dot(weights, [key.grey for key in near]))
    mask, hair = mean([key.mask for key in near]), mean([key.hair for key in near])
    return KeyChange(index, change, mask, hair, grey)


def render_frames(
    backend: Backend,
    frames: Iterable[Pixels],
    tracks: list[Track],
    age: float,
    start: int = 0,
    stop: int | None = None,
    stride: int = STRIDE,
    reach: int = REACH,
) -> Iterator[Pixels]:
    """The frames from `start` to before `stop`, with the faces of the tracks at an age.

    At most `reach` + 1 frames are in memory. A frame does not depend on `start` and `stop`.

    Args:
        frames: of the whole clip, uint8 (H,W,3) RGB.
        age: years.
        stride: the networks run on every so many frames.
        reach: frames before and after over which changes are averaged.
    """
    keys: dict[int, deque[KeyChange]] = defaultdict(deque)
    waiting: deque[tuple[int, Pixels]] = deque()

    def finish(index: int, pixels: Pixels) -> Pixels:
        result = pixels
        for number, track in enumerate(tracks):
            if not track.start <= index < track.stop:
                continue
            while keys[number][0].frame < index - reach - stride:
                keys[number].popleft()
            smooth = smooth_change(keys[number], index, reach)
            face = track.face(index)
            crop = crop_face(pixels, face, native_size(face))
            change = refine_change(backend, face, crop, smooth.change)
            levels = change_levels(backend, crop, change, smooth.grey > 0.5)
            weight = np.float32(track.weights[index - track.start])
            result = pixels.copy() if result is pixels else result
            add_levels(result, face, levels, smooth.mask * weight, smooth.hair * weight)
        return result

    for index, pixels in enumerate(frames):
        if stop is not None and index >= stop + reach:
            break
        if index < start - reach - stride:
            continue
        for number, track in enumerate(tracks):
            if track.start <= index < track.stop and (
                index % stride == 0 or index in (track.start, track.stop - 1)
            ):
                keys[number].append(_compute_change(backend, pixels, track, index, age))
        if index >= start and (stop is None or index < stop):
            waiting.append((index, pixels))
        while waiting and waiting[0][0] + reach <= index:
            yield finish(*waiting.popleft())
    while waiting:
        yield finish(*waiting.popleft())


def _compute_change(
    backend: Backend, pixels: Pixels, track: Track, index: int, age: float
) -> KeyChange:
    editor = PhotoEditor(backend, Photo(pixels), [(track.person, track.face(index))])
    change = editor.decode(0, [age])[0]
    hair = editor.hair(0)
    if hair is None:
        hair = np.zeros((WIDE, WIDE), np.float32)
    return KeyChange(index, change, editor.mask(0, change), hair, float(editor.is_grey(0)))
