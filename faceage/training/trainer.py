"""The training loop, for one process or several under torchrun.

Progress is counted in images seen, summed over all processes. The random numbers of a step depend
on (seed, rank, images seen) alone, so that the same command resumes an interrupted run exactly.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from faceage import distributed, hub
from faceage.ages import GROUPS
from faceage.checkpoints import BatchNorm, read_tensors, recalibrate, save_weights
from faceage.data.augmentation import inner_faces, whole_faces, whole_transforms
from faceage.data.datasets import Dataset, EmptySplitError, Labels, open_dataset
from faceage.errors import ConfigError, FaceAgeError
from faceage.files import make_folder
from faceage.imaging.photos import Photo, save_photo
from faceage.models.colours import limit_lips
from faceage.models.discriminators import Features
from faceage.models.generator import FaceAgeModel
from faceage.models.identity import GENDER_AGE, IdentityEmbedder, fit_age_part, fit_gender
from faceage.models.vgg import VggFeatures
from faceage.training import preview
from faceage.training.batches import MAX_TARGET_AGE, StepPlan, TrainingData, load_data
from faceage.training.config import TrainConfig, find_vgg
from faceage.training.interruption import StopRequest, TrainingInterrupted
from faceage.training.logging import Progress
from faceage.training.losses import (
    DiscriminatorBatch,
    EmbeddingLosses,
    SynthesisBatch,
    Terms,
    age_loss,
    discriminator_loss,
    displacement_loss,
    generator_loss,
    match_skin,
)
from faceage.training.networks import Networks, batch_norms, warmup_parts
from faceage.training.provenance import describe_data, describe_run
from faceage.training.state import (
    RunState,
    make_replay_buffer,
    read_state,
    write_state,
)

WEIGHTS = "weights.safetensors"
CALIBRATION_BATCHES, CALIBRATION_BATCH = 24, 64
EMBEDDER_SIZE = 128  # px; at 224 px, on which it was trained, it takes three times as long
MAX_SKIPPED = 100  # steps in a row with gradients that are not finite


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
            trainer = make_trainer(config, processes)
            make_folder(config.out)
        return trainer.run()
    finally:
        distributed.stop()


def make_trainer(config: TrainConfig, processes: distributed.Processes) -> "Trainer":
    """Check the options, open what they name, and resume if the run directory has a state."""
    config.check(processes.count)
    train_set, val_set = open_splits(config.data)
    pairs_set = open_dataset(config.pairs) if config.pairs else None
    path = find_vgg(config)
    vgg = VggFeatures(read_tensors(path)) if path else None
    synchronise = processes.count > 1 and processes.device.type == "cuda"
    networks_class, trainer_class = trainer_classes(config)
    networks = networks_class(config, processes.device, vgg, synchronise)
    progress = Progress(config.images, config.out if processes.is_first else None)
    run = read_state(config, processes, networks, processes.device)
    if run:
        progress.log(f"resumed at {run.images_seen} images")
    else:
        run = RunState(make_replay_buffer(config))
        if config.weights:
            run.initial_weights = networks.start_from(config.weights)
        if config.discriminator:
            networks.start_discriminator_from(config.discriminator)
    data = load_data(config, processes, train_set, val_set, progress, pairs_set)
    return trainer_class(config, processes, networks, data, run, progress)


def trainer_classes(config: TrainConfig) -> "tuple[type[Networks], type[Trainer]]":
    """The classes of a run's networks and trainer."""
    if config.teacher:
        from faceage.training.distillation import DistillationNetworks, DistillationTrainer

        return DistillationNetworks, DistillationTrainer
    if config.model.fine_level:
        from faceage.training.fine_level import FineLevelNetworks, FineLevelTrainer

        return FineLevelNetworks, FineLevelTrainer
    return Networks, Trainer


def open_splits(data: str) -> tuple[Dataset, Dataset]:
    """The train and val set of a dataset; without a val set, the train set twice.

    Raises:
        DataError: no such dataset, or it is malformed.
    """
    train_set = open_dataset(data, "train")
    try:
        return train_set, open_dataset(data, "val")
    except EmptySplitError:
        return train_set, train_set


class Trainer:
    """One run: its loop, its steps, and what it saves."""

    def __init__(
        self,
        config: TrainConfig,
        processes: distributed.Processes,
        networks: Networks,
        data: TrainingData,
        run: RunState,
        progress: Progress,
    ) -> None:
        self.config, self.processes, self.device = config, processes, processes.device
        self.networks, self.data, self.state, self.progress = networks, data, run, progress
        self._skipped_in_a_row = 0
        self._warmup_done = bool(config.warmup_images or config.weights)
        self._embedding: EmbeddingLosses | None = None
        if config.losses.identity or config.losses.gender:
            self._embedding = self._make_embedding_losses()

    def run(self) -> Path:
        """Run the training loop; returns the exported weights file."""
        saved = time.monotonic()
        with self.progress, StopRequest(insist=self.processes.count == 1) as stop:
            for plan, images in self.batches():
                self.step(plan, images)
                due = time.monotonic() - saved > 60 * self.config.save_minutes
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

    def batches(self) -> Iterator[tuple[StepPlan, Tensor]]:
        """The steps that remain, with their pictures."""
        return self.data.planner.batches(self.data.train, self.state.images_seen)

    # -- steps -----------------------------------------------------------------------------------

    def step(self, plan: StepPlan, images: Tensor) -> Terms:
        """One step of the warm-up or the synthesis; the losses are empty if it had no effect."""
        plan.seed_generators()
        images = images.to(self.device)
        in_warmup = plan.images_seen < self.config.warmup_images
        terms = (self._warmup_step if in_warmup else self._synthesis_step)(plan, images)
        # The EMA's half-life grows at the beginning of the run.
        half_life = min(self.config.ema_images, plan.images_seen / 4 + 1)
        self.networks.update_ema(0.5 ** (plan.images / half_life))
        self.state.images_seen = plan.images_seen + plan.images
        self._count_skipped(skipped=not terms)
        self.progress.update(self.state.images_seen, terms, self.state.skipped_steps)
        if in_warmup and self.state.images_seen >= self.config.warmup_images:
            self._end_warmup()
        return terms

    def _warmup_step(self, plan: StepPlan, images: Tensor) -> Terms:
        config, networks = self.config, self.networks
        rise = min(1.0, (plan.images_seen + plan.images) / (0.05 * config.warmup_images))
        fall = 0.5 + 0.5 * math.cos(math.pi * plan.images_seen / config.warmup_images)
        for group in networks.optimiser_warmup.param_groups:
            group["lr"] = config.lr_warmup * rise * fall * group.get("factor", 1.0)
        networks.model.train()
        loss = self._age_loss(networks.model, images, plan.index)
        return {"G/age": loss.detach()} if self._update(networks.optimiser_warmup, loss) else {}

    def _synthesis_step(self, plan: StepPlan, images: Tensor) -> Terms:
        networks = self.networks
        networks.model.train()
        if self._warmup_done:
            # The encoder's input now alternates between inner and whole faces, whose statistics
            # differ: keep the batch statistics of the warm-up.
            for part in warmup_parts(networks.model):
                part.requires_grad_(self.config.lr_encoder > 0)
                for norm in batch_norms(part):
                    norm.eval()
        self._set_learning_rates(plan)
        batch = self._prepare(plan, images)
        if plan.images_seen - self.config.warmup_images < self.config.flow_images:
            return self._displacement_step(batch)
        networks.discriminator.requires_grad_(False)
        with torch.no_grad(), self._autocast():
            real = batch.extract_features(networks.discriminator, batch.real)
        terms, aged = self._update_generator(batch, real, plan, images)
        if not terms:
            return {}
        networks.discriminator.requires_grad_(True)
        self.state.replay_buffer.append(
            DiscriminatorBatch(real, aged, batch.target_group, batch.wrong_group)
        )
        first = self.config.warmup_images + self.config.flow_images
        step = (plan.images_seen - first) // plan.images
        terms_d = self._update_discriminator(step)
        named = {f"G/{k}": v for k, v in terms.items()} | {f"D/{k}": v for k, v in terms_d.items()}
        return {name: value.detach() for name, value in named.items()} if terms_d else {}

    def _set_learning_rates(self, plan: StepPlan) -> None:
        """The learning rates of a synthesis step, which rise at first."""
        config, networks = self.config, self.networks
        done = plan.images_seen - config.warmup_images + plan.images
        rise = min(1.0, done / max(1, config.lr_rise_images))
        for group in networks.optimiser.param_groups:
            group["lr"] = rise * config.lr * group.get("factor", 1.0)
        for group in networks.optimiser_discriminator.param_groups:
            group["lr"] = rise * config.lr_discriminator

    def _prepare(self, plan: StepPlan, images: Tensor) -> SynthesisBatch:
        """The inputs of a synthesis step: source faces and matched faces."""
        labels, count = self._labels(plan.pictures), len(plan.index)
        transform = whole_transforms(2 * count, self.device)
        paired = plan.paired.to(self.device)
        transform[count:][paired] = transform[:count][paired]  # pixels of pairs are compared
        faces, mask = whole_faces(images, labels.valid, self.config.model.size, transform)
        faces = self.networks.to_device(faces)
        both = paired.repeat(2)
        faces[both] = limit_lips(faces[both], labels.ages[both])
        real = faces[count:].clone()
        real[paired] = match_skin(real[paired], faces[:count][paired])
        group = labels.groups[count:]
        return SynthesisBatch(
            faces=faces[:count],
            mask=mask[:count],
            source_age=labels.ages[:count],
            target_age=labels.ages[count:],
            target_group=group,
            wrong_group=(group + torch.randint_like(group, 1, GROUPS)) % GROUPS,
            real=real,
            real_mask=mask[count:],
            paired=paired,
            seed=plan.seed,
        )

    def _displacement_step(self, batch: SynthesisBatch) -> Terms:
        with self._autocast():
            loss, terms = displacement_loss(self.networks.model, batch)
        if not self._update(self.networks.optimiser, loss):
            return {}
        return {f"G/{name}": value.detach() for name, value in terms.items()}

    def _update_generator(
        self, batch: SynthesisBatch, real: Features, plan: StepPlan, images: Tensor
    ) -> tuple[Terms, Features]:
        """Update the generator; returns its losses and the discriminator's features.

        Args:
            real: the discriminator's features of the real faces.
        """
        config, networks = self.config, self.networks
        with self._autocast():
            loss, terms, aged = generator_loss(
                networks.model,
                networks.ema,
                networks.discriminator,
                batch,
                real,
                config.losses,
                networks.age_views,
                config.recon_fraction,
                networks.perceptual,
                self._embedding,
            )
        if config.losses.age and config.lr_encoder and config.model.decomposition:
            sources = images[: len(plan.index)]
            terms["age"] = self._age_loss(networks.model, sources, plan.index)
            loss = loss + config.losses.age * terms["age"]
        return (terms if self._update(networks.optimiser, loss) else {}), aged

    def _update_discriminator(self, step: int) -> Terms:
        """Update the discriminator; returns its losses on the new batch, the last in the buffer."""
        config, networks, replay_buffer = self.config, self.networks, self.state.replay_buffer
        terms: Terms = {}
        for number in range(config.discriminator_updates):
            # First the new batch, then stored ones: repeated updates on one batch overfit to it.
            place = -1 if number == 0 else int(torch.randint(len(replay_buffer), ()))
            with_r1 = number == 0 and config.losses.r1 > 0 and step % config.r1_interval == 0
            r1_factor = config.r1_interval if with_r1 else 0
            with self._autocast(enabled=not with_r1):
                loss, new_terms = discriminator_loss(
                    networks.discriminator, replay_buffer[place], config.losses, r1_factor
                )
            if not self._update(networks.optimiser_discriminator, loss):
                return {}
            terms = terms or new_terms
        return terms

    def _age_loss(self, model: FaceAgeModel, images: Tensor, index: Tensor) -> Tensor:
        """The age loss on pictures of the train set, N,R,R,3 uint8, and their indices."""
        labels = self._labels(index)
        model_config = self.config.model
        inner = inner_faces(
            images, labels.valid, model_config.classifier_size, model_config.classifier_window
        )
        with self._autocast():
            logits = model.classify(self.networks.to_device(inner))
        return age_loss(logits, labels.ages, labels.groups, labels.exact)

    def _update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> bool:
        """Step the optimiser; without effect, and False, if the gradient is not finite."""
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self.processes.average_gradients(parameters)
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not norm.isfinite():
            return False
        if self.config.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.grad_clip, norm)
        optimiser.step()
        return True

    def _count_skipped(self, skipped: bool) -> None:
        self.state.skipped_steps += skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row == MAX_SKIPPED:
            with self.processes.share_errors():
                raise FaceAgeError(
                    f"Stopped at {self.state.images_seen} images: the gradients of {MAX_SKIPPED} "
                    "steps in a row are not finite.",
                    "Lower lr and lr_discriminator, or set grad_clip=1 or dtype=float32.",
                )

    @torch.no_grad()
    def _make_embedding_losses(self) -> EmbeddingLosses:
        """The losses on identity embeddings, fitted to balanced faces of the train set.

        Raises:
            ConfigError: the loss of gender has a weight, but women or men are not named.
        """
        assert self.config.embedder
        embedder = IdentityEmbedder(read_tensors(self.config.embedder), EMBEDDER_SIZE)
        embedder = self.networks.to_device(embedder)
        parts, indices = [], []
        for images, index in self._calibration_batches():
            faces, _ = whole_faces(images, self._labels(index).valid, self.config.model.size)
            with self._autocast():
                parts.append(embedder(faces))
            indices.append(index)
        embeddings, index = torch.cat(parts), torch.cat(indices)
        ages = self._labels(index).ages
        age_part = fit_age_part(embeddings, ages)
        if not self.config.losses.gender:
            return EmbeddingLosses(embedder, age_part)
        male = self.data.dataset.male[index].to(self.device)
        known = (male >= 0) & (ages >= GENDER_AGE)
        if not 0 < male[known].mean() < 1:
            raise ConfigError(
                "losses.gender needs women and men of 12 and older; "
                f"{self.data.dataset.name} does not name both.",
                "Add the column gender (F or M) to its csv, or train with --set losses.gender=0.",
            )
        return EmbeddingLosses(embedder, age_part, fit_gender(embeddings[known], male[known]))

    # -- EMA weights -----------------------------------------------------------------------------

    def _end_warmup(self) -> None:
        """Continue from the EMA encoder and classifier, with recalibrated batch statistics."""
        ema = self.networks.ema

        def run(images: Tensor, index: Tensor) -> None:
            self._age_loss(ema, images, index)

        self._recalibrate(ema, batch_norms(*warmup_parts(ema)), run)
        self.networks.model.load_state_dict(ema.state_dict())

    def _recalibrated(self) -> FaceAgeModel:
        """A copy of the EMA model with recalibrated batch statistics, for use."""
        model = copy.deepcopy(self.networks.ema)
        decomposes = self.config.model.decomposition
        in_warmup = self.state.images_seen < self.config.warmup_images
        fixed = self._warmup_done and not in_warmup  # the statistics of encoder and classifier

        def run(images: Tensor, index: Tensor) -> None:
            if decomposes and not fixed:
                self._age_loss(model, images, index)
            labels = self._labels(index)
            ages = torch.rand(len(images), device=self.device) * MAX_TARGET_AGE  # as in use
            faces, _ = whole_faces(images, labels.valid, self.config.model.size)
            with self._autocast():
                encoded = model.encode(self.networks.to_device(faces))
                model.decode(encoded, ages, None if decomposes else labels.ages)

        norms = batch_norms(model)
        if fixed:
            norms = batch_norms(model.identity_projection, model.age_feature_cnn)
        self._recalibrate(model, norms, run)
        return model

    def _recalibrate(
        self, model: FaceAgeModel, norms: list[BatchNorm], run: Callable[[Tensor, Tensor], None]
    ) -> None:
        batches = self._calibration_batches()

        def batch(number: int) -> None:
            run(*next(batches))

        model.eval()
        recalibrate(norms, batch, CALIBRATION_BATCHES)

    def _calibration_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures and their indices: the same, with the same random numbers, in every process."""
        sampler, size = self.data.planner.sampler, CALIBRATION_BATCH
        indices = [sampler.batch(size * number, size) for number in range(CALIBRATION_BATCHES)]
        for number, images in enumerate(self.data.train.batches(indices)):
            torch.manual_seed(number)
            yield images.to(self.device), indices[number]

    # -- results ---------------------------------------------------------------------------------

    def _save(self) -> Path:
        """Save the state, the exported weights, a sample sheet and the figures on the val set."""
        write_state(self.config, self.processes, self.networks, self.state)
        path = self.config.out / WEIGHTS
        if self.processes.is_first:
            self._export(path)
        self.processes.wait()
        return path

    def _interrupt(self, signal_number: int) -> None:
        self.progress.log("interrupted: saving the state")
        write_state(self.config, self.processes, self.networks, self.state)
        raise TrainingInterrupted(
            f"Interrupted; the state at {self.state.images_seen} images is saved in "
            f"{self.config.out}. The same command resumes the training.",
            signal_number,
        )

    def _export(self, path: Path) -> None:
        images_seen, val = self.state.images_seen, self.data.val
        model = self._recalibrated()
        figures = self._measure(model)
        self.progress.record(images_seen, figures)
        save_weights(path, model, self._metadata() | {"figures": json.dumps(figures)})
        sheet = np.asarray(preview.draw_samples(model, val, self.device))
        save_photo(
            Photo(sheet),
            sheet,
            make_folder(self.config.out / "samples") / f"{images_seen:09d}.png",
            force=True,
            synthetic={
                "age": " ".join(map(str, preview.SAMPLE_AGES)),
                "weights": hub.file_sha256(path),
            },
        )

    def _measure(self, model: FaceAgeModel) -> dict[str, float]:
        """Figures of the age classifier on the val set."""
        return preview.measure_accuracy(model, self.data.val, self.device, self._autocast())

    def _metadata(self) -> dict[str, str]:
        """The metadata of the exported weights, without the figures."""
        metadata = describe_run(self.config, self.data.dataset, self._sources())
        if self.data.pairs:
            metadata["pairs"] = describe_data(self.data.pairs)
        return metadata | {"images_seen": str(self.state.images_seen)}

    def _sources(self) -> dict[str, dict[str, str]]:
        """Descriptions of the weights that the run used, by their names in the metadata."""
        initial_weights = self.state.initial_weights
        return {"initial_weights": initial_weights} if initial_weights else {}

    def _labels(self, index: Tensor) -> Labels:
        """Labels of the train set, on the device."""
        return self.data.train.labels[index].to(self.device)

    def _autocast(self, enabled: bool = True) -> AbstractContextManager[None]:
        enabled = enabled and self.config.dtype == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
