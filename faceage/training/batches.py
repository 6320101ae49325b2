"""The pictures of every training step, as a function of (seed, rank, images seen).

A step's pictures are known in advance, so that they can be loaded while earlier steps run, and the
order does not depend on how they are loaded.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from faceage.data.datasets import Dataset, Labels
from faceage.data.loading import JoinedDatasets, Pictures, decoded_bytes, free_memory, load
from faceage.data.sampling import InfiniteSampler, MatchedSampler, PairSampler, draw_weights
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
        paired: (N,) bool; the matched face is the source person in a pair.
        seed: of the step.
        random_state: of torch's CPU generator, with which the step continues.
    """

    images_seen: int
    images: int
    index: Tensor
    matched: Tensor
    paired: Tensor
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
        pairs: labels of the pairs, whose indices follow those of the training set; None plans none.
    """

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        labels: Labels,
        colours: Tensor | None,
        pairs: Labels | None = None,
    ) -> None:
        self._config, self._processes = config, processes
        self._matched_sampler = MatchedSampler(labels, colours) if colours is not None else None
        self._warmup_sampler = InfiniteSampler(draw_weights(labels, config.balance), config.seed)
        weights = draw_weights(labels, config.balance, config.sharpness)
        self.sampler = InfiniteSampler(weights, config.seed + 1)
        self._first_pair = len(labels)
        self._pair_sampler: PairSampler | None = None
        if pairs:
            self._pair_sampler = PairSampler(pairs.people, draw_weights(pairs, config.balance))
            self._pair_sources = InfiniteSampler(self._pair_sampler.source_weights, config.seed + 2)

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
        start += rank * count
        index = sampler.batch(start, count)
        matched, paired = index[:0], torch.zeros(count, dtype=torch.bool)
        if self._matched_sampler and not in_warmup:
            ages = MAX_TARGET_AGE * torch.rand(count, generator=generator) ** 1.5
            matched = self._matched_sampler.draw(index, ages, generator)
        if self._pair_sampler and not in_warmup:
            in_flow = images_seen < config.warmup_images + config.flow_images
            fraction = 1.0 if in_flow else config.pairs_fraction
            paired = (fraction * torch.arange(1, count + 1)).floor().diff(
                prepend=torch.zeros(1)
            ) > 0  # spread evenly over the batch
            sources = self._pair_sources.batch(start, count)
            targets = self._pair_sampler.draw(sources, generator)
            index = torch.where(paired, self._first_pair + sources, index)
            matched = torch.where(paired, self._first_pair + targets, matched)
        return StepPlan(images_seen, images, index, matched, paired, seed, generator.get_state())

    def batches(self, dataset: Pictures, images_seen: int) -> Iterator[tuple[StepPlan, Tensor]]:
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
        train, val: pictures and labels; the pairs, if any, follow those of the train set.
        pairs: the dataset of pairs.
        planner: of the steps on `train`.
    """

    dataset: Dataset
    train: Pictures
    val: Pictures
    planner: StepPlanner
    pairs: Dataset | None = None


def load_data(
    config: TrainConfig,
    processes: Processes,
    train_set: Dataset,
    val_set: Dataset,
    progress: Progress,
    pairs_set: Dataset | None = None,
) -> TrainingData:
    """Decode the pictures, as far as they fit in memory, and measure the skin's colours.

    Raises:
        DataError: a picture is missing or damaged.
    """
    side = picture_side(config)
    pictures: dict[Dataset, Pictures] = {}
    datasets = [train_set, val_set, *([pairs_set] if pairs_set else [])]
    for dataset, memory in decoded_sizes(config, datasets).items():
        with progress.task(f"decoding {dataset.name}", len(dataset)) as advance:
            pictures[dataset] = load(dataset, side, memory, config.workers, advance)
    train, val, *pairs = (pictures[dataset] for dataset in datasets)
    if config.model.fine_level:
        return TrainingData(
            train_set, train, val, StepPlanner(config, processes, train.labels, None)
        )
    colours = None
    if not config.distill_from:
        with progress.task("measuring skin colours", len(train)) as advance:
            colours = measure_colours(train, advance)
    planner = StepPlanner(
        config, processes, train.labels, colours, pairs[0].labels if pairs else None
    )
    joined = JoinedDatasets([train, *pairs]) if pairs else train
    return TrainingData(train_set, joined, val, planner, pairs_set)


def picture_side(config: TrainConfig) -> int:
    """Side of the decoded pictures, px: as large as the networks that are trained need."""
    trains_classifier = config.model.decomposition and (config.warmup_images or config.lr_encoder)
    size = config.model.fine_size if config.model.fine_level else config.model.size
    return max(size, config.model.classifier_crop) if trains_classifier else size


def decoded_sizes(config: TrainConfig, datasets: Sequence[Dataset]) -> dict[Dataset, int]:
    """The bytes of each dataset's pictures in memory; 0 of those that are decoded while training.

    The first ones are decoded at once, as long as they fit. For a fine level, the pictures of the
    train set are held twice: as they are, and displaced.

    Args:
        datasets: the train set, then others; a dataset may be there twice.
    """
    side, memory, sizes = picture_side(config), memory_budget(config), {}
    if config.model.fine_level:
        memory -= decoded_bytes(datasets[0], side)
    for dataset in dict.fromkeys(datasets):
        size = decoded_bytes(dataset, side)
        sizes[dataset] = size if size <= memory else 0
        memory -= sizes[dataset]
    return sizes


def memory_budget(config: TrainConfig) -> float:
    """Bytes that one process may fill with decoded pictures."""
    total = free_memory() / 2 if config.memory_gb is None else 1e9 * config.memory_gb
    return total / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def measure_colours(dataset: Pictures, on_progress: Callable[[int], None]) -> Tensor:
    """The colours of the faces' skin, N,3."""
    colours = []
    for images in dataset.batches(torch.split(torch.arange(len(dataset)), 256)):
        colours.append(torch.from_numpy(skin_colours(images.numpy())).float())
        on_progress(len(images))
    return torch.cat(colours)
