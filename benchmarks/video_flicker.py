"""How much the change of a face flickers in a clip, smoothed over time and frame by frame.

    python benchmarks/video_flicker.py [--frames 100] [--age 70] [--noise 3] [--weights NAME|FILE]

The clip is made from the example portrait: it moves, turns, gets nearer and brighter, with noise.
The aged minus the input frame is brought into the first frame's coordinates by the known motion.
Flicker is the mean absolute difference of this change between consecutive frames, on the face, in
levels of 0-255. Displaced noise and the resampling of moved pixels count, too; the second figure is
of the change after a Gaussian filter of 1.5 px, which removes most of them. Sharpness is the
Laplacian variance of the aged faces, relative to the input.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from faceage.cli.batch import load_ager
from faceage.faces.paste import face_mask, photo_mask
from faceage.hub import DEFAULT
from faceage.imaging.photos import open_photo
from faceage.video.rendering import render_frames
from faceage.video.tracking import track_faces

PORTRAIT = Path(__file__).parent.parent / "examples" / "astronaut.jpg"
SIZE = (480, 360)
COARSE = 1.5  # px; standard deviation of the filter
CENTRE = (224.0, 130.0)  # of the head in the portrait, px


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--age", type=float, default=70)
    parser.add_argument("--noise", type=float, default=3, help="standard deviation, levels")
    parser.add_argument("--weights", default=DEFAULT)
    given = parser.parse_args()
    ager = load_ager(given.weights, "cpu", "yunet", 0.6)
    clip, motions = make_clip(given.frames, given.noise)
    start = time.perf_counter()
    tracks = track_faces(iter(clip), ager.detector)
    smooth = list(render_frames(ager.backend, iter(clip), tracks, given.age))
    seconds = time.perf_counter() - start
    # The mean over the whole clip: what is left is resampling, and the floor of this measure.
    constant = list(render_frames(ager.backend, iter(clip), tracks, given.age, reach=len(clip)))
    single = [ager.age(frame, given.age)[0].pixels for frame in clip]
    face = ager.predict(clip[0])[0].face
    mask = photo_mask(face, clip[0].shape, face_mask(face.landmarks, 128)) > 0.9
    print(f"{given.frames} frames, target age {given.age:g}, {len(clip) / seconds:.1f} frames/s")
    sharpness = measure_sharpness(clip, motions, mask)
    results = {"smoothed": smooth, "constant": constant, "frame by frame": single}
    for name, aged in results.items():
        flicker = measure_flicker(clip, aged, motions, mask)
        coarse = measure_flicker(clip, aged, motions, mask, COARSE)
        ratio = measure_sharpness(aged, motions, mask) / sharpness
        print(f"{name}: flicker {flicker:.2f}, filtered {coarse:.2f}, sharpness {ratio:.2f}")


def make_clip(count: int, strength: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames (360,480,3), and the maps (2,3) from the first frame's px to those of each frame."""
    portrait = open_photo(PORTRAIT).pixels
    frames, motions = [], []
    first = None
    for t in range(count):
        angle, scale = 8 * wave(t, 60), 1 + 0.15 * wave(t, 75)
        matrix = cv2.getRotationMatrix2D(CENTRE, angle, scale)
        matrix[:, 2] += (SIZE[0] / 2 - CENTRE[0] + 40 * wave(t, 50), SIZE[1] / 2 - 10 - CENTRE[1])
        frame = cv2.warpAffine(portrait, matrix, SIZE, borderMode=cv2.BORDER_REFLECT)
        noise = np.random.default_rng(t).normal(0, strength, frame.shape)
        lit = frame * (1 + 0.1 * wave(t, 40)) + noise
        frames.append(np.clip(np.rint(lit), 0, 255).astype(np.uint8))
        square = np.vstack([matrix, [0, 0, 1]])
        first = square if first is None else first
        motions.append((square @ np.linalg.inv(first))[:2])
    return frames, motions


def wave(t: int, period: float) -> float:
    return float(np.sin(2 * np.pi * t / period))


def still(frames: list[np.ndarray], motions: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames in the first frame's coordinates, float32."""
    for frame, motion in zip(frames, motions, strict=True):
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        yield cv2.warpAffine(frame.astype(np.float32), motion, SIZE, flags=flags)


def measure_flicker(
    clip: list[np.ndarray],
    aged: list[np.ndarray],
    motions: list[np.ndarray],
    mask: np.ndarray,
    sigma: float = 0,
) -> float:
    """Mean difference of consecutive changes, filtered by a Gaussian of `sigma` px unless 0."""
    changes = [a.astype(np.float32) - c for a, c in zip(aged, clip, strict=True)]
    fixed = list(still(changes, motions))
    if sigma:
        fixed = [cv2.GaussianBlur(change, (0, 0), sigma) for change in fixed]
    steps = [np.abs(b - a)[mask].mean() for a, b in pairwise(fixed)]
    return float(np.mean(steps))


def measure_sharpness(
    frames: list[np.ndarray], motions: list[np.ndarray], mask: np.ndarray
) -> float:
    fixed = still(frames, motions)
    return float(np.mean([cv2.Laplacian(f.mean(2), cv2.CV_32F)[mask].var() for f in fixed]))


if __name__ == "__main__":
    main()
