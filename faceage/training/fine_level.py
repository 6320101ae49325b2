"""Training of the fine level alone, on pairs of high resolution (recipe `fine-level`).

The rest of the model stays as it is, so that its changes are computed once, before the training. Of
most faces, the fine level then gets the residual that gives the target picture, shrunk to the
model's size, and has to reach the target picture itself: super-resolution. The others get the
model's own residual, for which there is no such picture: the strength of their texture has to be
that of the target picture, and the discriminator judges them.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from faceage.ages import GROUPS
from faceage.checkpoints import read_metadata
from faceage.data.sampling import PairSampler
from faceage.errors import DataError
from faceage.imaging.conversion import to_tensor, to_uint8
from faceage.models.decoders import Change, displace
from faceage.models.fine_level import FINE_SCALE
from faceage.models.generator import FaceAgeModel, apply_change
from faceage.models.tta import decode_tta, encode_tta
from faceage.training.batches import StepPlan
from faceage.training.config import TrainConfig
from faceage.training.losses import (
    DiscriminatorBatch,
    Terms,
    adversarial_loss,
    feature_l1,
    texture_l1,
)
from faceage.training.networks import Networks
from faceage.training.trainer import Trainer

PART = 128  # px, side of the parts of faces that are trained on
MARGIN = 32  # px at their edges that no loss sees, as layers without the surroundings compute them
EDGE = 0.06  # of the face's side, where no parts are
OWN_RESIDUAL = 0.375  # fraction of a batch with the model's own residual
SAME = 0.125  # fraction of a batch whose residual is zero
GRAIN = 0.06  # largest standard deviation of the noise, as of a photo's, which has to stay
BLURRED = 0.65  # probability that a batch is blurred, as if enlarged from fewer px
LEAST_SHARPNESS = 0.2  # how few, as a fraction
PREPARED = 8  # faces in one batch before the training


class FineLevelNetworks(Networks):
    """The networks of a run that trains the fine level alone."""

    def _make_optimisers(
        self, config: TrainConfig
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        assert self.model.fine_level
        self.model.requires_grad_(False)
        parameters = list(self.model.fine_level.requires_grad_().parameters())
        warmup = torch.optim.AdamW(parameters, lr=config.lr_warmup)  # not used
        return warmup, torch.optim.Adam(parameters, lr=config.lr, betas=(0.5, 0.99))


class Pairs(NamedTuple):
    """A source picture each, with its change to the age of another picture of the person."""

    target: Tensor  # (N,) index of that picture
    moved: Tensor  # N,4S,4S,3 uint8: the displaced source
    residual: Tensor  # N,3,S,S float16: the model's own


class Parts(NamedTuple):
    """Parts of faces at 4S px."""

    moved: Tensor  # N,3,P,P displaced sources
    target: Tensor  # N,3,P,P
    residual: Tensor  # N,3,P/4,P/4


class FineLevelTrainer(Trainer):
    """The training loop with steps of the fine level."""

    networks: FineLevelNetworks

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.networks.model.eval()
        self.pairs = self._prepare_pairs()

    def batches(self) -> Iterator[tuple[StepPlan, Tensor]]:
        """The steps that remain; their pictures are in `pairs`."""
        while self.state.images_seen < self.config.images:
            yield self.data.planner.plan(self.state.images_seen), torch.empty(0)

    @torch.no_grad()
    def _prepare_pairs(self) -> Pairs:
        """Of each picture, its change to another one of the person, or to itself if it is alone."""
        labels = self.data.train.labels
        index = torch.arange(len(labels))
        partners, target = PairSampler(labels.people), index.clone()
        paired = partners.source_weights > 0
        if not paired.any():
            raise DataError(
                f"No person in {self.config.data} has two pictures.",
                "Make such a dataset: faceage pairs --size 512",
            )
        generator = torch.Generator().manual_seed(self.config.seed)
        target[paired] = partners.draw(index[paired], generator)
        model, moved, residuals = self.networks.model, [], []
        parts = torch.split(index, PREPARED)
        with self.progress.task("computing changes", len(index)) as advance:
            for part, images in zip(parts, self.data.train.batches(parts), strict=True):
                faces = self.networks.to_device(to_tensor(images, self.device))
                views = encode_tta(model, F.avg_pool2d(faces, FINE_SCALE))
                rows = torch.arange(len(part), device=self.device)
                change = decode_tta(model, views, rows, labels.ages[target[part]].to(self.device))
                moved.append(torch.from_numpy(to_uint8(displace(faces, change.flow))))
                residuals.append(change.residual.half().cpu())
                advance(len(part))
        return Pairs(target, torch.cat(moved), torch.cat(residuals))

    def _synthesis_step(self, plan: StepPlan, images: Tensor) -> Terms:
        config, networks = self.config, self.networks
        model, discriminator = networks.model, networks.discriminator
        self._set_learning_rates(plan)
        parts, own = self._draw_parts(plan.index)
        group = self._labels(self.pairs.target[plan.index]).groups
        with self._autocast():
            aged = _centre(refine_parts(model, parts))
            target = _centre(parts.target)
            discriminator.requires_grad_(False)
            with torch.no_grad():
                real = discriminator.extract_features(target)
            features = discriminator.extract_features(aged)
            paired, every = [~own] * len(real), [torch.ones_like(own)] * len(real)
            terms = {
                "paired": (aged - target)[~own].abs().mean(),
                "paired_features": feature_l1(features, real, paired),
                "paired_texture": texture_l1(features, real, every),
                "adversarial": adversarial_loss(discriminator, features, group),
            }
            loss = torch.stack([getattr(config.losses, k) * v for k, v in terms.items()]).sum()
        if not self._update(networks.optimiser, loss):
            return {}
        discriminator.requires_grad_(True)
        fake = [feature.detach() for feature in features]
        wrong_group = (group + torch.randint_like(group, 1, GROUPS)) % GROUPS
        self.state.replay_buffer.append(DiscriminatorBatch(real, fake, group, wrong_group))
        terms_d = self._update_discriminator(plan.images_seen // plan.images)
        named = {f"G/{k}": v for k, v in terms.items()} | {f"D/{k}": v for k, v in terms_d.items()}
        return {name: value.detach() for name, value in named.items()} if terms_d else {}

    def _draw_parts(self, index: Tensor) -> tuple[Parts, Tensor]:
        """Random parts of some pairs, and (N,) bool, which of them have the model's residual."""
        pairs, count = self.pairs, len(index)
        (targets,) = self.data.train.batches([pairs.target[index]])
        side = targets.shape[1] // FINE_SCALE
        part = min(PART // FINE_SCALE, side)
        starts = side * EDGE + (side * (1 - 2 * EDGE) - part) * torch.rand(count, 2)
        corners = starts.clamp(0, side - part).long().tolist()
        moved, target, residual = [], [], []
        for row, number, (y, x) in zip(range(count), index.tolist(), corners, strict=True):
            fine = [slice(FINE_SCALE * v, FINE_SCALE * (v + part)) for v in (y, x)]
            moved.append(pairs.moved[number, fine[0], fine[1]])
            target.append(targets[row, fine[0], fine[1]])
            residual.append(pairs.residual[number, :, y : y + part, x : x + part])
        same = round(SAME * count)
        target[:same] = moved[:same]  # nothing to add
        own = torch.arange(count) >= round((1 - OWN_RESIDUAL) * count)
        drawn = (
            to_tensor(torch.stack(moved), self.device),
            to_tensor(torch.stack(target), self.device),
            torch.stack(residual).float().to(self.device),
            own.to(self.device),
        )
        return augmented_parts(*drawn), drawn[-1]

    def _measure(self, model: FaceAgeModel) -> dict[str, float]:
        """The figures of the initial weights, which have the same classifier."""
        figures: dict[str, float] = json.loads(self._initial_metadata().get("figures", "{}"))
        return figures

    def _metadata(self) -> dict[str, str]:
        """The metadata of the initial weights, and the description of this run as one entry."""
        return self._initial_metadata() | {"fine_level": json.dumps(super()._metadata())}

    def _initial_metadata(self) -> dict[str, str]:
        assert self.config.weights
        return read_metadata(self.config.weights)

    def _recalibrated(self) -> FaceAgeModel:
        """The EMA model: without batch norms in the fine level, nothing is to be measured."""
        return self.networks.ema


def augmented_parts(moved: Tensor, target: Tensor, residual: Tensor, own: Tensor) -> Parts:
    """Parts whose faces are mirrored, recoloured and blurred alike, and get the same grain.

    Args:
        moved, target: N,3,P,P in [-1, 1].
        residual: N,3,P/4,P/4, the model's.
        own: (N,) bool, which parts keep it; the others get the residual that gives the target.
    """
    count, device = len(moved), moved.device
    both = torch.cat([moved, target], 1)  # N,6,P,P
    if torch.rand(()) < BLURRED:
        side = both.shape[-1]
        sharp = LEAST_SHARPNESS + (1 - LEAST_SHARPNESS) * torch.rand(()).item()
        both = F.interpolate(both, round(sharp * side), mode="bilinear", antialias=True)
        both = F.interpolate(both, side, mode="bicubic")
    strength = GRAIN * torch.rand(count, 1, 1, 1, device=device)
    strength = strength * (torch.rand_like(strength) < 0.3)
    both = both + strength * torch.randn_like(both[:, :1])
    gain = 0.7 + 0.6 * torch.rand(count, 1, 1, 1, device=device)
    saturation = 0.5 + 0.7 * torch.rand(count, 1, 1, 1, device=device)

    def recoloured(values: Tensor) -> Tensor:
        grey = values.mean(1, keepdim=True)
        return gain * (grey + saturation * (values - grey))

    level = 0.2 * (2 * torch.rand(count, 1, 1, 1, device=device) - 1)
    moved, target = ((recoloured(x) + level).clamp(-1, 1) for x in both.chunk(2, 1))
    wanted = F.avg_pool2d(target, FINE_SCALE) - F.avg_pool2d(moved, FINE_SCALE)
    residual = torch.where(own[:, None, None, None], recoloured(residual), wanted)
    mirrored = torch.rand(count, 1, 1, 1, device=device) < 0.5
    return Parts(*(torch.where(mirrored, x.flip(3), x) for x in (moved, target, residual)))


def refine_parts(model: FaceAgeModel, parts: Parts) -> Tensor:  # -> N,3,P,P in [-1, 1]
    """The parts at their target ages, with the details of the fine level."""
    assert model.fine_level
    still = torch.zeros(len(parts.moved), 2, 1, 1, device=parts.moved.device)
    residual = model.fine_level(parts.moved, parts.residual)
    return apply_change(parts.moved, Change(residual, still))


def _centre(parts: Tensor) -> Tensor:
    """Parts without their margin."""
    inner = slice(MARGIN, parts.shape[-1] - MARGIN)
    return parts[..., inner, inner]
