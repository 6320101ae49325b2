"""Monitoring during training: accuracy on the val set, and a sheet of sample faces.

Computed quickly, in the training's precision; `faceage evaluate` gives the figures to report.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from faceage.data.datasets import DecodedDataset
from faceage.data.loading import StreamedDataset
from faceage.evaluation import metrics
from faceage.imaging.drawing import contact_sheet
from faceage.models.generator import (
    FaceAgeModel,
    apply_change,
    expected_age,
    group_log_probabilities,
)

BATCH = 64
SAMPLE_FACES, SAMPLE_AGES = 8, (3, 10, 20, 35, 50, 65, 80)


@torch.no_grad()
def measure_accuracy(
    model: FaceAgeModel,
    dataset: DecodedDataset | StreamedDataset,
    device: torch.device,
    autocast: AbstractContextManager[None],
) -> dict[str, float]:
    """Accuracy, accuracy within one group and MAE in years of the age classifier.

    Empty without a classifier; without the MAE if no face's exact age is known.
    """
    if not model.config.decomposition:
        return {}
    batches = dataset.batches(torch.split(torch.arange(len(dataset)), BATCH))
    with autocast:
        parts = [model.age_logits(_to_input(images.to(device))) for images in batches]
    logits = torch.cat(parts).float().cpu()
    groups = group_log_probabilities(logits).argmax(1).numpy()
    true, known = dataset.labels.groups.numpy(), dataset.labels.exact.numpy()
    figures = {
        "val/accuracy": metrics.accuracy(groups, true),
        "val/one_off": metrics.accuracy(groups, true, tolerance=1),
    }
    if known.any():
        years, ages = expected_age(logits).numpy(), dataset.labels.ages.numpy()
        figures["val/mae"] = metrics.mean_absolute_error(years[known], ages[known])
    return figures


@torch.no_grad()
def draw_samples(
    model: FaceAgeModel, dataset: DecodedDataset | StreamedDataset, device: torch.device
) -> Image.Image:
    """A contact sheet of a few faces, the same ones in every call, each at `SAMPLE_AGES`."""
    picks = torch.linspace(0, len(dataset) - 1, min(SAMPLE_FACES, len(dataset))).long()
    (images,) = dataset.batches([picks])
    source_ages = dataset.labels.ages[picks].to(device)
    targets = torch.tensor(SAMPLE_AGES, dtype=torch.float32, device=device)
    rows = []
    for image, source_age in zip(images.to(device), source_ages, strict=True):
        face = F.interpolate(_to_input(image[None]), model.config.size, mode="area")
        encoded = model.encode(face).select(torch.zeros_like(targets, dtype=torch.long))
        source = None if model.config.decomposition else source_age.expand(len(targets))
        change = model.decode(encoded, targets, source)
        aged = apply_change(face.expand(len(targets), -1, -1, -1), change)
        pixels = (torch.cat([face, aged]) * 127.5 + 127.5).round().byte()
        rows.append(list(pixels.permute(0, 2, 3, 1).cpu().numpy()))
    labels = [f"{age:.0f}" for age in source_ages]
    return contact_sheet(rows, ["input", *map(str, SAMPLE_AGES)], labels)


def _to_input(images: Tensor) -> Tensor:  # N,R,R,3 uint8 -> N,3,R,R in [-1, 1]
    faces = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return faces.contiguous(memory_format=torch.channels_last)
