"""Faces followed over frames, and the smoothing of landmarks and changes."""

import cv2
import numpy as np
import pytest

from faceage.faces.alignment import apply
from faceage.faces.detection import make_detector
from faceage.inference.backend import FaceChange
from faceage.video.rendering import KeyChange, smooth_change
from faceage.video.tracking import smooth_landmarks, track_faces


def motion_at(t: int) -> np.ndarray:
    """The picture turned, enlarged and shifted, (2,3)."""
    matrix = cv2.getRotationMatrix2D((230, 130), 6 * np.sin(t / 6), 1 + 0.05 * np.sin(t / 9))
    return matrix + np.array([[0, 0, 2.0 * t], [0, 0, 20 * np.sin(t / 5)]])


def test_landmarks_follow_a_known_motion(portrait: np.ndarray) -> None:
    frames = [
        cv2.warpAffine(portrait, motion_at(t), (512, 512), borderMode=cv2.BORDER_REFLECT)
        for t in range(21)
    ]
    (track,) = track_faces(frames, make_detector())
    assert (track.person, track.start, track.stop) == (1, 0, 21)
    reference = make_detector().detect(portrait)[0]
    errors = [
        np.linalg.norm(apply(motion_at(t), reference.landmarks) - track.face(t).landmarks, axis=1)
        for t in range(21)
    ]
    assert np.mean(errors) < 0.03 * reference.side
    # The error is nearly constant: the landmarks do not jitter against the face.
    offsets = [
        apply(cv2.invertAffineTransform(motion_at(t)), track.face(t).landmarks) for t in range(21)
    ]
    assert np.abs(np.diff(offsets, axis=0)).max() < 0.01 * reference.side


def test_a_cut_begins_new_tracks(portrait: np.ndarray) -> None:
    mirrored = np.ascontiguousarray(portrait[::-1, ::-1][::-1])
    empty = np.full_like(portrait, 128)
    tracks = track_faces([portrait] * 3 + [empty] * 3 + [mirrored] * 3, make_detector())
    assert [(track.start, track.stop) for track in tracks] == [(0, 3), (6, 9)]
    assert track_faces([empty] * 3, make_detector()) == []


def test_smoothing_reduces_noise_without_delay() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (41, 5, 2))
    shift = np.eye(3)
    shift[0, 2] = 7
    truth = np.zeros((41, 5, 2)) + np.arange(41)[:, None, None] * np.array([7.0, 0])
    detections = {t: truth[t] + noise[t] for t in range(0, 41, 5)}
    smoothed = smooth_landmarks([shift] * 41, detections, sigma=10)
    error = smoothed - truth
    assert np.abs(np.diff(error, axis=0)).max() < 0.15
    assert error.std() < 0.7


def key_at(index: int, value: float) -> KeyChange:
    change = FaceChange(
        np.full((3, 4, 4), value, np.float32), np.full((2, 2, 2), value, np.float32)
    )
    mask, hair = np.ones((4, 4), np.float32), np.full((6, 6), 0.5, np.float32)
    return KeyChange(index, change, mask, hair, 0.0)


@pytest.mark.parametrize("index", [0, 3, 8])
def test_a_constant_change_stays(index: int) -> None:
    smooth = smooth_change([key_at(t, 0.25) for t in (0, 4, 8)], index, reach=12)
    np.testing.assert_allclose(smooth.change.residual, 0.25, rtol=1e-5)
    np.testing.assert_allclose(smooth.mask, 1, rtol=1e-5)
    np.testing.assert_allclose(smooth.hair, 0.5, rtol=1e-5)


def test_nearer_changes_have_more_weight_and_distant_ones_none() -> None:
    keys = [key_at(0, 0.0), key_at(4, 1.0), key_at(40, 9.0)]
    early, late = (smooth_change(keys, t, reach=8).change.flow.mean() for t in (1, 3))
    assert 0 < early < 0.5 < late < 1
    assert smooth_change(keys, 60, reach=8).change.flow.mean() == 9
