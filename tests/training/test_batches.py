"""The plan of the training steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from faceage.data.datasets import Dataset, DecodedDataset, Labels, Sample
from faceage.distributed import Processes
from faceage.training import batches
from faceage.training.batches import StepPlanner, memory_budget
from faceage.training.config import TrainConfig

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    data="", out=Path(), images=80, warmup_images=16, warmup_batch=8, batch_size=4, seed=3
)


@pytest.fixture(scope="module")
def labels() -> Labels:
    """Sixty faces in three strata, at all ages."""
    generator = torch.Generator().manual_seed(0)
    ages = torch.rand(60, generator=generator) * 90
    return Labels(
        ages=ages,
        exact=torch.ones(60, dtype=torch.bool),
        groups=torch.zeros(60, dtype=torch.long),
        valid=torch.tensor([[0.0, 0, 1, 1]]).expand(60, 4),
        weights=torch.ones(60),
        sharp=torch.ones(60),
        strata=torch.arange(60) % 3,
        people=torch.arange(60),
    )


def _planner(labels: Labels, rank: int = 0, count: int = 1, **changes: object) -> StepPlanner:
    colours = torch.zeros(len(labels), 3)
    config = replace(CONFIG, **changes)  # type: ignore[arg-type]
    return StepPlanner(config, Processes(rank, count, CPU), labels, colours)


def _numbers(labels: Labels) -> DecodedDataset:
    """Each picture contains its index."""
    return DecodedDataset(labels, torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1))


def test_a_plan_depends_on_the_position_alone(labels: Labels) -> None:
    steps = list(_planner(labels).batches(_numbers(labels), 0))
    assert [plan.images_seen for plan, _ in steps] == [0, 8, *range(16, 80, 4)]
    for start in (8, 16, 44):
        expected = [step for step in steps if step[0].images_seen >= start]
        resumed = list(_planner(labels).batches(_numbers(labels), start))
        for (plan, images), (other, other_images) in zip(expected, resumed, strict=True):
            assert torch.equal(plan.pictures, other.pictures)
            assert torch.equal(plan.random_state, other.random_state)
            assert torch.equal(images, other_images)


def test_the_pictures_are_those_of_the_plan(labels: Labels) -> None:
    for plan, images in _planner(labels).batches(_numbers(labels), 0):
        assert torch.equal(images.flatten().long(), plan.pictures)
        assert len(plan.index) == plan.images
        assert len(plan.matched) == (0 if plan.images_seen < 16 else 4)


def test_planning_does_not_change_the_global_generator(labels: Labels) -> None:
    before = torch.get_rng_state()
    plan = _planner(labels).plan(40)
    assert torch.equal(torch.get_rng_state(), before)
    plan.seed_generators()
    first = torch.rand(3)
    torch.rand(5)
    plan.seed_generators()
    assert torch.equal(torch.rand(3), first)


def test_random_numbers_differ_between_steps_processes_and_seeds(labels: Labels) -> None:
    planners = [_planner(labels), _planner(labels, 1, 2), _planner(labels, seed=4)]
    states = [planner.plan(40).random_state for planner in planners]
    states.append(planners[0].plan(44).random_state)
    assert len({tuple(state.tolist()) for state in states}) == 4


def test_every_process_has_its_own_part_of_the_batch(labels: Labels) -> None:
    for images_seen in (8, 40):
        whole = _planner(labels).plan(images_seen).index
        parts = [_planner(labels, rank, 2).plan(images_seen).index for rank in (0, 1)]
        assert torch.equal(torch.cat(parts), whole)


def test_target_ages_cover_all_ages_within_the_stratum(labels: Labels) -> None:
    planner, ages = _planner(labels), []
    for images_seen in range(16, 16 + 4 * 50, 4):
        plan = planner.plan(images_seen)
        assert torch.equal(labels.strata[plan.matched], labels.strata[plan.index])
        ages.append(labels.ages[plan.matched])
    targets = torch.cat(ages)
    assert targets.min() < 5
    assert targets.max() > 75
    assert targets.median() < 45  # low ages are more frequent


def test_pairs_are_spread_over_the_batch(labels: Labels) -> None:
    pairs = replace(labels, people=torch.arange(60) // 5)
    config = replace(CONFIG, pairs="pairs", pairs_fraction=0.5, flow_images=8)
    planner = StepPlanner(config, Processes(0, 1, CPU), labels, torch.zeros(60, 3), pairs)
    assert not planner.plan(8).paired.any()  # in the warm-up
    assert planner.plan(16).paired.all()  # displacement is trained on pairs only
    plan = planner.plan(24)
    assert plan.paired.tolist() == [False, True, False, True]
    assert torch.equal(plan.index >= 60, plan.paired)
    people = pairs.people.repeat(2)
    assert torch.equal(people[plan.index[plan.paired]], people[plan.matched[plan.paired]])
    assert not (plan.index[plan.paired] == plan.matched[plan.paired]).any()
    assert (plan.matched[~plan.paired] < 60).all()


def test_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "free_memory", lambda: 8 << 30)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert memory_budget(CONFIG) == 4 << 30
    assert memory_budget(replace(CONFIG, memory_gb=2)) == 2e9
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_budget(CONFIG) == 1 << 30


def test_which_datasets_are_decoded_at_once() -> None:
    train, val, pairs = (
        Dataset("noise", Path(), [Sample("0.png", 3, 30.0)] * count) for count in (10, 4, 20)
    )
    side = batches.picture_side(CONFIG)
    one = side * side * 3
    config = replace(CONFIG, memory_gb=15 * one / 1e9)
    sizes = batches.decoded_sizes(config, [train, val, pairs])
    assert sizes == {train: 10 * one, val: 4 * one, pairs: 0}
    assert batches.decoded_sizes(config, [train, train]) == {train: 10 * one}


def test_a_fine_level_holds_its_pictures_twice() -> None:
    train = Dataset("noise", Path(), [Sample("0.png", 3, 30.0)] * 10)
    config = replace(CONFIG, model=replace(CONFIG.model, fine_level=True))
    one = batches.picture_side(config) ** 2 * 3
    for fitting, memory in ((10 * one, 21), (0, 19)):
        small = replace(config, memory_gb=memory * one / 1e9)
        assert batches.decoded_sizes(small, [train, train]) == {train: fitting}


def test_colours_are_measured_in_the_order_of_the_faces(labels: Labels) -> None:
    images = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 12, 12, 3)
    done: list[int] = []
    colours: Tensor = batches.measure_colours(DecodedDataset(labels, images), done.append)
    assert torch.equal(colours, torch.arange(60.0)[:, None].expand(60, 3))
    assert sum(done) == 60
