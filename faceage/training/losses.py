"""The losses: two functions that return (total, named terms), and what they are made of.

Paper: Kim & Park, JBE 28(2), 2023, section on the loss functions: reconstruction, cycle,
adversarial, age and perceptual. What the paper does not have is weighted 0 in its recipe.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import YEARS
from faceage.data.augmentation import head_mask
from faceage.models.discriminators import AnyDiscriminator, Seen
from faceage.models.generator import Decomposed, FaceAgeModel, apply_change, group_log_probabilities
from faceage.models.vgg import VggFeatures

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts. The first five are the paper's.

    Attributes:
        reconstruction: L1 to the face itself when the target age is its own.
        cycle: L1 to the face itself after a random age and back.
        adversarial: non-saturating, at the target's age group.
        age: cross-entropy of the input face's age.
        perceptual: VGG19 features of the reconstruction (on the cycled face it was found to hurt).
        target_age: extension; cross-entropy of the aged face's age at the target, read by the
            averaged classifier.
        change: extension; mean absolute residual, displacement, and its differences from place to
            place: change no more than age asks.
        r1: gradient penalty of the discriminator on what it sees of real faces (0.5 * r1 *
            |gradient|^2).
        wrong_age: extension; real faces said to be of another group are fakes, too.
    """

    reconstruction: float = 10.0
    cycle: float = 10.0
    adversarial: float = 1.0
    age: float = 1.0
    perceptual: float = 0.1
    target_age: float = 0.0
    change: float = 0.0
    r1: float = 1.0
    wrong_age: float = 0.0


def age_loss(logits: Tensor, ages: Tensor, groups: Tensor, exact: Tensor) -> Tensor:
    """Cross-entropy on the years, softly, plus cross-entropy on the groups.

    A label of y years spreads as a normal distribution with a standard deviation of
    0.5 + 0.06 y: a year is much for a baby and nothing at 60 (label distribution learning).
    Where only the group is known, only the group counts.

    Args:
        logits: N,101.
        ages: (N,) years.
        groups: (N,) age groups.
        exact: (N,) bool, the years are known.
    """
    on_years = -(label_distribution(ages) * logits.float().log_softmax(1)).sum(1)
    on_groups = F.nll_loss(group_log_probabilities(logits), groups, reduction="none")
    return (on_years * exact + on_groups).mean()


def label_distribution(ages: Tensor) -> Tensor:  # (N,) years -> N,101
    """Normal distributions over the years 0-100 around the labels (Gao et al., TIP 2017).

    The standard deviation is 0.5 + 0.06 y: a year is much for a baby and little at 60.
    """
    years = torch.arange(YEARS, device=ages.device, dtype=torch.float32)
    spread = (0.5 + 0.06 * ages)[:, None]
    return (-0.5 * ((years - ages[:, None]) / spread) ** 2).softmax(1)


@dataclass
class Step:
    """One training step's inputs and outputs, shared by the two loss functions.

    Attributes:
        faces: N,3,S,S source faces in [-1, 1].
        mask: N,1,S,S, what of them is picture.
        source_age: (N,) years.
        target_age: (N,) years.
        target_group: (N,).
        wrong_group: (N,), one that is not the target's.
        real: N,3,S,S faces that have the target ages; the discriminator compares with these.
        real_mask: N,1,S,S.
    """

    faces: Tensor
    mask: Tensor
    source_age: Tensor
    target_age: Tensor
    target_group: Tensor
    wrong_group: Tensor
    real: Tensor
    real_mask: Tensor

    @property
    def shared_mask(self) -> Tensor:
        """The head, where it is picture in both: padding cannot tell real from aged."""
        return self.mask * self.real_mask * head_mask(self.mask.shape[-1], self.mask.device)


class Sight(NamedTuple):
    """What the discriminator has seen of a batch, detached, and the age groups to judge it at."""

    real: Seen
    aged: Seen
    group: Tensor  # (N,), the target's
    wrong_group: Tensor  # (N,), another


def discriminator_loss(
    discriminator: AnyDiscriminator, sight: Sight, weights: LossWeights, with_r1: float = 0.0
) -> tuple[Tensor, Terms]:
    """Non-saturating GAN loss of the discriminator at the target's age group.

    Args:
        with_r1: factor on the R1 penalty in this step (the interval of the lazy penalty), or 0.
    """
    real, aged, group, wrong_group = sight
    if with_r1:  # second derivatives in full precision
        real, aged = [r.float().requires_grad_() for r in real], [a.float() for a in aged]
    on_real = discriminator(real)
    terms: Terms = {
        "real": _softplus(-_at(group, on_real)),
        "fake": _softplus(_at(group, discriminator(aged))),
    }
    total = terms["real"] + terms["fake"]
    if weights.wrong_age:
        terms["wrong_age"] = _softplus(_at(wrong_group, on_real))
        total = total + weights.wrong_age * terms["wrong_age"]
    if with_r1:
        gradients = torch.autograd.grad(_at(group, on_real).sum(), real, create_graph=True)
        squares = [gradient.float().square().flatten(1).sum(1).mean() for gradient in gradients]
        terms["r1"] = torch.stack(squares).sum()
        total = total + 0.5 * weights.r1 * with_r1 * terms["r1"]
    return total, terms


def _at(group: Tensor, outputs: list[Tensor]) -> Tensor:  # (N,) and L of N,10 -> L,N
    """What the discriminator says to each face being real and of that group."""
    return torch.stack(outputs).float()[:, torch.arange(len(group)), group]


def _softplus(outputs: Tensor) -> Tensor:
    return F.softplus(outputs).mean()


def generate(
    model: FaceAgeModel, step: Step, share: float = 1.0
) -> tuple[Decomposed, Tensor, Tensor, Tensor]:
    """Age the faces, and reconstruct the first `share` of them, in one pass of the decoder.

    One pass, so that the batch norms conditioned on age see targets and own ages mixed.

    Returns:
        The encoded faces; aged N,3,S,S; reconstruction M,3,S,S; and the mean size of the change.
    """
    count = len(step.faces)
    part = max(1, round(share * count))
    encoded = model.encode(step.faces)
    index = torch.cat([torch.arange(count), torch.arange(part)]).to(step.faces.device)
    target = torch.cat([step.target_age, step.source_age[:part]])
    source = None if model.config.decomposition else step.source_age[index]
    change = model.decode(encoded.select(index), target, source)
    faces = apply_change(step.faces[index], change)
    flow = change.flow.float()
    bend = flow.diff(dim=2).abs().mean() + flow.diff(dim=3).abs().mean()
    size = change.residual.float().abs().mean() + flow.abs().mean() + bend
    return encoded, faces[:count], faces[count:], size


def generator_loss(
    model: FaceAgeModel,
    averaged: FaceAgeModel,
    discriminator: AnyDiscriminator,
    step: Step,
    weights: LossWeights,
    view: Callable[[Tensor], Tensor],
    share: float = 1.0,
    perceptual: "PerceptualLoss | None" = None,
) -> tuple[Tensor, Terms, Seen]:
    """The generator's losses, except for the age of the input (`age_loss`).

    Args:
        averaged: the averaged model; its classifier reads the aged faces.
        view: what the averaged classifier is shown of aged faces: inner faces.
        share: of the batch, how much is reconstructed, and how much makes the cycle.
        perceptual: needed where its weight is not 0.

    Returns:
        The total, its named terms, and what the discriminator saw of the aged faces, detached.
    """
    _, aged, reconstruction, size = generate(model, step, share)
    part = len(reconstruction)
    seen = discriminator.see(aged * step.shared_mask)
    terms: Terms = {
        "reconstruction": masked_l1(reconstruction, step.faces[:part], step.mask[:part]),
        "adversarial": _softplus(-_at(step.target_group, discriminator(seen))),
    }
    if weights.cycle:
        back = slice(len(aged) - part, None)  # the others than those reconstructed
        encoded = model.encode(aged[back])
        source = None if model.config.decomposition else step.target_age[back]
        change = model.decode(encoded, step.source_age[back], source)
        cycled = apply_change(aged[back], change)
        terms["cycle"] = masked_l1(cycled, step.faces[back], step.mask[back])
    if weights.perceptual and perceptual is not None:
        terms["perceptual"] = perceptual(reconstruction, step.faces[:part])
    if weights.target_age:
        exact = torch.ones_like(step.target_group, dtype=torch.bool)
        logits = averaged.classifier(averaged.encode(view(aged)).age_features)
        terms["target_age"] = age_loss(logits, step.target_age, step.target_group, exact)
    if weights.change:
        terms["change"] = size
    total = sum(getattr(weights, name) * term for name, term in terms.items())
    return total, terms, [part.detach() for part in seen]


def masked_l1(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:  # N,3,S,S twice, N,1,S,S -> scalar
    """Mean absolute difference where the mask is 1."""
    return ((a - b).abs() * mask).sum() / (3 * mask.sum()).clamp(min=1)


class PerceptualLoss(nn.Module):
    """L1 between VGG19 features of two faces (Johnson et al., ECCV 2016)."""

    TAPS = (3, 8, 13, 22)  # relu1_2, relu2_2, relu3_2, relu4_2

    def __init__(self, features: VggFeatures) -> None:
        super().__init__()
        self.features = features

    def forward(self, a: Tensor, b: Tensor) -> Tensor:  # N,3,S,S in [-1, 1] twice -> scalar
        found = self.features(torch.cat([a, b]), self.TAPS)
        return torch.stack([F.l1_loss(*x.float().chunk(2)) for x in found]).mean()
