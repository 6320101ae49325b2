"""Sampling: frequencies, order, and matched faces."""

from collections import Counter

import pytest
import torch

from faceage.data.datasets import Labels
from faceage.data.sampling import InfiniteSampler, MatchedSampler, PairSampler, draw_weights
from faceage.errors import DataError


def _labels(groups: list[int], weights: list[float], sharp: list[float]) -> Labels:
    n = len(groups)
    return Labels(
        ages=torch.zeros(n),
        exact=torch.ones(n, dtype=torch.bool),
        groups=torch.tensor(groups),
        valid=torch.tensor([[0.0, 0, 1, 1]] * n),
        weights=torch.tensor(weights),
        sharp=torch.tensor(sharp),
        strata=torch.zeros(n, dtype=torch.long),
        people=torch.arange(n),
    )


def test_draw_weights() -> None:
    labels = _labels([0, 0, 0, 0, 7], [1, 1, 1, 3, 1], [1, 4, 100, 0.01, 1])
    assert draw_weights(labels, 0).tolist() == [1, 1, 1, 3, 1]
    assert draw_weights(labels, 0.5).tolist() == [0.5, 0.5, 0.5, 1.5, 1]
    assert draw_weights(labels, 1).tolist() == [0.25, 0.25, 0.25, 0.75, 1]
    assert draw_weights(labels, 0, sharpness=0.5).tolist() == [1, 2, 2, 1.5, 1]


def test_sampler_is_a_function_of_the_position() -> None:
    weights = torch.rand(7, generator=torch.Generator().manual_seed(0)) + 0.1
    sampler = InfiniteSampler(weights, seed=3)
    whole = sampler.batch(0, 50)
    assert whole.dtype == torch.long
    parts = [InfiniteSampler(weights, seed=3).batch(s, 5) for s in range(0, 50, 5)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(sampler.batch(3, 4), whole[3:7])  # backwards, and across epochs
    assert torch.equal(sampler.batch(40, 10), whole[40:])
    assert not torch.equal(InfiniteSampler(weights, seed=4).batch(0, 50), whole)


def test_sampler_does_not_change_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    InfiniteSampler(torch.ones(5), seed=0).batch(0, 20)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_epoch_has_the_expected_counts() -> None:
    weights = torch.tensor([1.0, 2, 3, 0, 4, 0.5, 9.5])  # sum 20; an epoch is 7 draws
    sampler = InfiniteSampler(weights, seed=0)
    for number in range(40):
        counts = torch.bincount(sampler.batch(7 * number, 7), minlength=7)
        expected = weights * 7 / 20
        assert ((counts >= expected.floor()) & (counts <= expected.ceil())).all()


def test_frequencies_over_many_epochs() -> None:
    weights = torch.tensor([1.0, 2, 3, 0, 4])
    counts = Counter(InfiniteSampler(weights, seed=1).batch(0, 5000).tolist())
    assert [counts[i] / 500 for i in range(5)] == pytest.approx([1, 2, 3, 0, 4], abs=0.15)


def test_equal_weights_give_every_face_once_in_each_epoch() -> None:
    sampler = InfiniteSampler(torch.ones(30), seed=0)
    first, second = sampler.batch(0, 30), sampler.batch(30, 30)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(30))
    assert first.tolist() != second.tolist()


def test_all_weights_0_are_refused() -> None:
    with pytest.raises(DataError, match="the weight 0"):
        InfiniteSampler(torch.zeros(3), seed=0)


def _people(ages: torch.Tensor, strata: torch.Tensor) -> Labels:
    labels = _labels([0] * len(ages), [1.0] * len(ages), [1.0] * len(ages))
    labels.ages, labels.strata = ages, strata
    return labels


def _grey(levels: list[float] | torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(levels)[:, None].expand(-1, 3).float()


def test_matched_faces_have_the_same_stratum_and_about_the_target_age() -> None:
    count = 400
    strata = torch.arange(count) % 2
    labels = _people(torch.arange(count) / 4.0, strata)  # each stratum has two faces a year
    torch.manual_seed(0)
    index, wanted = torch.arange(100), torch.linspace(10, 90, 100)
    found = MatchedSampler(labels, torch.zeros(count, 3)).draw(index, wanted)
    assert torch.equal(strata[found], strata[index])
    reach = MatchedSampler.WINDOW * count / 2  # faces
    assert (labels.ages[found] - wanted).abs().max() <= reach / 2 + 0.5  # years
    assert len(found.unique()) > 50


def test_the_nearest_age_is_taken_where_a_stratum_lacks_the_target_age() -> None:
    labels = _people(torch.tensor([3.0, 40, 50, 5, 60, 4]), torch.tensor([0, 1, 1, 0, 1, 0]))
    sampler = MatchedSampler(labels, torch.zeros(6, 3))
    found = sampler.draw(torch.tensor([0, 3, 1, 2]), torch.tensor([80.0, 0, 80, 0]))
    assert torch.equal(labels.strata[found], torch.tensor([0, 0, 1, 1]))


def test_a_face_is_not_matched_with_itself() -> None:
    labels = _people(torch.full((3,), 30.0), torch.zeros(3, dtype=torch.long))
    sampler = MatchedSampler(labels, _grey([0, 90, 100]))
    found = sampler.draw(torch.arange(3), torch.full((3,), 30.0))
    assert found.tolist() == [1, 2, 1]


def test_a_face_alone_in_its_stratum_is_matched_with_itself() -> None:
    labels = _people(torch.tensor([3.0, 40, 50]), torch.tensor([0, 1, 1]))
    sampler = MatchedSampler(labels, torch.zeros(3, 3))
    assert sampler.draw(torch.tensor([0]), torch.tensor([80.0])).tolist() == [0]


def test_matched_faces_have_similar_skin() -> None:
    """Children have lighter skin here; dark-skinned adults are matched with darker children."""
    count = 2000
    is_child = torch.arange(count) < count // 2
    torch.manual_seed(0)
    light = torch.where(is_child, 170.0, 130.0) + 30 * torch.randn(count)
    labels = _people(torch.where(is_child, 3.0, 40.0), torch.zeros(count, dtype=torch.long))
    dark = ((light < 110) & ~is_child).nonzero()[:, 0]
    found = MatchedSampler(labels, _grey(light)).draw(dark, torch.full((len(dark),), 3.0))
    assert is_child[found].all()
    assert (light[found] - light[dark]).mean() < 20  # with any child it would be above 60
    assert len(found.unique()) > 5


def test_matched_sampling_with_a_generator_does_not_use_the_global_one() -> None:
    labels = _people(torch.linspace(0, 90, 100), torch.zeros(100, dtype=torch.long))
    sampler = MatchedSampler(labels, torch.rand(100, 3))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    index, wanted = torch.arange(20), torch.full((20,), 50.0)
    first, second = (
        sampler.draw(index, wanted, torch.Generator().manual_seed(seed)) for seed in (1, 1)
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_pairs_are_other_pictures_of_the_same_person() -> None:
    people = torch.tensor([0, 1, 0, 2, 1, 0])  # person 2 has one picture
    sampler = PairSampler(people, torch.tensor([1.0, 1, 3, 1, 1, 1]))
    assert sampler.source_weights.tolist() == [1, 1, 1, 0, 1, 1]
    index = torch.tensor([0, 1, 2, 4, 5]).repeat(400)
    drawn = sampler.draw(index, torch.Generator().manual_seed(0))
    assert torch.equal(people[drawn], people[index])
    assert not (drawn == index).any()
    counts = drawn[index == 0].bincount(minlength=6)
    assert counts[2] + counts[5] == 400
    assert 270 < counts[2] < 330  # three of four
