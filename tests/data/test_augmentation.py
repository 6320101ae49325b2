"""Augmentation: shapes, ranges, padding and the source of random numbers."""

import math

import pytest
import torch
from torch import Tensor

from faceage.data import augmentation as augment
from faceage.models.windows import inner_face

WHOLE = torch.tensor([[0.0, 0, 1, 1]])


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 48, 48, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Geometric augmentation replaced by the identity."""

    def stay(count: int, *_: object, **__: object) -> Tensor:
        return torch.eye(2, 3).expand(count, 2, 3)

    monkeypatch.setattr(augment, "random_similarity", stay)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No recolouring, blur, noise or erasing."""
    monkeypatch.setattr(augment, "recolour", lambda faces, strength: faces)
    for name in ("_degrade", "erase"):
        monkeypatch.setattr(augment, name, lambda faces, **_: faces)


def _window_picture(count: int, side: int = 64) -> tuple[Tensor, Tensor]:
    """White inside its `valid` box, black padding around it."""
    images = torch.zeros(count, side, side, 3, dtype=torch.uint8)
    images[:, side // 4 :, side // 4 : side // 4 * 3] = 255
    return images, torch.tensor([[0.25, 0.25, 0.75, 1.0]]).expand(count, 4)


def _shrunk(mask: Tensor, pixels: int) -> Tensor:
    """The mask without its outermost pixels."""
    return 1 - torch.nn.functional.max_pool2d(1 - mask, 2 * pixels + 1, 1, pixels)


def test_whole_faces(images: Tensor) -> None:
    torch.manual_seed(0)
    faces, mask = augment.whole_faces(images, WHOLE.expand(4, 4), 32)
    assert faces.shape == (4, 3, 32, 32)
    assert mask.shape == (4, 1, 32, 32)
    assert faces.dtype == mask.dtype == torch.float32
    assert -1 <= faces.min() < -0.3
    assert 0.3 < faces.max() <= 1
    assert mask.unique().tolist() in ([0.0, 1.0], [1.0])
    assert mask[..., 6:-6, 6:-6].all()  # moved a little only


@pytest.mark.usefixtures("still")
def test_whole_faces_without_geometry_equal_the_pictures(images: Tensor) -> None:
    faces, mask = augment.whole_faces(images, WHOLE.expand(4, 4), 48)
    assert torch.allclose(faces, images.permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-4)
    assert mask.all()


def test_the_mask_moves_with_the_picture() -> None:
    torch.manual_seed(0)
    images, valid = _window_picture(16)
    faces, mask = augment.whole_faces(images, valid, 64)
    assert 0.3 < mask.mean() < 0.45  # 3/8 of the crop
    assert (faces[_shrunk(mask, 1).expand(-1, 3, -1, -1) == 1] > 0.99).all()
    inside = (faces.mean(1, keepdim=True) > 0).float()
    assert (inside != mask).float().mean() < 0.02  # half a pixel along the edge, at most


def test_half_of_the_faces_are_mirrored() -> None:
    torch.manual_seed(0)
    images = torch.zeros(64, 32, 32, 3, dtype=torch.uint8)
    images[:, :, :16] = 255
    faces, _ = augment.whole_faces(images, WHOLE.expand(64, 4), 32)
    white_left = (faces[..., :16].mean((1, 2, 3)) > 0).float().mean()
    assert 0.3 < white_left < 0.7


def test_inner_faces(images: Tensor) -> None:
    torch.manual_seed(0)
    faces = augment.inner_faces(images, WHOLE.expand(4, 4), 32)
    assert faces.shape == (4, 3, 32, 32)
    assert faces.min() >= -1
    assert faces.max() <= 1


@pytest.mark.usefixtures("still", "plain")
def test_inner_faces_are_the_classifiers_window() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 64, 64, 3), generator=generator, dtype=torch.uint8)
    faces = augment.inner_faces(images, WHOLE.expand(2, 4), 32)
    expected = inner_face(images.permute(0, 3, 1, 2) / 127.5 - 1, 32)
    assert torch.allclose(faces, expected, atol=1e-4)


@pytest.mark.usefixtures("plain")
def test_inner_faces_move_about_their_own_centre() -> None:
    """A white dot at the inner face's centre stays near the middle under rotation."""
    torch.manual_seed(0)
    images = torch.zeros(64, 128, 128, 3, dtype=torch.uint8)
    images[:, 72:76, 62:66] = 255  # 0.578125 * 128 = 74, 0.5 * 128 = 64
    faces = augment.inner_faces(images, WHOLE.expand(64, 4), 64)[:, 0] + 1
    axis = torch.arange(64.0) + 0.5
    x = (faces.sum(1) * axis).sum(1) / faces.sum((1, 2))
    y = (faces.sum(2) * axis).sum(1) / faces.sum((1, 2))
    assert (x - 32).abs().max() < 6  # 12 % of the half side, and a little zoom
    assert (y - 32).abs().max() < 6


@pytest.mark.usefixtures("plain")
def test_padding_is_filled_from_the_edge_of_the_picture() -> None:
    torch.manual_seed(0)
    images, valid = _window_picture(16)
    valid = valid.clone()
    valid[:, 0], images[:, :, :32] = 0.5, 0  # the picture begins in the middle
    faces = augment.inner_faces(images, valid, 32)
    # On the very edge a sample mixes picture and padding half and half, in a corner 1 to 3; the
    # padding itself is -1.
    assert faces.min() > -0.51
    assert (faces > -0.01).float().mean() > 0.99


@pytest.mark.usefixtures("plain", "still")
def test_half_of_the_faces_are_also_cut_to_the_box_of_another_face() -> None:
    torch.manual_seed(0)
    images = torch.arange(64, dtype=torch.uint8)[None, None, :, None].expand(64, 64, 64, 3)
    valid = WHOLE.repeat(64, 1)
    valid[:32, 0] = 0.5
    faces = augment.inner_faces(images, valid, 32)
    filled = (faces[:, 0, 0, 0] - faces[:, 0, 0, 15]).abs() < 0.02  # the left half is one colour
    assert filled[:32].all()
    assert 0.1 < filled[32:].float().mean() < 0.45  # a half of a half


def test_diff_augment_keeps_shape_and_gradient() -> None:
    torch.manual_seed(0)
    faces = (torch.rand(4, 3, 32, 32) * 2 - 1).requires_grad_()
    augmented = augment.diff_augment(faces)
    assert augmented.shape == faces.shape
    augmented.square().sum().backward()
    assert (faces.grad.abs().sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("what", ["whole", "inner", "diff"])
def test_random_numbers_come_from_torchs_generator(images: Tensor, what: str) -> None:
    def run() -> Tensor:
        valid = WHOLE.expand(4, 4)
        if what == "whole":
            return torch.cat(augment.whole_faces(images, valid, 32), 1)
        if what == "inner":
            return augment.inner_faces(images, valid, 32)
        return augment.diff_augment(images.permute(0, 3, 1, 2) / 127.5 - 1)

    torch.manual_seed(7)
    first = run()
    second = run()
    torch.manual_seed(7)
    assert torch.equal(run(), first)
    assert not torch.equal(first, second)


def test_erased_rectangles_are_grey() -> None:
    torch.manual_seed(0)
    faces = augment.erase(torch.ones(200, 3, 32, 32))
    erased = (faces == 0).any(1).flatten(1).any(1)
    assert 0.4 < erased.float().mean() < 0.6
    assert faces.unique().tolist() == [0.0, 1.0]


def test_recolouring_is_the_same_for_a_whole_face() -> None:
    torch.manual_seed(0)
    faces = torch.zeros(8, 3, 4, 4)
    recoloured = augment.recolour(faces, 0.4)
    assert torch.allclose(recoloured, recoloured[:, :1, :1, :1].expand_as(faces), atol=1e-6)
    assert recoloured[:, 0, 0, 0].abs().max() <= 0.2 + 1e-6  # brightness: half the strength
    assert len(recoloured[:, 0, 0, 0].unique()) == 8


def test_degrading_makes_some_faces_grey() -> None:
    torch.manual_seed(0)
    faces = torch.zeros(400, 3, 8, 8)
    faces[:, 0] = 0.5
    degraded = augment._degrade(faces, probability=0.0, noise=0.0)
    grey = (degraded[:, 0] - degraded[:, 1]).abs().amax((1, 2)) < 1e-6
    assert 0.05 < grey.float().mean() < 0.16
    assert degraded.abs().max() <= 1


def test_robust_views_have_the_requested_size_and_gradients() -> None:
    torch.manual_seed(0)
    faces = (torch.rand(4, 3, 32, 32) * 2 - 1).requires_grad_()
    views = augment.robust_views(faces, 16)
    assert views.shape == (4, 3, 16, 16)
    assert views.abs().max() <= 1
    views.sum().backward()
    assert faces.grad is not None
    assert (faces.grad.abs().sum((1, 2, 3)) > 0).all()


def test_head_mask_is_an_ellipse_on_the_head() -> None:
    mask = augment.head_mask(100, torch.device("cpu"))[0, 0]
    assert mask.shape == (100, 100)
    assert mask.sum().item() == pytest.approx(math.pi * 38 * 39, rel=0.01)
    assert mask[48, 50] == mask[10, 50] == mask[83, 50] == mask[48, 15] == 1  # hair, chin, ear
    assert mask[88, 50] == mask[85, 20] == mask[5, 5] == 0  # collar, shoulder, background
