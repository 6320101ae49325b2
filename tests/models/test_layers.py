"""Age embedding, conditional batch norm, residual blocks."""

import pytest
import torch
from torch import nn

from faceage.ages import KNOTS
from faceage.models.layers import (
    AgeEmbedding,
    ConditionalBatchNorm2d,
    ModulatedBlock,
    ResidualBlock,
)


@pytest.fixture
def embedding() -> AgeEmbedding:
    """Channel 0 is the number of the knot, channel 1 its square."""
    embedding = AgeEmbedding(2)
    number = torch.arange(len(KNOTS), dtype=torch.float32)
    embedding.table.weight.data = torch.stack([number, number**2], 1)
    return embedding


def test_age_embedding_at_the_knots(embedding: AgeEmbedding) -> None:
    years = torch.tensor(KNOTS, dtype=torch.float32)
    assert torch.equal(embedding(years), embedding.table.weight)


def test_age_embedding_between_knots(embedding: AgeEmbedding) -> None:
    # 37 lies 7/10 of the way from knot 8 (30) to knot 9 (40); 1 halfway from knot 0 to knot 1 (2);
    # 90 halfway from knot 13 (80) to knot 14 (100).
    values = embedding(torch.tensor([37.0, 1.0, 90.0]))
    expected = torch.tensor([[8.7, 64 + 0.7 * 17], [0.5, 0.5], [13.5, (169 + 196) / 2]])
    assert torch.allclose(values, expected)


def test_age_embedding_clamps_ages_out_of_range(embedding: AgeEmbedding) -> None:
    ends = embedding.table.weight[[0, -1]]
    assert torch.equal(embedding(torch.tensor([-3.0, 116.0])), ends)


def test_age_embedding_accepts_integers(embedding: AgeEmbedding) -> None:
    assert torch.equal(embedding(torch.tensor([37])), embedding(torch.tensor([37.0])))


def test_age_embedding_has_gradients_at_both_neighbouring_knots(embedding: AgeEmbedding) -> None:
    embedding(torch.tensor([37.0]))[0, 0].backward()
    assert embedding.table.weight.grad[:, 0].nonzero().flatten().tolist() == [8, 9]
    assert torch.allclose(embedding.table.weight.grad[8:10, 0], torch.tensor([0.3, 0.7]))


def test_conditional_batch_norm_starts_as_plain_normalisation() -> None:
    norm = ConditionalBatchNorm2d(3, 4)
    x = torch.randn(5, 3, 2, 2) * 7 + 3
    plain = nn.BatchNorm2d(3, affine=False)
    assert torch.equal(norm(x, torch.randn(5, 4)), plain(x))


def test_conditional_batch_norm_applies_gain_and_bias() -> None:
    norm = ConditionalBatchNorm2d(1, 1).eval()
    norm.affine.weight.data = torch.tensor([[2.0], [10.0]])  # gain 1 + 2c, bias 10c
    x = torch.full((2, 1, 1, 1), 2.0)
    values = norm(x, torch.tensor([[0.0], [1.0]])).flatten()
    assert torch.allclose(values, torch.tensor([2.0, 16.0]), atol=1e-3)  # eps of the batch norm


def test_conversion_to_sync_batch_norm_keeps_the_conditioning() -> None:
    torch.manual_seed(0)
    norm = ConditionalBatchNorm2d(3, 4)
    nn.init.normal_(norm.affine.weight)
    x, condition = torch.randn(2, 3, 4, 4), torch.randn(2, 4)
    norm.eval()
    before = norm(x, condition)
    names = list(norm.state_dict())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    assert isinstance(converted, ConditionalBatchNorm2d)
    assert isinstance(converted.norm, nn.SyncBatchNorm)
    assert list(converted.state_dict()) == names
    assert torch.equal(converted(x, condition), before)


@pytest.mark.parametrize(
    ("stride", "channels", "shape"), [(1, 4, (2, 4, 6, 6)), (2, 8, (2, 8, 3, 3))]
)
def test_residual_block_starts_as_its_shortcut(stride: int, channels: int, shape: tuple) -> None:
    block = ResidualBlock(4, channels, stride).eval()
    x = torch.randn(2, 4, 6, 6)
    assert block(x).shape == shape
    assert torch.equal(block(x), block.shortcut(x).relu())


def test_modulated_block_depends_on_its_modulation() -> None:
    torch.manual_seed(0)
    block = ModulatedBlock(8, 16)
    assert block.modulation_channels == 2 * (8 + 16)
    x = torch.randn(1, 8, 4, 4).expand(2, -1, -1, -1)
    modulation = torch.zeros(2, block.modulation_channels)
    modulation[1, -1] = 1.0  # the second norm's bias of the last channel
    plain, shifted = block(x, modulation)
    assert plain.shape == (16, 4, 4)
    assert not torch.equal(plain, shifted)


def test_modulated_block_uses_no_statistics_over_the_batch() -> None:
    torch.manual_seed(0)
    block = ModulatedBlock(8, 8)
    x, modulation = torch.randn(3, 8, 4, 4), torch.randn(3, block.modulation_channels)
    assert torch.allclose(block(x, modulation)[1:2], block(x[1:2], modulation[1:2]), atol=1e-6)
