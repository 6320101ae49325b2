"""What a training run will need: `faceage train --dry-run`."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from faceage.checkpoints import read_tensors
from faceage.data.datasets import Dataset, open_dataset
from faceage.data.loading import free_memory
from faceage.devices import pick_device
from faceage.distributed import Processes
from faceage.errors import ConfigError
from faceage.models.discriminators import make_discriminator
from faceage.models.generator import FaceAgeModel
from faceage.models.vgg import VggFeatures
from faceage.training.batches import decoded_sizes, load_data
from faceage.training.config import TrainConfig, find_vgg, to_dict
from faceage.training.fine_level import FineLevelTrainer
from faceage.training.logging import Progress
from faceage.training.provenance import describe_data
from faceage.training.state import RunState, make_replay_buffer
from faceage.training.trainer import Trainer, open_splits, trainer_classes

CHECKED_PICTURES = 64  # decoded of each split
CPU_BATCH = 8  # faces of a measured step on a CPU, where the speed hardly depends on their number
SLOW_STEP = 20.0  # seconds after which a step is not measured again
GB = 1e9


def inspect_run(config: TrainConfig, device: str = "auto") -> dict[str, Any]:
    """Check options and data, and estimate cost, memory and time of a run. Nothing is written.

    Returns:
        A report under the keys options, device, data, cost, memory, time and missing; the last
        lists what the run still needs.

    Raises:
        ConfigError: contradicting options, or no such device.
        DataError: the dataset is missing, malformed, incomplete, or has damaged pictures.
        WeightsError: a weights file that the options name is missing or damaged.
    """
    config.check()
    where = pick_device(device)
    train_set, val_set = open_splits(config.data)
    pairs_set = open_dataset(config.pairs) if config.pairs else None
    datasets = {"train": train_set, "val": val_set} | ({"pairs": pairs_set} if pairs_set else {})
    seconds = max(check_pictures(dataset) for dataset in datasets.values())
    missing = []
    try:
        path = find_vgg(config)
        vgg = VggFeatures(read_tensors(path)) if path else None
    except ConfigError as error:
        missing.append(str(error))
        vgg = _random_vgg()
    sizes = decoded_sizes(config, list(datasets.values()))
    trainer = _small_trainer(config, where, train_set, val_set, pairs_set, vgg)
    time_report, activations = _measure_steps(config, trainer)
    decoded = sum(len(dataset) for dataset, size in sizes.items() if size)
    if decoded:
        time_report["decoding_minutes"] = decoded * seconds / 60
    memory = {
        "pictures_gb": sum(sizes.values()) / GB,
        "networks_gb": _count_bytes(_network_tensors(trainer)) / GB,
        "activations_gb": activations / GB,
        "replay_buffer_gb": _replay_bytes(config, trainer) / GB,
    }
    if isinstance(trainer, FineLevelTrainer):
        held = _count_bytes([*trainer.pairs]) / len(trainer.pairs.target)
        memory["changes_gb"] = held * len(train_set) / GB
    memory["total_gb"] = sum(memory.values())
    free = free_memory() / GB
    if where.type == "cpu" and memory["total_gb"] > free:
        missing.append(
            f"Some {memory['total_gb']:.1f} GB of memory are needed, but {free:.1f} GB are free. "
            "Lower batch_size, warmup_batch or memory_gb."
        )
    return {
        "options": to_dict(config),
        "device": str(where),
        "data": {
            **{name: describe_data(dataset) for name, dataset in datasets.items()},
            "decoded": "into memory" if sizes[train_set] else "while training",
        },
        "cost": count_cost(config),
        "memory": _rounded(memory),
        "time": _rounded(time_report),
        "missing": missing,
    }


def check_pictures(dataset: Dataset) -> float:
    """Check that all pictures of a dataset are there, and decode some of them.

    Returns:
        Seconds for decoding one picture.

    Raises:
        DataError: pictures are missing, or one is damaged.
    """
    try:
        dataset.check_files()
        start = time.perf_counter()
        chosen = _spread(len(dataset), CHECKED_PICTURES)
        for index in chosen:
            dataset.read(dataset.samples[index])
        return (time.perf_counter() - start) / len(chosen)
    finally:
        dataset.close()


def count_cost(config: TrainConfig) -> dict[str, float]:
    """Millions of parameters, and GMAC per face of each part of the networks.

    Counted from shapes alone, on meta tensors.
    """
    with torch.device("meta"):
        model = FaceAgeModel(config.model)
        discriminator = make_discriminator(
            config.model,
            VggFeatures(None) if config.projected else None,
            model if config.age_features else None,
        )
        faces = torch.empty(2, 3, config.model.size, config.model.size)
        age = torch.empty(2)
        model.eval()
        encoded = model.encode(faces)
        source_age = None if config.model.decomposition else age
        parts: dict[str, Callable[[], Any]] = {
            "encode": lambda: model.encode(faces),
            "decode": lambda: model.decode(encoded, age, source_age),
            "discriminate": lambda: discriminator(discriminator.extract_features(faces)),
        }
        if config.model.fine_level:
            large = torch.empty(2, 3, *[config.model.fine_size] * 2)
            change = model.decode(encoded, age, source_age)
            parts["refine"] = lambda: model.refine(large, change)
        if config.model.decomposition:
            crop = torch.empty(2, 3, *[config.model.classifier_crop] * 2)
            parts["classify"] = lambda: model.age_logits(crop)
        figures: dict[str, float] = {}
        for name, run in parts.items():
            with FlopCounterMode(display=False) as counter:
                run()
            figures[f"gmac_{name}"] = round(counter.get_total_flops() / 4e9, 4)
    for name, net in (("generator", model), ("discriminator", discriminator)):
        parameters = sum(p.numel() for p in net.parameters())
        figures[f"million_parameters_{name}"] = round(parameters / 1e6, 3)
    return figures


def _small_trainer(
    config: TrainConfig,
    device: torch.device,
    train_set: Dataset,
    val_set: Dataset,
    pairs_set: Dataset | None,
    vgg: VggFeatures | None,
) -> Trainer:
    """A trainer of the same networks on a few of the pictures."""
    small = [
        Dataset(d.name, d.root, [d.samples[i] for i in _spread(len(d), CHECKED_PICTURES)])
        for d in (train_set, val_set)
    ]
    largest = CPU_BATCH if device.type == "cpu" else max(config.batch_size, config.warmup_batch)
    config = replace(
        config,
        images=2_000_000,
        warmup_images=1_000_000 if config.warmup_images else 0,
        batch_size=min(config.batch_size, largest),
        warmup_batch=min(config.warmup_batch, largest),
        memory_gb=1.0,
    )
    networks_class, trainer_class = trainer_classes(config)
    networks = networks_class(config, device, vgg)
    if config.weights:
        networks.start_from(config.weights)
    progress = Progress(config.images, None)
    processes = Processes(0, 1, device)
    data = load_data(config, processes, small[0], small[1], progress, pairs_set)
    run = RunState(make_replay_buffer(config))
    return trainer_class(config, processes, networks, data, run, progress)


def _measure_steps(config: TrainConfig, trainer: Trainer) -> tuple[dict[str, float], float]:
    """Speed and duration of the run, and the bytes of its activations."""
    first = trainer.config.warmup_images
    phases = (
        ("warmup", 0, min(config.images, config.warmup_images)),
        ("displacement", first, min(config.images - config.warmup_images, config.flow_images)),
        (
            "synthesis",
            first + config.flow_images,
            config.images - config.warmup_images - config.flow_images,
        ),
    )
    report, hours, activations = {}, 0.0, 0.0
    for name, start, images in phases:
        if images <= 0:
            continue
        trainer.state.images_seen = start
        batches = trainer.batches()
        for _ in range(2):  # the first step is slower
            began = time.perf_counter()
            plan, pictures = next(batches)
            with ExitStack() as stack:
                saved = _SavedTensors()
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(saved.pack, _unpack))
                trainer.step(plan, pictures)
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            seconds = time.perf_counter() - began
            if seconds > SLOW_STEP:
                break
        batch = config.warmup_batch if name == "warmup" else config.batch_size
        activations = max(activations, saved.bytes * batch / plan.images)
        report[f"{name}_images_per_second"] = plan.images / seconds
        hours += images * seconds / plan.images / 3600
    report["hours"] = hours
    return report, activations


class _SavedTensors:
    """Counts the memory of the tensors that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        self._storages: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self._storages.values())

    def pack(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor


def _unpack(tensor: Tensor) -> Tensor:
    return tensor


def _network_tensors(trainer: Trainer) -> list[Tensor]:
    """Weights, gradients and the optimisers' states."""
    networks = trainer.networks
    tensors: list[Tensor] = []
    for network in (networks.model, networks.ema, networks.discriminator, networks.vgg):
        if network is not None:
            parameters = list(network.parameters())
            tensors += [*parameters, *network.buffers()]
            tensors += [p.grad for p in parameters if p.grad is not None]
    for optimiser in (
        networks.optimiser_warmup,
        networks.optimiser,
        networks.optimiser_discriminator,
    ):
        for state in optimiser.state.values():
            tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return tensors


def _replay_bytes(config: TrainConfig, trainer: Trainer) -> float:
    """The size of the full replay buffer."""
    stored = trainer.state.replay_buffer
    if not stored or config.discriminator_updates == 1:
        return 0.0
    faces = (make_replay_buffer(config).maxlen or 0) * config.batch_size
    return _count_bytes([*stored[0].real, *stored[0].aged]) * faces / trainer.config.batch_size


def _count_bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _random_vgg() -> VggFeatures:
    """VGG19 with random weights, which cost as much as trained ones."""
    vgg = VggFeatures(None)
    for name, buffer in vgg.named_buffers():
        if name.startswith("weight"):
            nn.init.kaiming_normal_(buffer)
        elif name.startswith("bias"):
            nn.init.zeros_(buffer)
    return vgg


def _spread(length: int, count: int) -> list[int]:
    """Up to `count` indices, evenly spaced over 0 ... length - 1."""
    return sorted({round(i) for i in torch.linspace(0, length - 1, min(count, length)).tolist()})


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in figures.items()}
