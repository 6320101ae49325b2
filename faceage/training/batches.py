"""The pictures of every training step, as a function of (seed, rank, images seen).

A step's pictures are known in advance, so that they can be loaded while earlier steps run, and the
order does not depend on how they are loaded.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from faceage.data.datasets import Dataset, DecodedDataset, Labels
from faceage.data.loading import StreamedDataset, decoded_bytes, free_memory, load
from faceage.data.sampling import InfiniteSampler, MatchedSampler, draw_weights
from faceage.distributed import Processes
from faceage.imaging.skin import skin_colours
from faceage.training.config import TrainConfig
from faceage.training.logging import Progress

MAX_TARGET_AGE = 95  # years


@dataclass(frozen=True)
class StepPlan:
    """The pictures of one step of one process.

    Attributes:
        images_seen: before the step, by all processes.
        images: number of source faces of the step, of all processes.
        index: (N,) source faces.
        matched: (N,) real faces of the target ages; empty in the warm-up and in distillation.
        seed: of the step.
        random_state: of torch's CPU generator, with which the step continues.
    """

    images_seen: int
    images: int
    index: Tensor
    matched: Tensor
    seed: int
    random_state: Tensor

    @property
    def pictures(self) -> Tensor:
        """Source faces, then matched faces."""
        return torch.cat([self.index, self.matched])

    def seed_generators(self) -> None:
        """Set torch's generators for the step."""
        torch.manual_seed(self.seed)
        torch.set_rng_state(self.random_state)


class StepPlanner:
    """Plans the steps of one process.

    Args:
        labels: of the training set.
        colours: N,3, the colours of its faces' skin; None plans no matched faces.
    """

    def __init__(
        self, config: TrainConfig, processes: Processes, labels: Labels, colours: Tensor | None
    ) -> None:
        self._config, self._processes = config, processes
        self._matched_sampler = MatchedSampler(labels, colours) if colours is not None else None
        self._warmup_sampler = InfiniteSampler(draw_weights(labels, config.balance), config.seed)
        weights = draw_weights(labels, config.balance, config.sharpness)
        self.sampler = InfiniteSampler(weights, config.seed + 1)

    def plan(self, images_seen: int) -> StepPlan:
        """The step after `images_seen`.

        Low target ages are more frequent, as faces change most there.
        """
        config, rank = self._config, self._processes.rank
        in_warmup = images_seen < config.warmup_images
        images = config.warmup_batch if in_warmup else config.batch_size
        count = images // self._processes.count
        seed = ((config.seed * 1_000_003 + images_seen) * 1024 + rank) % 2**63
        generator = torch.Generator().manual_seed(seed)
        sampler, start = self.sampler, images_seen - config.warmup_images
        if in_warmup:
            sampler, start = self._warmup_sampler, images_seen
        index = sampler.batch(start + rank * count, count)
        matched = index[:0]
        if self._matched_sampler and not in_warmup:
            ages = MAX_TARGET_AGE * torch.rand(count, generator=generator) ** 1.5
            matched = self._matched_sampler.draw(index, ages, generator)
        return StepPlan(images_seen, images, index, matched, seed, generator.get_state())

    def batches(
        self, dataset: DecodedDataset | StreamedDataset, images_seen: int
    ) -> Iterator[tuple[StepPlan, Tensor]]:
        """The steps from `images_seen` to the end of the training, with their pictures.

        The pictures are those of `StepPlan.pictures`, M,R,R,3 uint8.
        """
        plans, ahead = tee(self._plans(images_seen))
        return zip(plans, dataset.batches(plan.pictures for plan in ahead), strict=False)

    def _plans(self, images_seen: int) -> Iterator[StepPlan]:
        while images_seen < self._config.images:
            plan = self.plan(images_seen)
            yield plan
            images_seen += plan.images


@dataclass(frozen=True)
class TrainingData:
    """The pictures of a run.

    Attributes:
        dataset: the train set.
        train, val: pictures and labels.
        planner: of the steps on `train`.
    """

    dataset: Dataset
    train: DecodedDataset | StreamedDataset
    val: DecodedDataset | StreamedDataset
    planner: StepPlanner


def load_data(
    config: TrainConfig,
    processes: Processes,
    train_set: Dataset,
    val_set: Dataset,
    progress: Progress,
) -> TrainingData:
    """Decode the pictures, as far as they fit in memory, and measure the skin's colours.

    Raises:
        DataError: a picture is missing or damaged.
    """
    side = max(config.model.size, config.model.classifier_crop)
    memory = memory_budget(config)
    loaded: list[DecodedDataset | StreamedDataset] = []
    for dataset in (train_set, val_set):
        with progress.task(f"decoding {dataset.name}", len(dataset)) as advance:
            loaded.append(load(dataset, side, memory, config.workers, advance))
        if isinstance(loaded[-1], DecodedDataset):
            memory -= decoded_bytes(dataset, side)
    train, val = loaded
    colours = None
    if not config.distill_from:
        with progress.task("measuring skin colours", len(train)) as advance:
            colours = measure_colours(train, advance)
    return TrainingData(
        train_set, train, val, StepPlanner(config, processes, train.labels, colours)
    )


def memory_budget(config: TrainConfig) -> float:
    """Bytes that one process may fill with decoded pictures."""
    total = free_memory() / 2 if config.memory_gb is None else 1e9 * config.memory_gb
    return total / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def measure_colours(
    dataset: DecodedDataset | StreamedDataset, on_progress: Callable[[int], None]
) -> Tensor:
    """The colours of the faces' skin, N,3."""
    colours = []
    for images in dataset.batches(torch.split(torch.arange(len(dataset)), 256)):
        colours.append(torch.from_numpy(skin_colours(images.numpy())).float())
        on_progress(len(images))
    return torch.cat(colours)
