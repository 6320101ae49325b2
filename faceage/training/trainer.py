"""The training loop, for one process or several under torchrun.

Progress is counted in images seen, summed over all processes. The random numbers of a step depend
on (seed, rank, images seen) alone, so that the same command resumes an interrupted run exactly.
"""

import copy
import json
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from faceage import distributed
from faceage.ages import GROUPS
from faceage.checkpoints import (
    BatchNorm,
    load_state,
    load_weights,
    read_tensors,
    recalibrate,
    save_state,
    save_weights,
)
from faceage.data import augmentation
from faceage.data.datasets import Dataset, DecodedDataset, decode, open_dataset
from faceage.data.sampling import InfiniteSampler, MatchedSampler, draw_weights
from faceage.errors import ConfigError, DataError, WeightsError
from faceage.files import make_folder
from faceage.models.discriminators import AnyDiscriminator, make_discriminator
from faceage.models.generator import FaceAgeModel
from faceage.models.vgg import VggFeatures
from faceage.training import preview
from faceage.training.config import PATHS, TrainConfig, to_dict
from faceage.training.interruption import StopRequest, TrainingInterrupted
from faceage.training.logging import Progress
from faceage.training.losses import (
    DiscriminatorBatch,
    PerceptualLoss,
    SynthesisBatch,
    Terms,
    age_loss,
    discriminator_loss,
    generator_loss,
)
from faceage.training.provenance import describe_run, describe_weights

STATE, WEIGHTS = "state.pt", "weights.safetensors"
CALIBRATION_BATCHES = 24
MAX_TARGET_AGE = 95  # years
REPLAY_FACES = 2048  # capacity of the discriminator's replay buffer
CHANGEABLE = (*PATHS, "images", "save_minutes", "licence")  # may be others when a run resumes

_Movable = TypeVar("_Movable", Tensor, FaceAgeModel, VggFeatures, AnyDiscriminator)


def train(config: TrainConfig, device: str = "auto") -> Path:
    """Train, or resume training, until `config.images` images have been seen.

    Returns:
        The exported weights file.

    Raises:
        ConfigError: contradicting options, or a run directory with other options.
        DataError: the dataset is missing or malformed.
        OutputError: the run directory cannot be written.
        TrainingInterrupted: SIGINT or SIGTERM; the state is saved.
    """
    processes = distributed.start(device)
    try:
        with processes.share_errors():
            config.check(processes.count)
            trainer = _trainer_class(config)(config, processes)
            make_folder(config.out)
        return trainer.run()
    finally:
        distributed.stop()


def _trainer_class(config: TrainConfig) -> "type[Trainer]":
    if config.teacher:
        from faceage.training.distillation import DistillationTrainer

        return DistillationTrainer
    return Trainer


class Trainer:
    """The networks, optimisers and data of one run, and its loop."""

    def __init__(self, config: TrainConfig, processes: distributed.Processes) -> None:
        self.config, self.processes = config, processes
        self.device = processes.device
        self.images_seen = 0
        self.progress = Progress(config.images, config.out if processes.is_first else None)
        torch.manual_seed(config.seed)
        self.initial_weights: dict[str, str] = {}
        if config.weights and not (config.out / STATE).is_file():
            model, metadata = load_weights(config.weights)
            self.initial_weights = describe_weights(config.weights, metadata)
            if model.config != config.model:
                raise ConfigError(
                    f"{config.weights} has another architecture.",
                    f"Set the options model.* to its own: {metadata['config']}.",
                )
        else:
            model = FaceAgeModel(config.model)
            self.initialise(model)
        self.model = self._to_device(model).requires_grad_(True)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        if processes.count > 1 and self.device.type == "cuda":
            # Not the EMA model: one process alone runs it, which would wait for the others forever.
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.perceptual: PerceptualLoss | None = None
        if config.vgg:
            vgg = self._to_device(VggFeatures(read_tensors(config.vgg)))
            self.perceptual = PerceptualLoss(vgg) if config.losses.perceptual else None
        self._age_views = partial(augmentation.robust_views, size=config.model.classifier_size)
        discriminator = make_discriminator(
            config.model,
            vgg if config.projected else None,
            self.ema if config.age_features else None,
            augmentation.diff_augment if config.diff_augment else None,
            self._age_views,
        )
        self.discriminator = self._to_device(discriminator)
        # With one update per batch, stored features are never used.
        capacity = REPLAY_FACES // config.batch_size if config.discriminator_updates > 1 else 1
        self.replay_buffer = deque[DiscriminatorBatch](maxlen=max(1, capacity))
        self.optimiser_warmup, self.optimiser = self.make_optimisers()
        self.optimiser_discriminator = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.lr_discriminator, betas=(0.5, 0.99)
        )
        self._resume()
        side = max(config.model.size, config.model.classifier_crop)
        self.dataset = open_dataset(config.data, "train")
        self.faces = self._decode(self.dataset, side)
        self.val = self._decode(self._val(), side)
        self.matched_sampler = MatchedSampler(self.faces)
        self.warmup_sampler = InfiniteSampler(draw_weights(self.faces, config.balance), config.seed)
        self.sampler = InfiniteSampler(
            draw_weights(self.faces, config.balance, config.sharpness), config.seed + 1
        )

    def initialise(self, model: FaceAgeModel) -> None:
        """Change the initial weights; nothing to do here."""

    def make_optimisers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """The generator's optimisers in the warm-up and in the synthesis."""
        config = self.config
        warmed = [p for part in _warmup_parts(self.model) for p in part.parameters()]
        ids = {id(p) for p in warmed}
        others = [p for p in self.model.parameters() if id(p) not in ids]
        decayed: dict[str, Any] = {"params": [p for p in warmed if p.ndim > 1]}
        not_decayed = {"params": [p for p in warmed if p.ndim <= 1], "weight_decay": 0.0}
        warmup = torch.optim.AdamW(
            [decayed, not_decayed], lr=config.lr_warmup, weight_decay=config.weight_decay
        )
        synthesis = torch.optim.Adam(
            [
                {"params": others, "lr": config.lr},
                {"params": warmed, "lr": config.lr * config.lr_encoder},
            ],
            betas=(0.0, 0.99),
        )
        return warmup, synthesis

    def run(self) -> Path:
        """Run the training loop; returns the exported weights file."""
        config = self.config
        saved = time.monotonic()
        if self.images_seen:
            self.progress.log(f"resumed at {self.images_seen} images")
        with self.progress, StopRequest(insist=self.processes.count == 1) as stop:
            while self.images_seen < config.images:
                self._seed()
                in_warmup = self.images_seen < config.warmup_images
                terms = self._warmup_step() if in_warmup else self._step()
                count = config.warmup_batch if in_warmup else config.batch_size
                self._update_ema(count)
                self.images_seen += count
                self.progress.update(self.images_seen, terms)
                if in_warmup and self.images_seen >= config.warmup_images:
                    self._end_warmup()
                due = time.monotonic() - saved > 60 * config.save_minutes
                # Clocks differ: the first process decides when to save. A signal to one is for all.
                save, signal_number = self.processes.max(
                    due and self.processes.is_first, stop.signal_number
                )
                if signal_number:
                    self._interrupt(signal_number)
                if save:
                    self._save()
                    saved = time.monotonic()
            return self._save()

    # -- steps ---------------------------------------------------------------------------------

    def _warmup_step(self) -> Terms:
        config = self.config
        count = config.warmup_batch // self.processes.count
        rise = min(1.0, (self.images_seen + config.warmup_batch) / (0.05 * config.warmup_images))
        fall = 0.5 + 0.5 * math.cos(math.pi * self.images_seen / config.warmup_images)
        for group in self.optimiser_warmup.param_groups:
            group["lr"] = config.lr_warmup * rise * fall * group.get("factor", 1.0)
        self.model.train()
        index = self._draw(self.warmup_sampler, self.images_seen, count)
        loss = self._classify(self.model, index)
        self._update(self.optimiser_warmup, loss)
        return {"G/age": loss.detach()}

    def _step(self) -> Terms:
        config = self.config
        self.model.train()
        if self._warmed_up:
            # The encoder's input now alternates between inner and whole faces, whose statistics
            # differ: keep the batch statistics of the warm-up.
            for part in _warmup_parts(self.model):
                part.requires_grad_(config.lr_encoder > 0)
                for norm in _norms(part):
                    norm.eval()
        seen = self.images_seen - config.warmup_images
        index = self._draw(self.sampler, seen, config.batch_size // self.processes.count)
        batch = self._prepare(index)

        self.discriminator.requires_grad_(False)
        with self._autocast():
            loss, terms, aged = generator_loss(
                self.model,
                self.ema,
                self.discriminator,
                batch,
                config.losses,
                self._age_views,
                config.recon_fraction,
                self.perceptual,
            )
        if config.losses.age and config.lr_encoder and config.model.decomposition:
            terms["age"] = self._classify(self.model, index)
            loss = loss + config.losses.age * terms["age"]
        self._update(self.optimiser, loss)

        self.discriminator.requires_grad_(True)
        with torch.no_grad(), self._autocast():
            real = self.discriminator.extract_features(batch.real * batch.shared_mask)
        self.replay_buffer.append(
            DiscriminatorBatch(real, aged, batch.target_group, batch.wrong_group)
        )
        lazy = config.losses.r1 > 0 and (seen // config.batch_size) % config.r1_interval == 0
        for number in range(config.discriminator_updates):
            # First the new batch, then stored ones: repeated updates on one batch overfit to it.
            place = -1 if number == 0 else int(torch.randint(len(self.replay_buffer), ()))
            r1_factor = config.r1_interval * (lazy and number == 0)
            with self._autocast(enabled=not r1_factor):
                loss, terms_now = discriminator_loss(
                    self.discriminator, self.replay_buffer[place], config.losses, r1_factor
                )
            self._update(self.optimiser_discriminator, loss)
            if number == 0:
                terms_d = terms_now
        named = {f"G/{k}": v for k, v in terms.items()} | {f"D/{k}": v for k, v in terms_d.items()}
        return {name: value.detach() for name, value in named.items()}

    def _prepare(self, index: Tensor) -> SynthesisBatch:
        """Source faces, and for each a matched real face of a random target age.

        Low ages are more frequent, as faces change most there.
        """
        targets = MAX_TARGET_AGE * torch.rand(len(index), device=self.device) ** 1.5
        real = self.matched_sampler.draw(index, targets)
        both, group = torch.cat([index, real]), self.faces.groups[real]
        faces, mask = augmentation.whole_faces(
            self.faces.images[both], self.faces.valid[both], self.config.model.size
        )
        (faces, real_faces), (mask, real_mask) = self._to_device(faces).chunk(2), mask.chunk(2)
        return SynthesisBatch(
            faces=faces,
            mask=mask,
            source_age=self.faces.ages[index],
            target_age=self.faces.ages[real],
            target_group=group,
            wrong_group=(group + torch.randint_like(group, 1, GROUPS)) % GROUPS,
            real=real_faces,
            real_mask=real_mask,
        )

    def _classify(self, model: FaceAgeModel, index: Tensor) -> Tensor:
        faces = self.faces
        inner = augmentation.inner_faces(
            faces.images[index], faces.valid[index], self.config.model.classifier_size
        )
        with self._autocast():
            logits = model.classify(self._to_device(inner))
        return age_loss(logits, faces.ages[index], faces.groups[index], faces.exact[index])

    def _update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self.processes.average_gradients(parameters)
        optimiser.step()

    def _update_ema(self, count: int) -> None:
        """Update the EMA weights; the half-life grows at the beginning of the run."""
        half_life = min(self.config.ema_images, self.images_seen / 4 + 1)
        with torch.no_grad():
            pairs = zip(self.ema.parameters(), self.model.parameters(), strict=True)
            for average, value in pairs:
                average.lerp_(value, 1 - 0.5 ** (count / half_life))

    # -- EMA weights -----------------------------------------------------------------------------

    def _end_warmup(self) -> None:
        """Continue from the EMA encoder and classifier, with recalibrated batch statistics."""

        def run(index: Tensor) -> None:
            self._classify(self.ema, index)

        self._recalibrate(self.ema, _norms(*_warmup_parts(self.ema)), run)
        self.model.load_state_dict(self.ema.state_dict())

    def _recalibrated(self) -> FaceAgeModel:
        """A copy of the EMA model with recalibrated batch statistics, for use."""
        model = copy.deepcopy(self.ema)
        in_warmup = self.images_seen < self.config.warmup_images

        def run(index: Tensor) -> None:
            if self.config.model.decomposition and (in_warmup or not self._warmed_up):
                self._classify(model, index)
            target = (
                torch.rand(len(index), device=self.device) * MAX_TARGET_AGE
            )  # any age, as in use
            source = None if self.config.model.decomposition else self.faces.ages[index]
            faces, _ = augmentation.whole_faces(
                self.faces.images[index], self.faces.valid[index], self.config.model.size
            )
            with self._autocast():
                model.decode(model.encode(self._to_device(faces)), target, source)

        fixed = self._warmed_up and not in_warmup
        norms = _norms(model)
        if fixed:
            norms = _norms(model.identity_projection, model.age_feature_cnn)
        self._recalibrate(model, norms, run)
        return model

    def _recalibrate(
        self, model: FaceAgeModel, norms: list[BatchNorm], run: Callable[[Tensor], None]
    ) -> None:
        def batch(number: int) -> None:
            torch.manual_seed(number)
            # The same faces in every process, for the same statistics in every process.
            run(self.sampler.batch(64 * number, 64).to(self.device))

        model.eval()
        recalibrate(norms, batch, CALIBRATION_BATCHES)

    # -- results -------------------------------------------------------------------------------

    def _save(self) -> Path:
        """Save the state, the exported weights, a sample sheet and the figures on the val set."""
        self._save_state()
        path = self.config.out / WEIGHTS
        if self.processes.is_first:
            self._export(path)
        self.processes.wait()
        return path

    def _export(self, path: Path) -> None:
        model = self._recalibrated()
        figures = preview.measure_accuracy(model, self.val)
        self.progress.record(self.images_seen, figures)
        save_weights(
            path,
            model,
            describe_run(self.config, self.dataset, self.initial_weights)
            | {"images_seen": str(self.images_seen), "figures": json.dumps(figures)},
        )
        # safetensors creates files that only their owner can read.
        path.chmod((self.config.out / STATE).stat().st_mode)
        sheet = preview.draw_samples(model, self.val)
        sheet.save(make_folder(self.config.out / "samples") / f"{self.images_seen:09d}.png")

    # -- state -----------------------------------------------------------------------------------

    _STATEFUL = (
        "model",
        "ema",
        "discriminator",
        "optimiser_warmup",
        "optimiser",
        "optimiser_discriminator",
    )

    def _save_state(self) -> None:
        """Save everything that resuming needs.

        Every process but the first writes its own replay buffer to a file whose name contains
        `images_seen`. The first then replaces the state, and the older files are removed: at any
        time, the state and the replay buffers on disk belong together.
        """
        keep = self.config.discriminator_updates > 1
        state: dict[str, Any] = {
            "images_seen": self.images_seen,
            "config": to_dict(self.config),
            "replay_buffer": [b._asdict() for b in self.replay_buffer] if keep else [],
        }
        own = self._replay_path(self.images_seen)
        if not self.processes.is_first:
            save_state(own, state)
        self.processes.wait()
        if self.processes.is_first:
            state["processes"] = self.processes.count
            state["initial_weights"] = self.initial_weights
            state |= {name: getattr(self, name).state_dict() for name in self._STATEFUL}
            save_state(self.config.out / STATE, state)
        self.processes.wait()
        if not self.processes.is_first:
            for path in self.config.out.glob(own.name.rpartition("-")[0] + "-*.pt"):
                if path != own:
                    path.unlink()

    def _interrupt(self, signal_number: int) -> None:
        self.progress.log("interrupted: saving the state")
        self._save_state()
        raise TrainingInterrupted(
            f"Interrupted; the state at {self.images_seen} images is saved in {self.config.out}. "
            "The same command resumes the training.",
            signal_number,
        )

    def _replay_path(self, images_seen: int) -> Path:
        return self.config.out / f"replay-{self.processes.rank}-{images_seen:012d}.pt"

    def _resume(self) -> None:
        """Load the state of the run directory, if there is one."""
        path = self.config.out / STATE
        if not path.is_file():
            return
        state = load_state(path, self.device)
        now, then = to_dict(self.config), state["config"]
        changed = [k for k in now if k not in CHANGEABLE and now[k] != then.get(k)]
        if bool(now["weights"]) != bool(then.get("weights")):
            changed.append("weights")
        if changed:
            raise ConfigError(
                f"{path} was trained with other values of {', '.join(changed)}.",
                "Give another --out, or the same options.",
            )
        try:
            for name in self._STATEFUL:
                getattr(self, name).load_state_dict(state[name])
            self.images_seen = state["images_seen"]
            self.initial_weights = state["initial_weights"]
            if state["processes"] == self.processes.count:  # else the replay buffer starts empty
                if not self.processes.is_first:
                    state = load_state(self._replay_path(self.images_seen), self.device)
                batches = (DiscriminatorBatch(**b) for b in state["replay_buffer"])
                self.replay_buffer.extend(batches)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"{path} was written by another version of faceage ({str(error).splitlines()[0]}).",
                "Give another --out.",
            ) from None

    @property
    def _warmed_up(self) -> bool:
        return bool(self.config.warmup_images or self.config.weights)

    # -- helpers ---------------------------------------------------------------------------------

    def _decode(self, dataset: Dataset, side: int) -> DecodedDataset:
        with self.progress.task(f"decoding {dataset.name}", len(dataset)) as advance:
            return decode(dataset, side, advance).to(self.device)

    def _val(self) -> Dataset:
        try:
            return open_dataset(self.config.data, "val")
        except DataError:
            return self.dataset  # without a val set, monitor on the training set

    def _draw(self, sampler: InfiniteSampler, position: int, count: int) -> Tensor:
        start = position + self.processes.rank * count
        return sampler.batch(start, count).to(self.device)

    def _seed(self) -> None:
        seed = (self.config.seed * 1_000_003 + self.images_seen) * 1024 + self.processes.rank
        torch.manual_seed(seed % 2**63)

    def _to_device(self, value: _Movable) -> _Movable:
        return value.to(self.device).to(memory_format=torch.channels_last)

    def _autocast(self, enabled: bool = True) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def _warmup_parts(model: FaceAgeModel) -> list[nn.Module]:
    """The parts that the warm-up trains."""
    if not model.config.decomposition:
        return [model.encoder]
    return [model.encoder, model.decomposition, model.classifier]


def _norms(*parts: nn.Module) -> list[BatchNorm]:
    return [m for part in parts for m in part.modules() if isinstance(m, BatchNorm)]
