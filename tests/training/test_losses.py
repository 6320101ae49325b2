"""The losses, compared with values computed by hand."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from faceage.ages import GROUPS, YEARS
from faceage.data.augmentation import diff_augment
from faceage.models.architecture import ModelConfig
from faceage.models.colours import limit_lips
from faceage.models.discriminators import Discriminator
from faceage.models.generator import FaceAgeModel
from faceage.models.vgg import VggFeatures
from faceage.models.windows import inner_face, skin_window
from faceage.training.losses import (
    SKIN_TOLERANCE,
    DiscriminatorBatch,
    EmbeddingLosses,
    LossWeights,
    PerceptualLoss,
    SynthesisBatch,
    age_loss,
    discriminator_loss,
    displacement_loss,
    feature_l1,
    generate,
    generator_loss,
    lip_redness,
    masked_l1,
    match_skin,
    multiscale_l1,
    skin_change,
    texture_l1,
)


def _batch(count: int = 4, side: int = 32) -> SynthesisBatch:
    generator = torch.Generator().manual_seed(0)
    faces = torch.rand(count, 3, side, side, generator=generator) - 0.5
    return SynthesisBatch(
        faces=faces,
        mask=torch.ones(count, 1, side, side),
        source_age=torch.linspace(5, 65, count),
        target_age=torch.linspace(65, 5, count),
        target_group=torch.tensor([8, 7, 5, 1][:count]),
        wrong_group=torch.tensor([1, 5, 7, 8][:count]),
        real=faces.flip(0),
        real_mask=torch.ones(count, 1, side, side),
        paired=torch.zeros(count, dtype=torch.bool),
        seed=7,
    )


@pytest.fixture(scope="module")
def model() -> FaceAgeModel:
    """With a change that does not vanish."""
    torch.manual_seed(0)
    model = FaceAgeModel(TINY)
    for head in (model.decoder.flow, model.decoder.residual):
        nn.init.normal_(head.weight, std=0.05)
    return model


@pytest.fixture(scope="module")
def discriminator() -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(TINY)


# --- age ------------------------------------------------------------------------------------------


def _age_loss(logits: Tensor, age: float, group: int, exact: bool) -> float:
    return age_loss(
        logits[None], torch.tensor([age]), torch.tensor([group]), torch.tensor([exact])
    ).item()


def test_age_loss_of_uniform_logits() -> None:
    """log 101 for the years plus log(101 / years in the group) for the group."""
    even = torch.zeros(YEARS)
    assert _age_loss(even, 25.0, 5, exact=True) == pytest.approx(math.log(101) + math.log(10.1))
    assert _age_loss(even, 85.0, 9, exact=True) == pytest.approx(math.log(101) + math.log(101 / 31))


def test_age_loss_where_only_the_group_is_known() -> None:
    even = torch.zeros(YEARS)
    assert _age_loss(even, 25.0, 5, exact=False) == pytest.approx(math.log(10.1))
    certain = torch.full((YEARS,), -50.0)
    certain[21] = 50.0  # anywhere in the group is right
    assert _age_loss(certain, 24.5, 5, exact=False) == pytest.approx(0, abs=1e-5)
    assert _age_loss(certain, 24.5, 5, exact=True) > 10


def test_age_loss_has_soft_labels() -> None:
    """At 0 years the deviation is 0.5 years: year 1 has exp(-2) times the weight of year 0."""
    logits = torch.full((YEARS,), -1e4)
    logits[:2] = 0.0  # half and half on the years 0 and 1, all in group 0
    weights = [math.exp(-0.5 * (k / 0.5) ** 2) for k in range(4)]
    beyond = sum(weights[2:]) / sum(weights)  # the label's weight of the years 2 and 3
    expected = (1 - beyond) * math.log(2) + beyond * (1e4 + math.log(2))
    assert _age_loss(logits, 0.0, 0, exact=True) == pytest.approx(expected, rel=1e-4)


def test_age_loss_is_least_at_the_label() -> None:
    years = torch.arange(YEARS, dtype=torch.float32)

    def centred(age: float) -> Tensor:
        return -0.5 * ((years - age) / (0.5 + 0.06 * 44)) ** 2

    losses = [_age_loss(centred(a), 44.0, 7, exact=True) for a in (34, 41, 44, 47, 54)]
    assert losses.index(min(losses)) == 2


def test_age_loss_is_the_mean_over_the_batch() -> None:
    ages, groups = torch.tensor([25.0, 24.5]), torch.tensor([5, 5])
    loss = age_loss(torch.zeros(2, YEARS), ages, groups, torch.tensor([True, False]))
    assert loss.item() == pytest.approx(math.log(101) / 2 + math.log(10.1))


def test_age_loss_of_labels_beyond_the_last_year() -> None:
    assert math.isfinite(_age_loss(torch.zeros(YEARS), 116.0, 9, exact=True))


# --- L1 -------------------------------------------------------------------------------------------


def test_masked_l1() -> None:
    a, b = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    a[0, :, 0, 0] = torch.tensor([0.3, 0.6, 0.9])
    a[0, :, 1, 1] = 100.0  # not picture
    mask = torch.tensor([[[[1.0, 1], [0, 0]]]])
    assert masked_l1(a, b, mask).item() == pytest.approx(1.8 / 6)
    assert masked_l1(a, b, torch.zeros_like(mask)).item() == 0


# --- discriminator --------------------------------------------------------------------------------


def _features(batch: SynthesisBatch, aged: Tensor | None = None) -> DiscriminatorBatch:
    """For discriminators whose features are the faces."""
    return DiscriminatorBatch(
        [batch.real],
        [batch.faces if aged is None else aged],
        batch.target_group,
        batch.wrong_group,
    )


class _Linear(nn.Module):
    """A discriminator whose gradient is known: the sum of w * x, times the group."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def extract_features(self, faces: Tensor) -> list[Tensor]:
        return [faces]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [self.w * features[0].sum((1, 2, 3))[:, None] * torch.arange(GROUPS)]


def test_discriminator_loss_of_constant_outputs() -> None:
    batch = _batch()
    loss, terms = discriminator_loss(_Linear(0.0), _features(batch), LossWeights())
    assert set(terms) == {"real", "fake"}
    assert terms["real"].item() == terms["fake"].item() == pytest.approx(math.log(2))
    assert loss.item() == pytest.approx(2 * math.log(2))


def test_discriminator_loss_by_hand() -> None:
    batch = _batch(1)
    batch.target_group = torch.tensor([1])
    batch.real, aged = torch.full((1, 3, 32, 32), 0.5), torch.full((1, 3, 32, 32), -0.25)
    _, terms = discriminator_loss(_Linear(1 / 768), _features(batch, aged), LossWeights())
    # 3072 values: the outputs are 2 and -1.
    assert terms["real"].item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert terms["fake"].item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_real_faces_of_a_wrong_age_are_rejected() -> None:
    batch = _batch(1)
    batch.target_group, batch.wrong_group = torch.tensor([1]), torch.tensor([2])
    batch.real = torch.full((1, 3, 32, 32), 0.5)
    weights, usual = LossWeights(wrong_age=0.5), LossWeights()
    net, features = _Linear(1 / 768), _features(batch, torch.zeros(1, 3, 32, 32))
    loss, terms = discriminator_loss(net, features, weights)
    assert terms["wrong_age"].item() == pytest.approx(math.log(1 + math.exp(4)))  # its output is 4
    without, _ = discriminator_loss(net, features, usual)
    assert (loss - without).item() == pytest.approx(0.5 * terms["wrong_age"].item())


def test_the_loss_is_the_mean_over_all_outputs() -> None:
    class _Two(nn.Module):
        def extract_features(self, faces: Tensor) -> list[Tensor]:
            return [faces]

        def forward(self, features: list[Tensor]) -> list[Tensor]:
            return [
                torch.zeros(len(features[0]), GROUPS),
                torch.full((len(features[0]), GROUPS), 3.0),
            ]

    batch = _batch()
    _, terms = discriminator_loss(_Two(), _features(batch), LossWeights())
    expected = (math.log(2) + math.log(1 + math.exp(3))) / 2
    assert terms["fake"].item() == pytest.approx(expected)


def test_r1_is_the_squared_gradient_on_real_faces() -> None:
    batch = _batch(2)
    batch.target_group = torch.tensor([1, 3])
    net, weights = _Linear(0.1), LossWeights(r1=2.0)
    loss, terms = discriminator_loss(net, _features(batch), weights, r1_factor=16)
    # Each of 3072 values has the gradient 0.1 * group.
    assert terms["r1"].item() == pytest.approx(3072 * (0.1**2 + 0.3**2) / 2, rel=1e-5)
    without = terms["real"] + terms["fake"]
    assert (loss - without).item() == pytest.approx(0.5 * 2 * 16 * terms["r1"].item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss - without, net.w)
    assert gradient.item() == pytest.approx(
        16 * 3072 * (2 * 0.1 + 2 * 0.9 * 0.1 * 10) / 2, rel=1e-3
    )


def test_r1_has_gradients_for_the_discriminator(discriminator: Discriminator) -> None:
    batch = _batch()
    discriminator.zero_grad()
    features = [discriminator.extract_features(faces) for faces in (batch.real, batch.faces)]
    inputs = DiscriminatorBatch(*features, batch.target_group, batch.wrong_group)
    _, terms = discriminator_loss(discriminator, inputs, LossWeights(), r1_factor=1)
    terms["r1"].backward()
    assert discriminator.body[0].weight.grad.abs().sum() > 0


def test_padding_of_either_face_is_masked_in_both(
    model: FaceAgeModel, discriminator: Discriminator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _batch()
    batch.mask[..., :8], batch.real_mask[..., 24:] = 0, 0
    extract, inputs = discriminator.extract_features, []

    def record(faces: Tensor) -> list[Tensor]:
        inputs.append(faces)
        return extract(faces)

    monkeypatch.setattr(discriminator, "extract_features", record)
    real = batch.extract_features(discriminator, batch.real)
    generator_loss(model, model, discriminator, batch, real, LossWeights(), _view)
    assert len(inputs) == 2
    for faces in inputs:
        assert not faces[..., :8].any()
        assert not faces[..., 24:].any()
        assert faces[..., 8:24].any()


# --- generator ------------------------------------------------------------------------------------


def test_generate_reconstructs_a_fraction(model: FaceAgeModel) -> None:
    batch = _batch()
    aged, reconstruction, size = generate(model.eval(), batch, recon_fraction=0.5)
    assert aged.shape == (4, 3, 32, 32)
    assert reconstruction.shape == (2, 3, 32, 32)
    assert size.ndim == 0
    assert size > 0
    own = SynthesisBatch(**{**batch.__dict__, "target_age": batch.source_age})
    assert torch.allclose(generate(model.eval(), own)[0][:2], reconstruction, atol=1e-4)
    assert len(generate(model, batch, recon_fraction=0.01)[1]) == 1  # at least one


def _terms(model: FaceAgeModel, discriminator: Discriminator, **options: object):
    batch = options.pop("batch", _batch())
    real = batch.extract_features(discriminator, batch.real)
    options.setdefault("age_views", _view)
    return generator_loss(model, model, discriminator, batch, real, **options)


def _view(faces: Tensor) -> Tensor:
    return inner_face(faces, TINY.classifier_size)


def test_the_default_weights_give_the_papers_terms(
    model: FaceAgeModel, discriminator: Discriminator
) -> None:
    perceptual = _SquaredMean()
    weights = LossWeights()
    total, terms, aged = _terms(model, discriminator, weights=weights, perceptual=perceptual)
    assert set(terms) == {"reconstruction", "adversarial", "cycle", "perceptual"}
    expected = sum(getattr(weights, name) * term.item() for name, term in terms.items())
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert not any(part.requires_grad for part in aged)
    assert perceptual.calls == 1  # on the reconstruction only


class _SquaredMean(nn.Module):
    calls = 0

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        self.calls += 1
        return (a - b).square().mean()


def test_all_terms(model: FaceAgeModel, discriminator: Discriminator) -> None:
    weights = LossWeights(2, 3, 0.7, 1, 0.0, target_age=0.5, change=1.5)
    total, terms, _ = _terms(model, discriminator, weights=weights, recon_fraction=0.5)
    assert set(terms) == {"reconstruction", "adversarial", "cycle", "target_age", "change"}
    expected = sum(getattr(weights, name) * term.item() for name, term in terms.items())
    assert total.item() == pytest.approx(expected, rel=1e-5)
    model.zero_grad()
    total.backward()
    for part in (model.encoder.stem[0], model.decoder.flow, model.age_feature_cnn.embedding.table):
        assert part.weight.grad.abs().sum() > 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_without_a_change_the_reconstruction_is_exact(discriminator: Discriminator) -> None:
    torch.manual_seed(0)
    _, terms, aged = _terms(FaceAgeModel(TINY), discriminator, weights=LossWeights(change=1))
    for name in ("reconstruction", "cycle", "change"):
        assert terms[name].item() == pytest.approx(0, abs=1e-5)
    batch = _batch()
    (expected,) = discriminator.extract_features(batch.faces * batch.shared_mask)
    assert torch.allclose(aged[0], expected, atol=1e-5)


def test_what_is_painted_beyond_the_photo_does_not_count_as_age(
    model: FaceAgeModel, discriminator: Discriminator
) -> None:
    batch = _batch()
    batch.mask[..., :10, :] = 0
    seen: list[Tensor] = []

    def age_views(faces: Tensor) -> Tensor:
        seen.append(faces)
        return _view(faces)

    weights = LossWeights(target_age=1, perceptual=0)
    _terms(model, discriminator, batch=batch, weights=weights, age_views=age_views)
    aged = generate(model, batch)[0]
    assert torch.equal(seen[0][..., :10, :], batch.faces[..., :10, :])
    assert torch.allclose(seen[0][..., 10:, :], aged[..., 10:, :], atol=1e-5)
    assert not torch.allclose(aged, batch.faces, atol=1e-2)


def test_the_target_age_loss_has_no_gradients_for_classifiers(
    model: FaceAgeModel, discriminator: Discriminator
) -> None:
    torch.manual_seed(2)
    ema = FaceAgeModel(TINY).eval().requires_grad_(False)
    weights = LossWeights(target_age=1)
    batch = _batch()
    real = batch.extract_features(discriminator, batch.real)
    _, terms, _ = generator_loss(model, ema, discriminator, batch, real, weights, _view)
    model.zero_grad()
    terms["target_age"].backward()
    assert model.decoder.residual.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in ema.parameters())
    assert all(p.grad is None for p in model.classifier.parameters())


def test_losses_of_the_baseline(discriminator: Discriminator) -> None:
    torch.manual_seed(0)
    model = FaceAgeModel(ModelConfig(**{**TINY.__dict__, "decomposition": False}))
    nn.init.normal_(model.decoder.residual.weight, std=0.05)
    _, terms, _ = _terms(model, discriminator, weights=LossWeights(), recon_fraction=0.5)
    assert set(terms) == {"reconstruction", "adversarial", "cycle"}


# --- pairs ----------------------------------------------------------------------------------------


def test_multiscale_l1_by_hand() -> None:
    """Noise counts by the weight of the finest scale, an offset by that of all scales."""
    flat = torch.zeros(1, 3, 16, 16)
    signs = torch.tensor([1.0, -1.0]).repeat(8)
    chequered = 0.5 * (signs[:, None] * signs[None]).expand(1, 3, 16, 16)
    assert multiscale_l1(flat + 0.5, flat).item() == pytest.approx(0.5)
    assert multiscale_l1(flat + chequered, flat).item() == pytest.approx(0.2 * 0.5)


def test_feature_l1_is_relative_and_counts_the_chosen_faces() -> None:
    real = [torch.full((2, 4, 3, 3), 2.0), torch.ones(1, 4, 2, 2)]
    aged = [real[0].clone(), real[1] + 0.25]
    aged[0][0] += 1.0  # of 2: relative 0.5
    aged[0][1] += 100.0  # does not count
    rows = [torch.tensor([True, False]), torch.tensor([True])]
    assert feature_l1(aged, real, rows).item() == pytest.approx((0.5 + 0.25) / 2)


def test_pairs_are_compared_on_the_whole_picture() -> None:
    batch = _batch()
    batch.paired[1] = True
    mask = batch.shared_mask
    assert mask[1].all()
    assert not mask[0, 0, 0, 0]
    assert mask[0, 0, 16, 16]


def test_terms_of_pairs(model: FaceAgeModel, discriminator: Discriminator) -> None:
    weights = LossWeights(target_age=1, paired=2, paired_features=3, perceptual=0)
    batch = _batch()
    _, without, _ = _terms(model, discriminator, weights=weights, batch=batch)
    assert not {"paired", "paired_features"} & set(without)
    batch.paired[:2] = True
    total, terms, _ = _terms(model, discriminator, weights=weights, batch=batch)
    aged = generate(model, batch)[0][:2]
    assert terms["paired"].item() == pytest.approx(
        multiscale_l1(aged, batch.real[:2]).item(), rel=1e-3
    )
    assert terms["paired_features"] > 0
    assert terms["target_age"].item() == pytest.approx(without["target_age"].item(), rel=1e-5)
    expected = sum(getattr(weights, name) * term.item() for name, term in terms.items())
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_real_and_aged_faces_are_augmented_alike() -> None:
    batch = _batch()
    discriminator = Discriminator(TINY, augment=diff_augment)
    first = batch.extract_features(discriminator, batch.real)
    assert torch.equal(first[0], batch.extract_features(discriminator, batch.real)[0])
    batch.seed += 1
    assert not torch.equal(first[0], batch.extract_features(discriminator, batch.real)[0])


def test_displacement_loss_trains_the_displacement_alone(model: FaceAgeModel) -> None:
    model.zero_grad()
    loss, terms = displacement_loss(model, _batch())
    loss.backward()
    assert set(terms) == {"moved", "variation"}
    assert model.decoder.flow.weight.grad.abs().sum() > 0
    assert model.decoder.residual.weight.grad is None


def test_skin_of_pairs_is_matched_on_the_head() -> None:
    torch.manual_seed(0)
    faces = torch.empty(2, 3, 64, 64).uniform_(-0.3, 0.3)
    references = faces + torch.tensor([0.2, 0.1, -0.1])[:, None, None]
    matched = match_skin(faces, references)
    rows, columns = skin_window(64)
    skin = matched[..., rows, columns], references[..., rows, columns]
    torch.testing.assert_close(*skin, atol=0.01, rtol=0)
    torch.testing.assert_close(matched[..., :2, :2], faces[..., :2, :2])  # the background
    torch.testing.assert_close(match_skin(faces, faces), faces)


def test_the_redness_of_lips_is_a_loss_for_children() -> None:
    faces = torch.zeros(2, 3, 64, 64)
    faces[:, 0, 42:50, 26:38] = 0.8
    assert lip_redness(faces[:1], torch.tensor([3.0])) > 0.01
    assert lip_redness(faces[1:], torch.tensor([30.0])) == 0
    limited = limit_lips(faces, torch.tensor([3.0, 3.0]))
    assert lip_redness(limited, torch.tensor([3.0, 3.0])).item() == pytest.approx(0, abs=1e-6)


# --- perceptual -----------------------------------------------------------------------------------


def test_perceptual_loss(vgg: dict[str, Tensor]) -> None:
    loss = PerceptualLoss(VggFeatures(vgg))
    generator = torch.Generator().manual_seed(0)
    a = (torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1).requires_grad_()
    b = torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1
    assert loss(a, a).item() == 0
    near, far = loss(a, a + 0.1 * (b - a)), loss(a, b)
    assert 0 < near < far
    far.backward()
    assert a.grad.abs().sum() > 0


# --- identity, gender and skin tone ---------------------------------------------------------------


def test_texture_counts_strength_and_not_place() -> None:
    torch.manual_seed(0)
    noise = torch.randn(2, 3, 32, 32)
    every = [torch.ones(2, dtype=torch.bool)]
    moved = noise.reshape(2, 3, 4, 8, 4, 8).flip(3, 5).reshape(2, 3, 32, 32)  # within the cells
    assert texture_l1([noise], [moved], every).item() == pytest.approx(0, abs=1e-6)
    assert texture_l1([noise + 5], [noise], every).item() == pytest.approx(0, abs=1e-6)
    assert texture_l1([0.5 * noise], [noise], every).item() == pytest.approx(0.5, abs=1e-3)
    first = [torch.tensor([True, False])]
    halved = noise.clone()
    halved[1] *= 0.5
    assert texture_l1([halved], [noise], first).item() == pytest.approx(0, abs=1e-6)


def test_skin_change_counts_what_exceeds_the_tolerance() -> None:
    a = torch.zeros(2, 3, 12, 12)
    b = a.clone()
    b[0, 0, 6:8, 4:8] = 0.6  # one of three colours, of one of two faces
    expected = (0.6 - SKIN_TOLERANCE) / 6
    assert skin_change(a, b).item() == pytest.approx(expected)
    b[:, :, :6] = 1  # above cheeks and nose
    assert skin_change(a, b).item() == pytest.approx(expected)
    b[0, 0, 6:8, 4:6] = -0.6  # opposite changes do not cancel
    assert skin_change(a, b).item() == pytest.approx(expected)
    assert skin_change(a, a + 0.9 * SKIN_TOLERANCE).item() == 0


def test_skin_change_ignores_single_lines() -> None:
    a = torch.zeros(1, 3, 128, 128)
    b = a.clone()
    b[..., 70, :] = 0.1  # one of four rows of a block
    assert skin_change(a, b).item() == 0


class _MeanColour(nn.Module):
    """In place of an embedder: the mean colour of the inner face, or of the whole crop."""

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self._whole = whole

    def forward(self, crops: Tensor) -> Tensor:
        if not self._whole:
            crops = inner_face(crops, crops.shape[-1] // 2)
        return crops.mean((2, 3))


def test_identity_loss_is_one_minus_the_cosine() -> None:
    loss = EmbeddingLosses(_MeanColour(), torch.zeros(3, 3))
    faces = torch.tensor([[1.0, 0, 0], [0, 1, 0]])[:, :, None, None].expand(2, 3, 8, 8)
    aged = torch.tensor([[2.0, 0, 0], [0, 0, 1]])[:, :, None, None].expand(2, 3, 8, 8)
    years = torch.tensor([30.0, 30])
    assert loss(faces, years, faces, years)["identity"].item() == pytest.approx(0)
    assert loss(faces, years, aged, years)["identity"].item() == pytest.approx(0.5)  # (0 + 1) / 2


def test_identity_loss_is_of_the_inner_face() -> None:
    loss = EmbeddingLosses(_MeanColour(whole=True), torch.zeros(3, 3))
    faces = torch.tensor([[1.0, 0, 0]])[:, :, None, None].expand(1, 3, 64, 64)
    aged = faces.clone()
    aged[..., :16, :] = torch.tensor([0.0, 1, 0])[:, None, None]  # hair
    years = torch.tensor([30.0])
    assert loss(faces, years, aged, years)["identity"].item() == pytest.approx(0, abs=1e-6)
    aged[..., 32:40, 32:40] = torch.tensor([0.0, 1, 0])[:, None, None]
    assert loss(faces, years, aged, years)["identity"].item() > 1e-5


def test_identity_loss_ignores_what_depends_on_age_alone() -> None:
    age_part = torch.tensor([[0.2, 0, 0], [0.5, 0.5, 0], [0, 0, -1]])
    loss = EmbeddingLosses(_MeanColour(), age_part)
    person = torch.tensor([0.3, -0.6, 0.2])

    def face(age: float) -> Tensor:
        powers = torch.tensor([1, age / 50, (age / 50) ** 2])
        return (person + powers @ age_part)[None, :, None, None].expand(1, 3, 8, 8)

    young, old = torch.tensor([5.0]), torch.tensor([70.0])
    assert loss(face(5), young, face(70), old)["identity"].item() == pytest.approx(0, abs=1e-6)
    assert loss(face(5), young, face(70), young)["identity"].item() > 0.1


def test_gender_loss_counts_what_moves_towards_the_other_gender() -> None:
    gender = torch.tensor([1.0, 0, 0, 0])  # the amount of red, 1 for men and -1 for women
    loss = EmbeddingLosses(_MeanColour(), torch.zeros(3, 3), gender)

    def find(before: float, after: float, source: float = 30, target: float = 40) -> float:
        faces = [
            torch.tensor([red, 1.0, 0])[None, :, None, None].expand(1, 3, 8, 8)
            for red in (before, after)
        ]
        years = torch.tensor([source]), torch.tensor([target])
        found: float = loss(faces[0], years[0], faces[1], years[1])["gender"].item()
        return found

    assert find(-0.8, -0.3) == pytest.approx(0.5)
    assert find(-0.8, 0.6) == pytest.approx(1.4)
    assert find(0.8, 0.3) == pytest.approx(0.5)
    assert find(-0.8, -1.5) == find(0.8, 0.9) == 0
    assert find(1.6, 1.1) == 0, "a face may show its gender as most do"
    assert find(-0.8, 0.6, source=11) == find(-0.8, 0.6, target=8) == 0, "not of children"


def test_embedding_and_skin_tone_leave_pairs_out(
    model: FaceAgeModel, discriminator: Discriminator
) -> None:
    embedding = EmbeddingLosses(_MeanColour(), torch.zeros(3, 3), torch.tensor([1.0, -1, 0, 0.1]))
    weights = LossWeights(identity=2, gender=4, skin_tone=3, perceptual=0)
    batch = replace(_batch(), paired=torch.tensor([True, False, True, False]))
    total, terms, _ = _terms(
        model, discriminator, batch=batch, weights=weights, embedding=embedding, recon_fraction=1
    )
    aged = generate(model, batch)[0]
    real = [1, 3]
    years = batch.source_age[real], batch.target_age[real]
    faces = batch.faces[real]
    expected = embedding(faces, years[0], aged[real], years[1])
    for name in ("identity", "gender"):
        assert terms[name].item() == pytest.approx(expected[name].item(), rel=1e-3)
    skin_tone = skin_change(aged[real], faces) + lip_redness(aged, batch.target_age)
    assert terms["skin_tone"].item() == pytest.approx(skin_tone.item(), rel=1e-3)
    others = sum(getattr(LossWeights(), name) * value for name, value in terms.items())
    weighted = 2 * terms["identity"] + 4 * terms["gender"] + 3 * terms["skin_tone"]
    assert total.item() == pytest.approx((others + weighted).item(), rel=1e-5)
