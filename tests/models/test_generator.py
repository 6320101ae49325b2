"""The generator: frozen names and shapes, and the properties of each part."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn
from torch.nn import functional as F

from faceage.ages import GROUP_STARTS, YEARS
from faceage.models.architecture import ModelConfig
from faceage.models.decoders import MAX_FLOW, Change, displace
from faceage.models.discriminators import Discriminator
from faceage.models.encoders import Decomposition
from faceage.models.generator import (
    FaceAgeModel,
    apply_change,
    expected_age,
    group_log_probabilities,
)
from faceage.models.windows import inner_face


def _randomised(config: ModelConfig) -> FaceAgeModel:
    """A model whose zero heads and untouched batch norms have random values."""
    torch.manual_seed(1)
    model = FaceAgeModel(config)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> FaceAgeModel:
    return _randomised(TINY)


@pytest.fixture(scope="module")
def faces() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


# --- names and shapes, which weights files depend on ----------------------------------------------


def _prefixes_and_hash(net: nn.Module) -> tuple[dict[str, int], str]:
    lines = sorted(f"{name} {tuple(v.shape)}" for name, v in net.state_dict().items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return dict(Counter(line.split(".")[0] for line in lines)), digest


def test_state_dict_of_the_compact_model_is_frozen() -> None:
    """A change here makes existing weights files unreadable; the format number must then rise."""
    model = FaceAgeModel(ModelConfig.compact())
    assert _prefixes_and_hash(model) == (
        {
            "encoder": 54,
            "decomposition": 13,
            "classifier": 50,
            "decoder": 24,
            "age_feature_cnn": 17,
        },
        "23962fe8872759b3",
    )
    assert sum(p.numel() for p in model.parameters()) == 7_425_166


def test_state_dict_of_the_compact_baseline_is_frozen() -> None:
    model = FaceAgeModel(ModelConfig.compact(decomposition=False))
    assert _prefixes_and_hash(model) == (
        {"encoder": 54, "decoder": 24, "age_feature_cnn": 17},
        "0b2320312b84c0ad",
    )


def test_names_and_shapes_of_the_compact_model() -> None:
    shapes = {
        k: tuple(v.shape) for k, v in FaceAgeModel(ModelConfig.compact()).state_dict().items()
    }
    assert shapes["encoder.stem.0.weight"] == (32, 12, 3, 3)
    assert shapes["decomposition.spatial.weight"] == (1, 2, 7, 7)
    assert shapes["classifier.head.weight"] == (YEARS, 512)
    assert shapes["age_feature_cnn.embedding.table.weight"] == (15, 128)
    assert shapes["decoder.residual.weight"] == (3, 16, 3, 3)
    assert shapes["decoder.flow.weight"] == (2, 128, 3, 3)
    assert "age_feature_cnn.embedding.knots" not in shapes  # from ages.KNOTS, not from the file


@pytest.mark.parametrize(("decomposition", "parameters"), [(True, 34_440_782), (False, 12_440_453)])
def test_shapes_of_the_default_model(decomposition: bool, parameters: int) -> None:
    config = ModelConfig(decomposition=decomposition)
    with torch.device("meta"):
        model, discriminator = FaceAgeModel(config), Discriminator(config)
        faces, ages = torch.empty(2, 3, 256, 256), torch.empty(2)
        encoded = model.encode(faces)
        change = model.decode(encoded, ages, None if decomposition else ages)
        (outputs,) = discriminator(discriminator.extract_features(faces))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert encoded.identity.shape == encoded.age_features.shape == (2, 256, 32, 32)
    assert change.residual.shape == (2, 3, 256, 256)
    assert change.flow.shape == (2, 2, 32, 32)
    assert outputs.shape == (2, 10)


def test_the_compact_model_runs() -> None:
    model = FaceAgeModel(ModelConfig.compact()).eval()
    assert model.config.classifier_crop == 192
    with torch.no_grad():
        assert model.age_logits(torch.rand(1, 3, 192, 192)).shape == (1, YEARS)
        encoded = model.encode(torch.rand(1, 3, 128, 128))
        change = model.decode(encoded, torch.tensor([37.0]))
    assert encoded.identity.shape == (1, 128, 16, 16)
    assert encoded.faces.shape == (1, 3, 128, 128)
    assert change.residual.shape == (1, 3, 128, 128)
    assert change.flow.shape == (1, 2, 16, 16)


# --- decomposition --------------------------------------------------------------------------------


def test_identity_and_age_features_sum_to_the_features(model: FaceAgeModel, faces: Tensor) -> None:
    encoded = model.encode(faces)
    features = model.encoder(F.pixel_unshuffle(encoded.faces, 2))
    assert torch.allclose(encoded.identity + encoded.age_features, features, atol=1e-5)
    assert encoded.age_features.abs().sum() > 0
    assert encoded.identity.abs().sum() > 0


def test_attention_is_the_mean_of_its_two_branches() -> None:
    """With all weights 0 both branches are sigmoid(0) = 1/2, and so is the attention."""
    decomposition = Decomposition(16).eval()
    for parameter in decomposition.parameters():
        nn.init.zeros_(parameter)
    features = torch.rand(2, 16, 4, 4)
    identity, age_features = decomposition(features)
    assert torch.allclose(age_features, features / 2)
    nn.init.constant_(decomposition.channel_norm.bias, 50.0)  # sigmoid -> 1: (1 + 1/2) / 2
    identity, age_features = decomposition(features)
    assert torch.allclose(age_features, features * 0.75)
    assert torch.allclose(identity, features * 0.25)


def test_the_baseline_keeps_all_features_and_uses_the_source_age(faces: Tensor) -> None:
    model = _randomised(ModelConfig(**{**TINY.__dict__, "decomposition": False}))
    encoded = model.encode(faces)
    assert torch.equal(encoded.identity, model.encoder(F.pixel_unshuffle(encoded.faces, 2)))
    assert not encoded.age_features.any()
    assert not hasattr(model, "classifier")
    young, old = torch.tensor([5.0] * 3), torch.tensor([70.0] * 3)
    from_young, from_old = model.decode(encoded, old, young), model.decode(encoded, old, old)
    assert not torch.equal(from_young.residual, from_old.residual)


def test_the_classifier_depends_on_the_inner_face_only(model: FaceAgeModel) -> None:
    faces = torch.zeros(1, 3, 64, 64)
    outside = torch.ones(1, 3, 64, 64)
    outside[..., 21:53, 16:48] = 0  # 0.328125 * 64, 0.25 * 64, and 32 px further
    assert torch.equal(model.age_logits(faces), model.age_logits(faces + outside))


# --- decoding -------------------------------------------------------------------------------------


def test_the_change_starts_at_zero(faces: Tensor) -> None:
    torch.manual_seed(0)
    model = FaceAgeModel(TINY)
    change = model.decode(model.encode(faces), torch.tensor([5.0, 40.0, 90.0]))
    assert not change.residual.any()
    assert not change.flow.any()
    assert torch.allclose(apply_change(faces, change), faces, atol=1e-5)


def test_the_change_is_continuous_in_the_target_age(model: FaceAgeModel, faces: Tensor) -> None:
    encoded = model.encode(faces[:1]).select(torch.zeros(4, dtype=torch.long))
    ages = torch.tensor([37.0, 37.01, 39.0, 60.0])
    modulation = model.age_feature_cnn(encoded.identity, ages, None)
    near, far, farther = ((modulation[0] - modulation[i]).abs().mean() for i in (1, 2, 3))
    assert 0 < near < far / 50  # continuous
    assert far < farther
    residual, flow = model.decode(encoded, ages)
    assert (residual[0] - residual[2]).abs().max() > 1e-4
    assert (flow[0] - flow[2]).abs().max() > 1e-6


def test_the_modulation_depends_on_the_face(model: FaceAgeModel, faces: Tensor) -> None:
    identity = model.encode(faces).identity
    modulation = model.age_feature_cnn(identity, torch.full((3,), 37.0), None)
    assert not torch.allclose(modulation[0], modulation[1], atol=1e-4)


def test_encode_once_decode_many(model: FaceAgeModel, faces: Tensor) -> None:
    ages = torch.tensor([5.0, 37.0, 70.0])
    once = model.encode(faces[:1])
    many = model.decode(once.select(torch.zeros(3, dtype=torch.long)), ages)
    for index, age in enumerate(ages):
        single = model.decode(model.encode(faces[:1]), age[None])
        assert torch.allclose(many.residual[index], single.residual[0], atol=1e-5)
        assert torch.allclose(many.flow[index], single.flow[0], atol=1e-6)


def test_the_flow_is_bounded(faces: Tensor) -> None:
    model = _randomised(TINY)
    nn.init.constant_(model.decoder.flow.bias, 100.0)
    flow = model.decode(model.encode(faces), torch.full((3,), 5.0)).flow
    assert flow.max() == pytest.approx(MAX_FLOW)


# --- forward --------------------------------------------------------------------------------------

AGES = torch.tensor([5.0, 37.0, 70.0])


def test_forward_gives_the_aged_faces(model: FaceAgeModel, faces: Tensor) -> None:
    aged = model(faces, AGES)
    assert torch.equal(aged, apply_change(faces, model.decode(model.encode(faces), AGES)))
    assert aged.shape == faces.shape
    assert (aged - faces).abs().amax((1, 2, 3)).min() > 0.01


def test_forward_of_the_baseline_takes_the_source_age(faces: Tensor) -> None:
    model = _randomised(ModelConfig(**{**TINY.__dict__, "decomposition": False}))
    change = model.decode(model.encode(faces), AGES, AGES.flip(0))
    assert torch.equal(model(faces, AGES, AGES.flip(0)), apply_change(faces, change))


def test_the_model_can_be_exported(model: FaceAgeModel, faces: Tensor) -> None:
    program = torch.export.export(model, (faces, AGES))
    assert torch.allclose(program.module()(faces, AGES), model(faces, AGES), atol=1e-5)


def test_the_model_can_be_traced_by_the_compiler(model: FaceAgeModel, faces: Tensor) -> None:
    """In one graph; the backend that generates code is not tested."""
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(faces, AGES), model(faces, AGES), atol=1e-5)


# --- apply_change ---------------------------------------------------------------------------------


def _change(side: int, flow: tuple[float, float] = (0, 0), residual: float = 0.0) -> Change:
    field = torch.tensor(flow).view(1, 2, 1, 1).expand(1, 2, side // 8, side // 8)
    return Change(torch.full((1, 3, side, side), residual), field)


@pytest.mark.parametrize("side", [16, 32, 48])  # the change is made for 16
def test_the_flow_is_the_offset_of_the_sampling_position(side: int) -> None:
    faces = torch.rand(1, 3, side, side) * 2 - 1
    pixels = side // 8  # a quarter of the half side
    moved = apply_change(faces, _change(16, flow=(0.25, 0)))  # x: content from the right
    assert torch.allclose(moved[..., :-pixels], faces[..., pixels:], atol=1e-5)
    edge = faces[..., -1:].expand(-1, -1, -1, pixels)
    assert torch.allclose(moved[..., -pixels:], edge, atol=1e-5)  # border pixels repeat
    moved = apply_change(faces, _change(16, flow=(0, -0.25)))  # y: content from above
    assert torch.allclose(moved[..., pixels:, :], faces[..., :-pixels, :], atol=1e-5)


@pytest.mark.parametrize("side", [8, 16, 40])
def test_a_residual_is_added_at_any_resolution(side: int) -> None:
    faces = torch.rand(1, 3, side, side) - 0.5
    aged = apply_change(faces, _change(16, residual=0.25))
    assert torch.allclose(aged, faces + 0.25, atol=1e-5)


def test_a_residual_keeps_its_place_at_another_resolution() -> None:
    residual = torch.zeros(1, 3, 16, 16)
    residual[..., :8, 8:] = 0.5  # above, right
    aged = apply_change(torch.zeros(1, 3, 64, 64), Change(residual, torch.zeros(1, 2, 2, 2)))
    assert torch.allclose(aged[..., 4:24, 40:60], torch.tensor(0.5), atol=0.01)
    assert aged[..., 40:, :].abs().max() < 0.01
    assert aged[..., :, :24].abs().max() < 0.01


def test_aged_faces_stay_in_range() -> None:
    faces = torch.rand(1, 3, 16, 16) * 2 - 1
    assert apply_change(faces, _change(16, residual=2.0)).unique().tolist() == [1.0]
    assert apply_change(faces, _change(16, residual=-2.0)).unique().tolist() == [-1.0]


def test_apply_change_accepts_half_precision() -> None:
    change = Change(*(part.bfloat16() for part in _change(16, residual=0.25)))
    assert apply_change(torch.zeros(1, 3, 16, 16), change).dtype == torch.float32


# --- ages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "top", "left"), [(256, 84, 64), (192, 63, 48), (64, 21, 16)])
def test_inner_face_is_a_slice_at_its_own_size(side: int, top: int, left: int) -> None:
    faces = torch.rand(1, 3, side, side)
    half = side // 2
    window = faces[..., top : top + half, left : left + half]
    assert torch.equal(inner_face(faces, half), window)


def test_inner_face_is_resized() -> None:
    column = torch.arange(256.0).expand(1, 3, 256, 256)
    inner = inner_face(column, 64)
    assert inner.shape == (1, 3, 64, 64)
    assert inner[0, 0, 30, 32].item() == pytest.approx(64 + 2 * 32 + 0.5, abs=0.01)
    assert inner_face(column, 192).shape == (1, 3, 192, 192)


def test_a_zoom_keeps_the_centre() -> None:
    faces = torch.rand(1, 3, 256, 256)
    # The centre is at y = (0.328125 + 0.25) * 256 = 148 and x = 128; at zoom 2 a side of 64.
    assert torch.equal(inner_face(faces, 64, zoom=2), faces[..., 116:180, 96:160])


def test_group_probabilities_are_sums_over_years() -> None:
    logits = torch.zeros(2, YEARS)
    logits[1] = -1e4
    logits[1, [2, 3, 6]] = torch.tensor([0.5, 0.3, 0.2]).log()
    p = group_log_probabilities(logits).exp()
    stops = (*GROUP_STARTS[1:], YEARS)
    sizes = [b - a for a, b in zip(GROUP_STARTS, stops, strict=True)]
    assert sizes == [3, 4, 3, 5, 5, 10, 10, 10, 20, 31]
    assert torch.allclose(p[0], torch.tensor(sizes) / 101)
    assert torch.allclose(p[1, :3], torch.tensor([0.5, 0.5, 0.0]))
    assert torch.allclose(p.sum(1), torch.ones(2))


def test_expected_age_is_the_mean() -> None:
    logits = torch.full((2, YEARS), -1e4)
    logits[0, [10, 20]] = torch.tensor([1.0, 3.0]).log()
    logits[1, 100] = 0
    assert expected_age(logits).tolist() == pytest.approx([17.5, 100.0])
    assert expected_age(torch.zeros(1, YEARS)).item() == pytest.approx(50.0, abs=1e-3)


# --- the U-Net decoder ----------------------------------------------------------------------------

UNET = replace(TINY, decoder_blocks=2, decoder="unet")


def test_the_unet_starts_without_a_change(faces: Tensor) -> None:
    torch.manual_seed(0)
    model = FaceAgeModel(UNET).eval()
    change = model.decode(model.encode(faces), torch.full((3,), 70.0))
    assert change.residual.shape == (3, 3, 32, 32)
    assert change.flow.shape == (3, 2, 4, 4)
    assert not change.residual.any()
    assert not change.flow.any()


def test_the_unet_ages_one_encoded_face_to_several_ages(faces: Tensor) -> None:
    model = _randomised(UNET)
    encoded = model.encode(faces)
    ages = torch.tensor([5.0, 70.0])
    both = model.decode(encoded.select(torch.tensor([1, 1])), ages)
    for number, age in enumerate(ages):
        single = model.decode(model.encode(faces[1:2]), age[None])
        assert torch.allclose(both.residual[number], single.residual[0], atol=1e-4)
        assert torch.allclose(both.flow[number], single.flow[0], atol=1e-5)
    assert not torch.allclose(both.residual[0], both.residual[1], atol=1e-2)


def test_the_unets_residual_depends_on_the_displaced_face(faces: Tensor) -> None:
    """With a constant displacement, the skip connections get the face at its new place."""
    model = _randomised(UNET)
    model.decoder.flow.weight.zero_()
    model.decoder.flow.bias.copy_(torch.tensor([10.0, 0.0]))
    detail: list[Tensor] = []
    model.decoder.detail2.register_forward_pre_hook(lambda _, inputs: detail.append(inputs[0]))
    change = model.decode(model.encode(faces), torch.full((3,), 30.0))
    moved = apply_change(faces, Change(torch.zeros_like(faces), change.flow))
    assert torch.allclose(F.pixel_shuffle(detail[0], 2), moved, atol=1e-5)
    assert not torch.allclose(moved, faces, atol=0.1)


def test_desaturation_starts_without_an_effect(faces: Tensor) -> None:
    before = _randomised(UNET)
    after = FaceAgeModel(replace(UNET, desaturation=True)).eval()
    after.load_state_dict(before.state_dict(), strict=False)
    ages = torch.tensor([5.0, 40, 70])
    expected, found = (m.decode(m.encode(faces), ages) for m in (before, after))
    assert torch.equal(found.residual, expected.residual)


def test_desaturation_removes_chroma_and_keeps_lightness(faces: Tensor) -> None:
    # The residual and the displacement start at zero.
    model = FaceAgeModel(replace(UNET, desaturation=True)).eval()
    model.decoder.desaturation.bias.data.fill_(100)
    change = model.decode(model.encode(faces), torch.tensor([5.0, 40, 70]))
    grey = apply_change(faces, change)
    lightness = faces.mean(1, keepdim=True)
    assert (faces - lightness).abs().mean() > 0.1
    torch.testing.assert_close(grey, lightness.expand_as(grey), atol=1e-4, rtol=0)


def test_displacing_by_one_pixel(faces: Tensor) -> None:
    flow = torch.zeros(3, 2, 4, 4)
    flow[:, 0] = 2 / 32  # half sides: one of 32 px
    assert torch.allclose(displace(faces, flow)[..., :-1], faces[..., 1:], atol=1e-5)
