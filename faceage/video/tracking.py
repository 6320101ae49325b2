"""Faces followed over the frames of a clip.

Faces are detected every few frames. In between, optical flow gives the motion of each face as a
similarity: rotation, scale and shift. Landmarks are smoothed in the coordinates of the face, so a
head that moves fast is not smoothed towards where it was.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from faceage.faces.alignment import Face, apply, crop_bounds, crop_face, to_photo
from faceage.faces.detection import Detector
from faceage.inference.backend import Pixels

DETECT_EVERY = 5  # frames
SMOOTHING = 10.0  # frames; standard deviation of the filter on the landmarks
FADE = 4  # frames, over which the change of a face sets in and ends within a shot
_MISSES = 3  # detections in a row without the face, after which a track ends
_NEAR = 0.25  # distance of landmarks, in sides of the crop, up to which faces are the same
_CUT = 0.6  # correlation of consecutive thumbnails below which a new shot begins
_THUMBNAIL = (32, 18)
_SAME, _SAME_PLACE = 0.85, 0.6  # correlation of crops of one person, anywhere and where it left
_LOOK = 32  # px; side of the crops that are compared
_ROI_SIDE = 384  # px; larger faces are shrunk to this for the optical flow
_MIN_POINTS = 12

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Track:
    """One face over consecutive frames of one shot.

    Attributes:
        person: number of the person, 1 for the one with the largest area summed over the clip.
        start: index of the first frame.
        landmarks: (T,5,2) px, smoothed.
        weights: (T,) of the change, from 0 to 1: less than 1 where a face appears or disappears.
    """

    person: int
    start: int
    landmarks: Matrix
    weights: Matrix

    @property
    def stop(self) -> int:
        """One past the last frame."""
        return self.start + len(self.landmarks)

    def face(self, index: int) -> Face:
        """The face in a frame of the track."""
        return as_face(self.landmarks[index - self.start])


def as_face(landmarks: Matrix) -> Face:
    """A face of which only the landmarks are known."""
    (x0, y0), (x1, y1) = landmarks.min(0), landmarks.max(0)
    return Face((float(x0), float(y0), float(x1), float(y1)), landmarks, 1.0)


@dataclass(eq=False)
class _OpenTrack:
    """A track that is being followed; `motions[i]` maps frame start+i-1 to frame start+i."""

    shot: int
    start: int
    landmarks: Matrix
    look: Pixels
    score: float
    motions: list[Matrix] = field(default_factory=lambda: [np.eye(3)])
    detections: dict[int, Matrix] = field(default_factory=dict)
    misses: int = 0

    @property
    def last(self) -> int:
        return max(self.detections)


def track_faces(
    frames: Iterable[Pixels], detector: Detector, report: Callable[[], object] = lambda: None
) -> list[Track]:
    """The faces of a clip, by start.

    Args:
        frames: uint8 (H,W,3) RGB; each is used once and not kept.
        report: called after every frame.
    """
    active: list[_OpenTrack] = []
    ended: list[_OpenTrack] = []
    cuts = [0]
    before = thumbnail = None
    count = 0
    for count, pixels in enumerate(frames, 1):
        index = count - 1
        grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
        small = np.asarray(cv2.resize(grey, _THUMBNAIL, interpolation=cv2.INTER_AREA), np.uint8)
        if thumbnail is not None and _correlate(thumbnail, small) < _CUT:
            ended, active = ended + active, []
            cuts.append(index)
        lost = _follow(active, before, grey) if before is not None else False
        if lost or (index - cuts[-1]) % DETECT_EVERY == 0:
            _match(active, detector.detect(pixels), pixels, index, len(cuts))
            gone = [t for t in active if t.misses >= _MISSES]
            ended += gone
            active = [track for track in active if track not in gone]
        before, thumbnail = grey, small
        report()
    persons = _number_people(ended + active)
    edges = {*cuts, count}
    return sorted(
        (_finish(track, persons[track], edges) for track in ended + active),
        key=lambda track: track.start,
    )


def smooth_landmarks(
    motions: list[Matrix], detections: dict[int, Matrix], sigma: float = SMOOTHING
) -> Matrix:
    """Landmarks of every frame, from those of some frames and the motion between frames.

    Detected landmarks are mapped into the first frame by the motion, averaged there with Gaussian
    weights of the distance in time, and mapped back. The filter has no delay.

    Args:
        motions: (3,3) each, from the frame before; the first is not used.
        detections: (5,2) px by index of the frame.
        sigma: frames; standard deviation of the weights.

    Returns:
        float64 (T,5,2).
    """
    forward = [np.eye(3)]
    for motion in motions[1:]:
        forward.append(motion @ forward[-1])
    times = np.array(sorted(detections))
    fixed = np.stack([apply(np.linalg.inv(forward[t])[:2], detections[t]) for t in times])
    result = []
    for t, matrix in enumerate(forward):
        squared = ((times - t) / sigma) ** 2
        weights = np.exp(-0.5 * (squared - squared.min()))
        result.append(apply(matrix[:2], np.average(fixed, axis=0, weights=weights)))
    return np.stack(result)


def estimate_motion(before: Pixels, after: Pixels, landmarks: Matrix) -> Matrix | None:
    """The similarity (3,3) that maps a face from one grey frame to the next; None if unknown."""
    face = as_face(landmarks)
    x0, y0, x1, y1 = crop_bounds(face, margin=round(face.side / 4), within=before.shape)
    if min(x1 - x0, y1 - y0) < 16:
        return None
    scale = min(1.0, _ROI_SIDE / max(x1 - x0, y1 - y0))
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    first, second = (
        cv2.resize(frame[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA)
        for frame in (before, after)
    )
    grid = np.stack(np.meshgrid(np.linspace(0.28, 0.72, 14), np.linspace(0.28, 0.8, 14)), -1)
    photo = apply(to_photo(landmarks, 1), grid.reshape(-1, 2) - 0.5)
    ratio = np.array(size) / (x1 - x0, y1 - y0)
    points = ((photo - (x0, y0) + 0.5) * ratio - 0.5).astype(np.float32)
    flow = partial(cv2.calcOpticalFlowPyrLK, winSize=(21, 21), maxLevel=4)
    there, found, _ = flow(first, second, points, points.copy())
    back, again, _ = flow(second, first, there, there.copy())
    good = (np.asarray(found) & np.asarray(again)).ravel().astype(bool) & (
        np.abs(back - points).max(1) < 0.7
    )
    if good.sum() < _MIN_POINTS:
        return None
    start, end = ((p[good] + 0.5) / ratio - 0.5 + (x0, y0) for p in (points, there))
    matrix, inliers = cv2.estimateAffinePartial2D(
        start, end, method=cv2.RANSAC, ransacReprojThreshold=max(1.0, 0.006 * face.side)
    )
    if matrix is None or inliers.sum() < max(_MIN_POINTS, good.sum() // 4):
        return None
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def _follow(active: list[_OpenTrack], before: Pixels, after: Pixels) -> bool:
    """Move every track on to the next frame; whether the motion of one of them is unknown."""
    lost = False
    for track in active:
        motion = estimate_motion(before, after, track.landmarks)
        lost = lost or motion is None
        track.motions.append(np.eye(3) if motion is None else motion)
        track.landmarks = apply(track.motions[-1][:2], track.landmarks)
    return lost


def _match(
    active: list[_OpenTrack], faces: list[Face], pixels: Pixels, index: int, shot: int
) -> None:
    """Assign the faces of a frame to the tracks, nearest first; the others begin tracks."""

    def distance(track: _OpenTrack, face: Face) -> float:
        expected = as_face(track.landmarks)
        apart = np.linalg.norm(face.landmarks - track.landmarks, axis=1).mean()
        return float(apart / max(expected.side, face.side))

    pairs = sorted(
        ((distance(track, face), t, f) for t, track in enumerate(active)
         for f, face in enumerate(faces)),
    )  # fmt: skip
    used_tracks: set[int] = set()
    used_faces: set[int] = set()
    for apart, t, f in pairs:
        if apart < _NEAR and t not in used_tracks and f not in used_faces:
            used_tracks.add(t)
            used_faces.add(f)
            track, face = active[t], faces[f]
            track.detections[index - track.start] = track.landmarks = face.landmarks
            track.misses = 0
            if face.score > track.score:
                track.look, track.score = crop_face(pixels, face, _LOOK), face.score
    for t, track in enumerate(active):
        track.misses += t not in used_tracks
    for f, face in enumerate(faces):
        if f not in used_faces:
            look = crop_face(pixels, face, _LOOK)
            track = _OpenTrack(shot, index, face.landmarks, look, face.score)
            track.detections[0] = face.landmarks
            active.append(track)


def _finish(track: _OpenTrack, person: int, edges: set[int]) -> Track:
    """The track up to its last detection, smoothed; within a shot, its change fades in and out."""
    at_edge = track.start + len(track.motions) in edges
    length = len(track.motions) if at_edge and not track.misses else track.last + 1
    landmarks = smooth_landmarks(track.motions[:length], track.detections)
    times = np.arange(length)
    weights = np.ones(length)
    if track.start not in edges:
        weights = np.minimum(weights, (times + 1) / (FADE + 1))
    if track.start + length not in edges:
        weights = np.minimum(weights, (length - times) / (FADE + 1))
    return Track(person, track.start, landmarks, weights)


def _number_people(tracks: list[_OpenTrack]) -> dict[_OpenTrack, int]:
    """The person of each track: tracks that look alike and do not overlap are of one person."""
    people: list[list[_OpenTrack]] = []
    for track in sorted(tracks, key=lambda track: track.start):
        best, likeness = None, 0.0
        for person in people:
            if any(track.start < other.start + other.last + 1 for other in person):
                continue
            alike = max(_correlate(other.look, track.look) for other in person)
            last = max(person, key=lambda other: other.start)
            away = np.abs(last.landmarks - track.landmarks).mean() / as_face(track.landmarks).side
            needed = _SAME_PLACE if last.shot == track.shot and away < 0.5 else _SAME
            if alike >= needed and alike > likeness:
                best, likeness = person, alike
        if best is None:
            people.append([track])
        else:
            best.append(track)

    def area(person: list[_OpenTrack]) -> float:
        return sum(as_face(track.landmarks).side ** 2 * (track.last + 1) for track in person)

    ordered = sorted(people, key=area, reverse=True)
    return {track: n for n, person in enumerate(ordered, 1) for track in person}


def _correlate(a: Pixels, b: Pixels) -> float:
    """Correlation of two pictures of one size, from -1 to 1; it does not depend on brightness."""
    x, y = (p.astype(np.float64) - p.mean(axis=(0, 1)) for p in (a, b))
    norm = np.sqrt((x**2).sum() * (y**2).sum())
    # Two pictures without contrast are equal.
    return float((x * y).sum() / norm) if norm > 1e-6 else float(x.std() + y.std() < 1)
