"""Which faces are drawn."""

from collections import Counter

import pytest
import torch

from faceage.data.datasets import Faces
from faceage.data.sampling import InfiniteSampler, Lookalikes, draw_weights
from faceage.errors import DataError


def _faces(groups: list[int], weights: list[float], sharp: list[float]) -> Faces:
    n = len(groups)
    return Faces(
        images=torch.zeros(n, 6, 6, 3, dtype=torch.uint8),
        ages=torch.zeros(n),
        exact=torch.ones(n, dtype=torch.bool),
        groups=torch.tensor(groups),
        valid=torch.tensor([[0.0, 0, 1, 1]] * n),
        weights=torch.tensor(weights),
        sharp=torch.tensor(sharp),
        kinds=torch.zeros(n, dtype=torch.long),
    )


def test_draw_weights() -> None:
    faces = _faces([0, 0, 0, 0, 7], [1, 1, 1, 3, 1], [1, 4, 100, 0.01, 1])
    assert draw_weights(faces, 0).tolist() == [1, 1, 1, 3, 1]
    assert draw_weights(faces, 0.5).tolist() == [0.5, 0.5, 0.5, 1.5, 1]
    assert draw_weights(faces, 1).tolist() == [0.25, 0.25, 0.25, 0.75, 1]
    assert draw_weights(faces, 0, sharpness=0.5).tolist() == [1, 2, 2, 1.5, 1]


def test_sampler_is_a_function_of_the_position() -> None:
    weights = torch.rand(7, generator=torch.Generator().manual_seed(0)) + 0.1
    sampler = InfiniteSampler(weights, seed=3)
    whole = sampler.batch(0, 50)
    assert whole.dtype == torch.long
    parts = [InfiniteSampler(weights, seed=3).batch(s, 5) for s in range(0, 50, 5)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(sampler.batch(3, 4), whole[3:7])  # backwards, and across rounds
    assert torch.equal(sampler.batch(40, 10), whole[40:])
    assert not torch.equal(InfiniteSampler(weights, seed=4).batch(0, 50), whole)


def test_sampler_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    InfiniteSampler(torch.ones(5), seed=0).batch(0, 20)
    assert torch.equal(torch.get_rng_state(), before)


def test_sampler_gives_every_face_its_share_in_every_round() -> None:
    weights = torch.tensor([1.0, 2, 3, 0, 4, 0.5, 9.5])  # sum 20; a round is 7 draws
    sampler = InfiniteSampler(weights, seed=0)
    for number in range(40):
        counts = torch.bincount(sampler.batch(7 * number, 7), minlength=7)
        expected = weights * 7 / 20
        assert ((counts >= expected.floor()) & (counts <= expected.ceil())).all()


def test_sampler_in_the_long_run() -> None:
    weights = torch.tensor([1.0, 2, 3, 0, 4])
    counts = Counter(InfiniteSampler(weights, seed=1).batch(0, 5000).tolist())
    assert [counts[i] / 500 for i in range(5)] == pytest.approx([1, 2, 3, 0, 4], abs=0.15)


def test_even_weights_draw_every_face_once_a_round() -> None:
    sampler = InfiniteSampler(torch.ones(30), seed=0)
    first, second = sampler.batch(0, 30), sampler.batch(30, 30)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(30))
    assert first.tolist() != second.tolist()


def test_nothing_to_draw() -> None:
    with pytest.raises(DataError, match="weight 0"):
        InfiniteSampler(torch.zeros(3), seed=0)


def _people(ages: torch.Tensor, kinds: torch.Tensor) -> Faces:
    faces = _faces([0] * len(ages), [1.0] * len(ages), [1.0] * len(ages))
    faces.ages, faces.kinds = ages, kinds
    return faces


def test_lookalikes_are_of_the_same_kind_and_about_as_old() -> None:
    count = 400
    kinds = torch.arange(count) % 2
    faces = _people(torch.arange(count) / 4.0, kinds)  # each kind has two faces a year
    torch.manual_seed(0)
    index, wanted = torch.arange(100), torch.linspace(10, 90, 100)
    found = Lookalikes(faces).draw(index, wanted)
    assert torch.equal(kinds[found], kinds[index])
    reach = Lookalikes.WINDOW * count / 2  # faces
    assert (faces.ages[found] - wanted).abs().max() <= reach / 2 + 0.5  # years
    assert len(found.unique()) > 50


def test_lookalikes_where_a_kind_has_nobody_so_old() -> None:
    faces = _people(torch.tensor([3.0, 40, 50, 5, 60, 4]), torch.tensor([0, 1, 1, 0, 1, 0]))
    found = Lookalikes(faces).draw(torch.tensor([0, 3, 1, 2]), torch.tensor([80.0, 0, 80, 0]))
    assert torch.equal(faces.kinds[found], torch.tensor([0, 0, 1, 1]))


def test_nobody_is_his_own_lookalike() -> None:
    faces = _people(torch.full((3,), 30.0), torch.zeros(3, dtype=torch.long))
    faces.images = torch.tensor([0, 90, 100]).byte()[:, None, None, None].expand(-1, 6, 6, 3)
    found = Lookalikes(faces).draw(torch.arange(3), torch.full((3,), 30.0))
    assert found.tolist() == [1, 2, 1]


def test_lookalikes_where_one_is_alone_of_its_kind() -> None:
    faces = _people(torch.tensor([3.0, 40, 50]), torch.tensor([0, 1, 1]))
    assert Lookalikes(faces).draw(torch.tensor([0]), torch.tensor([80.0])).tolist() == [0]


def test_lookalikes_have_the_same_skin() -> None:
    """Children lighter than adults, by much; still a dark adult is compared with a dark child."""
    count = 2000
    is_child = torch.arange(count) < count // 2
    torch.manual_seed(0)
    light = torch.where(is_child, 170.0, 130.0) + 30 * torch.randn(count)
    faces = _people(torch.where(is_child, 3.0, 40.0), torch.zeros(count, dtype=torch.long))
    faces.images = light.clamp(0, 255).byte()[:, None, None, None].expand(-1, 16, 16, 3)
    dark = ((light < 110) & ~is_child).nonzero()[:, 0]
    found = Lookalikes(faces).draw(dark, torch.full((len(dark),), 3.0))
    assert is_child[found].all()
    assert (light[found] - light[dark]).mean() < 20  # any child: more than 60
    assert len(found.unique()) > 5
