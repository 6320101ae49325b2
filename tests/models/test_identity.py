"""Identity embeddings: their part of age, and the gender they show."""

import pytest
import torch

from faceage.models.identity import (
    IdentityEmbedder,
    fit_age_part,
    fit_gender,
    predict_gender,
    remove_age_part,
)
from faceage.models.mobilenet import MobileNet


def test_the_part_of_age_is_fitted_and_removed() -> None:
    torch.manual_seed(0)
    ages = torch.rand(400, dtype=torch.float64) * 80
    people = 0.02 * torch.randn(400, 8, dtype=torch.float64)
    powers = torch.stack([torch.ones_like(ages), ages / 50, (ages / 50) ** 2], 1)
    age_part = torch.randn(3, 8, dtype=torch.float64)
    fitted = fit_age_part(people + powers @ age_part, ages)
    assert torch.allclose(fitted, age_part, atol=0.1)
    person = people[:1].expand(2, 8)
    embeddings = person + powers[[1, 2]] @ age_part
    found = remove_age_part(embeddings, ages[[1, 2]], age_part)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1])
    assert (found[0] @ found[1]).item() == pytest.approx(1)


def test_the_gender_is_fitted() -> None:
    torch.manual_seed(0)
    male = (torch.rand(600, dtype=torch.float64) > 0.3).double()
    people = 5 + torch.randn(600, 40, dtype=torch.float64)
    people[:, 3] += 4 * male
    gender = fit_gender(people[:300], male[:300])
    predicted = predict_gender(people[300:], gender)
    assert ((predicted > 0) == (male[300:] > 0.5)).double().mean() > 0.95
    assert predicted.mean().item() == pytest.approx(2 * male[300:].mean().item() - 1, abs=0.1)
    assert torch.isfinite(fit_gender(people[:20], male[:20])).all(), "fewer faces than numbers"


def test_embeddings_of_any_crop_size() -> None:
    torch.manual_seed(0)
    tensors = {k: 0.2 * torch.randn_like(v) for k, v in MobileNet().state_dict().items()}
    embedder = IdentityEmbedder(tensors, size=64)
    crops = torch.rand(2, 3, 96, 96) - 0.5
    embeddings = embedder(crops)
    assert embeddings.shape == (2, 1024)
    crops[:, :, :2] = 1  # outside its window
    assert torch.equal(embedder(crops), embeddings)
    assert not any(p.requires_grad for p in embedder.parameters())
