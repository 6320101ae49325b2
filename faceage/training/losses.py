"""The losses of generator and discriminator; both return (total, named terms).

Kim & Park, JBE 28(2), 2023, has five losses: reconstruction, cycle, adversarial, age and
perceptual. The others are extensions, whose weight is 0 in the recipe `paper`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import YEARS
from faceage.data.augmentation import head_mask
from faceage.models.colours import lip_excess
from faceage.models.decoders import displace
from faceage.models.discriminators import AnyDiscriminator, Features
from faceage.models.generator import FaceAgeModel, apply_change, group_log_probabilities
from faceage.models.identity import (
    GENDER_AGE,
    IdentityEmbedder,
    predict_gender,
    remove_age_part,
)
from faceage.models.vgg import VggFeatures
from faceage.models.windows import inner_mask, skin_window

Terms = dict[str, Tensor]

# Scales of the L1 of pairs: px that are averaged, and weights.
SCALES = (1, 4, 8)
SCALE_WEIGHTS = (0.2, 0.4, 0.4)

# Changes of the skin's colour that cost nothing, in [-1, 1]: 5 levels of 255.
SKIN_TOLERANCE = 0.04


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses. The first five losses are the paper's.

    Attributes:
        reconstruction: L1 between the face and its result at its own age.
        cycle: L1 between the face and its result after ageing to another age and back.
        adversarial: non-saturating GAN loss at the target's age group.
        age: cross-entropy of the source face's age.
        perceptual: distance of VGG19 features between the face and its reconstruction (on the
            cycled face it made results worse).
        target_age: extension; cross-entropy between the target age and the age that the EMA
            classifier predicts for the aged face.
        change: extension, change regularisation; mean absolute residual, displacement, and spatial
            differences of the displacement.
        r1: gradient penalty of the discriminator on the features of real faces (0.5 * r1 *
            |gradient|^2).
        paired: extension; L1 between the aged face and the same person at the target age, over
            several scales (`multiscale_l1`), on pairs.
        paired_features: extension; L1 between the discriminator's fixed features of these faces.
        paired_texture: extension; L1 between the local strength of these features (`texture_l1`);
            in the training of a fine level only.
        wrong_age: extension; the discriminator also learns to reject real faces at a wrong group.
        identity: extension; 1 minus the cosine of the identity embeddings of the face and the aged
            inner face, without their part of age; not on pairs, whose targets show the person.
        gender: extension; by how much the gender that these embeddings show moves towards the other
            one, between faces of 12 and older; not on pairs.
        skin_tone: extension; by how much the colours of cheeks and nose change (`skin_change`), not
            on pairs, and by how much the lips of children are too red (`lip_redness`).
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
    paired: float = 0.0
    paired_features: float = 0.0
    paired_texture: float = 0.0
    identity: float = 0.0
    gender: float = 0.0
    skin_tone: float = 0.0


def age_loss(logits: Tensor, ages: Tensor, groups: Tensor, exact: Tensor) -> Tensor:
    """Cross-entropy with soft labels over the years, plus cross-entropy over the groups.

    Label distribution learning: the label of y years is a normal distribution with a standard
    deviation of 0.5 + 0.06 y years, as faces change faster at a low age. Where only the group is
    known, only the second term counts.

    Args:
        logits: N,101.
        ages: (N,) years.
        groups: (N,) age groups.
        exact: (N,) bool, the years are known.
    """
    return age_losses(logits, ages, groups, exact).mean()


def age_losses(
    logits: Tensor, ages: Tensor, groups: Tensor, exact: Tensor
) -> Tensor:  # N,101 -> (N,)
    """`age_loss` of each face."""
    on_years = -(label_distribution(ages) * logits.float().log_softmax(1)).sum(1)
    on_groups = F.nll_loss(group_log_probabilities(logits), groups, reduction="none")
    return on_years * exact + on_groups


def label_distribution(ages: Tensor) -> Tensor:  # (N,) years -> N,101
    """Normal distributions over the years 0-100 around the labels (Gao et al., TIP 2017).

    The standard deviation is 0.5 + 0.06 y: a year is much for a baby and little at 60.
    """
    years = torch.arange(YEARS, device=ages.device, dtype=torch.float32)
    spread = (0.5 + 0.06 * ages)[:, None]
    return (-0.5 * ((years - ages[:, None]) / spread) ** 2).softmax(1)


@dataclass
class SynthesisBatch:
    """The inputs of one synthesis step.

    Attributes:
        faces: N,3,S,S source faces in [-1, 1].
        mask: N,1,S,S; 1 on the picture, 0 on padding.
        source_age: (N,) years.
        target_age: (N,) years.
        target_group: (N,) age groups.
        wrong_group: (N,) age groups other than the target's.
        real: N,3,S,S real faces of the target ages, for the discriminator.
        real_mask: N,1,S,S.
        paired: (N,) bool; `real` is the source person, in the same picture but for the age, with
            the skin colour of the source.
        seed: of the discriminator's augmentation, the same for real and aged faces.
    """

    faces: Tensor
    mask: Tensor
    source_age: Tensor
    target_age: Tensor
    target_group: Tensor
    wrong_group: Tensor
    real: Tensor
    real_mask: Tensor
    paired: Tensor
    seed: int

    @property
    def shared_mask(self) -> Tensor:
        """N,1,S,S: 1 on the head where neither face has padding; of pairs, on the whole picture.

        With the same mask on both, padding does not distinguish real from aged faces.
        """
        head = head_mask(self.mask.shape[-1], self.mask.device)
        return self.mask * self.real_mask * torch.maximum(head, self.paired[:, None, None, None])

    def extract_features(self, discriminator: AnyDiscriminator, faces: Tensor) -> Features:
        """The discriminator's features; with the same augmentation in every call."""
        torch.manual_seed(self.seed)
        return discriminator.extract_features(faces * self.shared_mask)


class DiscriminatorBatch(NamedTuple):
    """The discriminator's features of a batch, detached, and its age groups."""

    real: Features
    aged: Features
    group: Tensor  # (N,) the target's
    wrong_group: Tensor  # (N,) another


def discriminator_loss(
    discriminator: AnyDiscriminator,
    batch: DiscriminatorBatch,
    weights: LossWeights,
    r1_factor: float = 0.0,
) -> tuple[Tensor, Terms]:
    """Non-saturating GAN loss of the discriminator at the target's age group.

    Args:
        r1_factor: factor on the R1 penalty in this step (the interval of the lazy penalty), or 0.
    """
    real, aged, group, wrong_group = batch
    if r1_factor:  # second derivatives in full precision
        real, aged = [r.float().requires_grad_() for r in real], [a.float() for a in aged]
    on_real = discriminator(real)
    terms: Terms = {
        "real": _softplus(-_select_group(on_real, group)),
        "fake": _softplus(_select_group(discriminator(aged), group)),
    }
    total = terms["real"] + terms["fake"]
    if weights.wrong_age:
        terms["wrong_age"] = _softplus(_select_group(on_real, wrong_group))
        total = total + weights.wrong_age * terms["wrong_age"]
    if r1_factor:
        outputs = _select_group(on_real, group).sum()
        gradients = torch.autograd.grad(outputs, real, create_graph=True)
        squares = [gradient.float().square().flatten(1).sum(1).mean() for gradient in gradients]
        terms["r1"] = torch.stack(squares).sum()
        total = total + 0.5 * weights.r1 * r1_factor * terms["r1"]
    return total, terms


def adversarial_loss(discriminator: AnyDiscriminator, features: Features, group: Tensor) -> Tensor:
    """Non-saturating GAN loss of the generator.

    Args:
        features: the discriminator's, of generated faces.
        group: (N,) their age groups.
    """
    return _softplus(-_select_group(discriminator(features), group))


def _select_group(outputs: list[Tensor], group: Tensor) -> Tensor:  # L of N,10 and (N,) -> L,N
    """The discriminator's outputs for each face at its group."""
    return torch.stack(outputs).float()[:, torch.arange(len(group)), group]


def _softplus(outputs: Tensor) -> Tensor:
    return F.softplus(outputs).mean()


def generate(
    model: FaceAgeModel, batch: SynthesisBatch, recon_fraction: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Aged faces and reconstructions from one pass through the decoder.

    One pass, so that conditional batch norm's statistics are over both target and source ages.

    Args:
        recon_fraction: the fraction M / N of the faces that is reconstructed, the first ones.

    Returns:
        Aged N,3,S,S; reconstruction M,3,S,S; the mean size of the change.
    """
    count = len(batch.faces)
    part = max(1, round(recon_fraction * count))
    encoded = model.encode(batch.faces)
    index = torch.cat([torch.arange(count), torch.arange(part)]).to(batch.faces.device)
    target = torch.cat([batch.target_age, batch.source_age[:part]])
    source = None if model.config.decomposition else batch.source_age[index]
    change = model.decode(encoded.select(index), target, source)
    faces = apply_change(batch.faces[index], change)
    flow = change.flow.float()
    size = change.residual.float().abs().mean() + flow.abs().mean() + _variation(flow)
    return faces[:count], faces[count:], size


def generator_loss(
    model: FaceAgeModel,
    ema: FaceAgeModel,
    discriminator: AnyDiscriminator,
    batch: SynthesisBatch,
    real: Features,
    weights: LossWeights,
    age_views: Callable[[Tensor], Tensor],
    recon_fraction: float = 1.0,
    perceptual: "PerceptualLoss | None" = None,
    embedding: "EmbeddingLosses | None" = None,
) -> tuple[Tensor, Terms, Features]:
    """The generator's losses, except for the age of the source face (`age_loss`).

    Args:
        ema: the model of averaged weights; its classifier predicts the age of aged faces.
        real: the discriminator's features of `batch.real`.
        age_views: gives that classifier's input: augmented inner faces.
        recon_fraction: the fraction of the batch used for the reconstruction and for the cycle.
        perceptual: required if its weight is not 0.
        embedding: required if the weight of identity or gender is not 0.

    Returns:
        The total, its named terms, and the discriminator's features of the aged faces, detached.
    """
    aged, reconstruction, size = generate(model, batch, recon_fraction)
    part = len(reconstruction)
    features = batch.extract_features(discriminator, aged)
    terms: Terms = {
        "reconstruction": masked_l1(reconstruction, batch.faces[:part], batch.mask[:part]),
        "adversarial": adversarial_loss(discriminator, features, batch.target_group),
    }
    if weights.cycle:
        back = slice(len(aged) - part, None)  # as few reconstructed faces as possible
        encoded = model.encode(aged[back])
        source = None if model.config.decomposition else batch.target_age[back]
        change = model.decode(encoded, batch.source_age[back], source)
        cycled = apply_change(aged[back], change)
        terms["cycle"] = masked_l1(cycled, batch.faces[back], batch.mask[back])
    if weights.perceptual and perceptual is not None:
        terms["perceptual"] = perceptual(reconstruction, batch.faces[:part])
    # What is painted beyond the photo's border is not in the result, and must not pass for an age.
    shown = batch.faces + batch.mask * (aged - batch.faces)
    guided = ~batch.paired  # pairs have a target picture
    if embedding is not None:
        terms |= embedding(
            batch.faces[guided],
            batch.source_age[guided],
            shown[guided],
            batch.target_age[guided],
        )
    if weights.skin_tone:
        redness = lip_redness(shown, batch.target_age)
        terms["skin_tone"] = skin_change(shown[guided], batch.faces[guided]) + redness
    if weights.target_age:  # of pairs, too: with L1 alone, their changes stay too small
        groups = batch.target_group
        exact = torch.ones_like(groups, dtype=torch.bool)
        logits = ema.classify(age_views(shown))
        terms["target_age"] = age_loss(logits, batch.target_age, groups, exact)
    if weights.change:
        terms["change"] = size
    if weights.paired and batch.paired.any():
        terms["paired"] = multiscale_l1(aged[batch.paired], batch.real[batch.paired])
    if weights.paired_features and batch.paired.any():
        rows = discriminator.feature_rows(len(aged))
        terms["paired_features"] = feature_l1(features, real, [batch.paired[r] for r in rows])
    weighted = (getattr(weights, name) * term for name, term in terms.items())
    total = sum(weighted, start=torch.zeros((), device=aged.device))
    return total, terms, [feature.detach() for feature in features]


def displacement_loss(model: FaceAgeModel, batch: SynthesisBatch) -> tuple[Tensor, Terms]:
    """Multi-scale L1 of pairs whose sources are displaced only, without the residual."""
    change = model.decode(model.encode(batch.faces), batch.target_age)
    moved = displace(batch.faces, change.flow)
    variation = _variation(change.flow)
    terms = {"moved": multiscale_l1(moved, batch.real), "variation": variation}
    return terms["moved"] + 2 * variation, terms


def _variation(flow: Tensor) -> Tensor:  # N,2,h,w -> scalar
    """Mean absolute difference of neighbouring displacements."""
    return flow.diff(dim=2).abs().mean() + flow.diff(dim=3).abs().mean()


def multiscale_l1(a: Tensor, b: Tensor) -> Tensor:  # N,3,S,S twice -> scalar
    """Mean L1 of pictures and of their means over 4x4 and 8x8 px.

    Low frequencies count most: of the fine structure of hair and skin, one of many possible ones is
    in the target, and L1 would blur it.
    """
    difference = a - b
    terms = [
        weight * F.avg_pool2d(difference, pixels).abs().mean()
        for pixels, weight in zip(SCALES, SCALE_WEIGHTS, strict=True)
    ]
    return torch.stack(terms).sum()


def feature_l1(a: Features, b: Features, rows: list[Tensor]) -> Tensor:
    """L1 of features relative to their mean size, averaged over layers.

    Args:
        rows: of each layer, (M,) bool, the faces that count.
    """
    terms = []
    for x, y, chosen in zip(a, b, rows, strict=True):
        if chosen.any():
            x, y = x[chosen].float(), y[chosen].float()
            terms.append((x - y).abs().mean() / y.abs().mean().clamp(min=1e-6))
    return torch.stack(terms).mean()


def texture_l1(a: Features, b: Features, rows: list[Tensor]) -> Tensor:
    """L1 of the standard deviations of features in 4x4 cells of a picture, as `feature_l1`.

    Within a cell, hairs and pores may be anywhere, but have to be as distinct.
    """
    return feature_l1([_cell_deviations(x) for x in a], [_cell_deviations(x) for x in b], rows)


def _cell_deviations(features: Tensor) -> Tensor:  # N,C,h,w -> N,C,4,4
    count, channels, height, width = features.shape
    cells = features.float().reshape(count, channels, 4, height // 4, 4, width // 4)
    return cells.var((3, 5)).clamp(min=1e-6).sqrt()


def skin_change(a: Tensor, b: Tensor) -> Tensor:  # N,3,S,S twice -> scalar
    """By how much colours on cheeks and nose differ by more than `SKIN_TOLERANCE`, in FFHQ crops.

    Of means over blocks: a mean over all would allow opposite changes, such as lighter cheeks and a
    redder nose, and single pixels would forbid wrinkles.
    """
    side = a.shape[-1]
    rows, columns = skin_window(side)
    blocks = F.avg_pool2d((a - b)[..., rows, columns], max(1, side // 32))
    return F.relu(blocks.abs() - SKIN_TOLERANCE).mean()


def match_skin(faces: Tensor, references: Tensor) -> Tensor:  # N,3,S,S twice -> N,3,S,S
    """Faces with the skin colour of the references, in FFHQ crops.

    Each channel of the head is shifted by the difference of the means on cheeks and nose. Rendered
    people are lighter as children and darker in old age; photos of one person should not be.
    """
    side = faces.shape[-1]
    rows, columns = skin_window(side)
    shift = (references - faces)[..., rows, columns].mean((2, 3), keepdim=True)
    width = side // 8 // 2 * 2 + 1  # odd
    mask = head_mask(side, faces.device)
    for _ in range(2):  # soft edges
        mask = F.avg_pool2d(mask, width, 1, width // 2)
    return (faces + mask * shift).clamp(-1, 1)


def lip_redness(faces: Tensor, ages: Tensor) -> Tensor:  # N,3,S,S in [-1, 1], (N,) -> scalar
    """By how much the lips of children are too red, as in `limit_lips`."""
    return lip_excess(faces, ages).abs().sum(1).mean()


def masked_l1(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:  # N,3,S,S twice, N,1,S,S -> scalar
    """Mean absolute difference where the mask is 1; 0 if the mask is empty."""
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


class EmbeddingLosses(nn.Module):
    """Losses of identity and gender, on identity embeddings of the inner face.

    Args:
        embedder: the identity embedder.
        age_part: the mean embedding by age, from `fit_age_part`.
        gender: the estimate of gender, from `fit_gender`; None computes no loss of gender.
    """

    age_part: Tensor
    gender: Tensor | None

    def __init__(
        self, embedder: IdentityEmbedder, age_part: Tensor, gender: Tensor | None = None
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.register_buffer("age_part", age_part)
        self.register_buffer("gender", gender)

    def forward(
        self, faces: Tensor, source_age: Tensor, aged: Tensor, target_age: Tensor
    ) -> Terms:  # N,3,S,S in [-1, 1] and (N,) years, twice -> scalars
        """`identity`: 1 minus the cosine similarity of the embeddings without their part of age.

        `gender`: by how much the aged face's gender differs from the face's towards the other one.
        """
        with torch.no_grad():
            wanted = self.embedder(faces)
        # With the source's hair: its change with age does not count.
        inner = inner_mask(faces.shape[-1], faces.device)
        found = self.embedder(inner * aged + (1 - inner) * faces)
        a = remove_age_part(wanted, source_age, self.age_part)
        b = remove_age_part(found, target_age, self.age_part)
        terms = {"identity": 1 - (a * b).sum(1).mean()}
        if self.gender is not None:
            before, after = predict_gender(wanted, self.gender), predict_gender(found, self.gender)
            # A face that shows its gender more than most may show it as most do.
            moved = before.sign() * (before.clamp(-1, 1) - after)
            compared = torch.minimum(source_age, target_age) >= GENDER_AGE
            terms["gender"] = (moved.relu() * compared).mean()
        return terms
