"""Conversion between uint8 pictures and network input."""

import numpy as np
import torch

from faceage.imaging.conversion import resize_images, to_tensor, to_uint8

LEVELS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)


def test_black_is_minus_one_and_white_is_one() -> None:
    faces = to_tensor(LEVELS)
    assert faces.shape == (1, 3, 16, 16)
    assert faces.dtype == torch.float32
    assert (faces.min().item(), faces.max().item()) == (-1, 1)


def test_every_level_survives_the_round_trip() -> None:
    np.testing.assert_array_equal(to_uint8(to_tensor(LEVELS)), LEVELS)


def test_arrays_and_tensors_give_the_same() -> None:
    assert torch.equal(to_tensor(torch.from_numpy(LEVELS)), to_tensor(LEVELS))
    mirrored = LEVELS[:, :, ::-1]
    mirrored.flags.writeable = False
    assert torch.equal(to_tensor(mirrored), to_tensor(LEVELS).flip(3))


def test_values_beyond_the_range_are_clipped() -> None:
    faces = torch.tensor([-3.0, 0.0, 3.0]).reshape(1, 3, 1, 1)
    assert to_uint8(faces).ravel().tolist() == [0, 128, 255]


def test_resize_averages_when_it_shrinks() -> None:
    chequered = (np.indices((8, 8)).sum(0) % 2 * 200).astype(np.uint8)
    images = chequered[None, :, :, None].repeat(3, 3)
    assert (resize_images(images, 4) == 100).all()
    assert resize_images(images, 16).shape == (1, 16, 16, 3)
    assert resize_images(images, 8) is images
