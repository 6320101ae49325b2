"""Training of the fine level alone, on pairs of high resolution (recipe `fine-level`).

The rest of the model stays as it is. Most faces of a batch learn super-resolution: the residual is
the one that gives the target picture, shrunk to the model's size, and the target picture itself is
the result to reach. The others get the model's own residual, for which there is no such picture,
and learn from the discriminator alone.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from faceage.ages import GROUPS
from faceage.imaging.conversion import to_tensor
from faceage.models.decoders import Change, displace
from faceage.models.fine_level import FINE_SCALE
from faceage.models.generator import FaceAgeModel, apply_change
from faceage.models.tta import decode_tta, encode_tta
from faceage.training.batches import StepPlan
from faceage.training.config import TrainConfig
from faceage.training.losses import DiscriminatorBatch, Terms, adversarial_loss, feature_l1
from faceage.training.networks import Networks
from faceage.training.trainer import Trainer

PART = 128  # px, side of the parts of faces that are trained on
OWN_RESIDUAL = 0.375  # fraction of a batch with the model's own residual
SAME_AGE = 0.125  # fraction of a batch whose target is the source picture
EDGE = 0.06  # of the face's side, where no parts are
GRAIN = 0.06  # largest standard deviation of the noise, as of a photo's, which has to stay
BLURRED = 0.65  # probability that a batch is blurred, as if enlarged from fewer px
LEAST_SHARPNESS = 0.2  # how few, as a fraction


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


class Parts(NamedTuple):
    """Parts of faces at 4S px."""

    moved: Tensor  # N,3,P,P displaced sources
    target: Tensor  # N,3,P,P
    residual: Tensor  # N,3,P/4,P/4


class FineLevelTrainer(Trainer):
    """The training loop with steps of the fine level."""

    networks: FineLevelNetworks

    def _synthesis_step(self, plan: StepPlan, images: Tensor) -> Terms:
        config, networks = self.config, self.networks
        model, discriminator = networks.model, networks.discriminator
        model.eval()
        self._set_learning_rates(plan)
        labels, count = self._labels(plan.pictures), len(plan.index)
        faces, target = to_tensor(images).chunk(2)
        same = max(1, round(SAME_AGE * count))
        target[:same] = faces[:same]
        target_age = torch.cat([labels.ages[:same], labels.ages[count + same :]])
        group = torch.cat([labels.groups[:same], labels.groups[count + same :]])
        own = torch.arange(count, device=self.device) >= round((1 - OWN_RESIDUAL) * count)
        with self._autocast():
            parts = make_parts(model, faces, target, target_age, own)
            aged = refine_parts(model, parts)
            discriminator.requires_grad_(False)
            with torch.no_grad():
                real = discriminator.extract_features(parts.target)
            features = discriminator.extract_features(aged)
            paired = [~own] * len(real)
            terms = {
                "paired": (aged - parts.target)[~own].abs().mean(),
                "paired_features": feature_l1(features, real, paired),
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

    def _recalibrated(self) -> FaceAgeModel:
        """The EMA model: without batch norms in the fine level, nothing is to be measured."""
        return self.networks.ema


@torch.no_grad()
def make_parts(
    model: FaceAgeModel, faces: Tensor, target: Tensor, target_age: Tensor, own: Tensor
) -> Parts:
    """Random parts of displaced faces, augmented, with the residuals that give their targets.

    Args:
        faces, target: N,3,4S,4S in [-1, 1].
        target_age: (N,) years.
        own: (N,) bool, faces that get the model's own residual.
    """
    small = F.avg_pool2d(faces, FINE_SCALE)
    index = torch.arange(len(faces), device=faces.device)
    change = decode_tta(model, encode_tta(model, small), index, target_age)
    moved = displace(faces, change.flow)
    side = faces.shape[-1] // FINE_SCALE
    part = min(PART // FINE_SCALE, side)
    starts = side * EDGE + (side * (1 - 2 * EDGE) - part) * torch.rand(len(faces), 2, device="cpu")
    corners = starts.clamp(0, side - part).long().tolist()

    def cut(values: Tensor, scale: int) -> Tensor:
        rows = [
            value[:, y * scale : (y + part) * scale, x * scale : (x + part) * scale]
            for value, (y, x) in zip(values, corners, strict=True)
        ]
        return torch.stack(rows)

    return _augmented(
        cut(moved, FINE_SCALE), cut(target, FINE_SCALE), cut(change.residual.float(), 1), own
    )


def _augmented(moved: Tensor, target: Tensor, residual: Tensor, own: Tensor) -> Parts:
    """Parts whose faces are mirrored, recoloured and blurred alike, and get the same grain."""
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
    wanted = _softened(F.avg_pool2d(target, FINE_SCALE)) - F.avg_pool2d(moved, FINE_SCALE)
    residual = torch.where(own[:, None, None, None], recoloured(residual), wanted)
    mirrored = torch.rand(count, 1, 1, 1, device=device) < 0.5
    return Parts(*(torch.where(mirrored, x.flip(3), x) for x in (moved, target, residual)))


def refine_parts(model: FaceAgeModel, parts: Parts) -> Tensor:  # -> N,3,P,P in [-1, 1]
    """The parts at their target ages, with the details of the fine level."""
    assert model.fine_level
    still = torch.zeros(len(parts.moved), 2, 1, 1, device=parts.moved.device)
    residual = model.fine_level(parts.moved, parts.residual)
    return apply_change(parts.moved, Change(residual, still))


def _softened(faces: Tensor) -> Tensor:
    """Some of the faces slightly blurred, as the model's own results are."""
    blurred = F.avg_pool2d(F.pad(faces, (1, 1, 1, 1), mode="replicate"), 3, 1)
    weight = torch.rand(len(faces), 1, 1, 1, device=faces.device)
    weight = weight * (torch.rand_like(weight) < 0.6)
    return torch.lerp(faces, blurred, weight)
