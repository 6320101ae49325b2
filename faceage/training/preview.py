"""Monitoring during training: accuracy on the val set, and a sheet of sample faces.

Computed quickly, in the training's precision; `faceage evaluate` gives the figures to report.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from faceage.data.loading import Pictures
from faceage.imaging.conversion import to_tensor, to_uint8
from faceage.imaging.drawing import contact_sheet
from faceage.models.generator import (
    FaceAgeModel,
    apply_change,
    expected_age,
    group_log_probabilities,
)
from faceage.models.tta import decode_tta, encode_tta

BATCH = 64
SAMPLE_FACES, SAMPLE_AGES = 8, (3, 10, 20, 35, 50, 65, 80)


@torch.no_grad()
def measure_accuracy(
    model: FaceAgeModel,
    dataset: Pictures,
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
        parts = [model.age_logits(_to_input(images, device)) for images in batches]
    logits, labels = torch.cat(parts).float().cpu(), dataset.labels
    difference = (group_log_probabilities(logits).argmax(1) - labels.groups).abs()
    figures = {
        "val/accuracy": float((difference == 0).float().mean()),
        "val/one_off": float((difference <= 1).float().mean()),
    }
    if labels.exact.any():
        errors = (expected_age(logits) - labels.ages).abs()
        figures["val/mae"] = float(errors[labels.exact].mean())
    return figures


@torch.no_grad()
def draw_samples(model: FaceAgeModel, dataset: Pictures, device: torch.device) -> Image.Image:
    """A contact sheet of a few faces, the same ones in every call, each at `SAMPLE_AGES`.

    Computed as in use, with the mean over views and corrected colours, but not pasted.
    """
    picks = torch.linspace(0, len(dataset) - 1, min(SAMPLE_FACES, len(dataset))).long()
    (images,) = dataset.batches([picks])
    source_ages = dataset.labels.ages[picks].to(device)
    targets = torch.tensor(SAMPLE_AGES, dtype=torch.float32, device=device)
    rows = []
    for image, source_age in zip(images, source_ages, strict=True):
        picture = _to_input(image[None], device)
        face = F.interpolate(picture, model.config.size, mode="area")
        views, index = encode_tta(model, face), torch.zeros_like(targets, dtype=torch.long)
        source = None if model.config.decomposition else source_age.expand(len(targets))
        change = decode_tta(model, views, index, targets, source)
        if model.config.fine_level:
            face = F.interpolate(picture, model.config.fine_size, mode="area")
            change = model.refine(face.expand(len(targets), -1, -1, -1), change)
        aged = apply_change(face.expand(len(targets), -1, -1, -1), change)
        rows.append(list(to_uint8(torch.cat([face, aged]))))
    labels = [f"{age:.0f}" for age in source_ages]
    return contact_sheet(rows, ["input", *map(str, SAMPLE_AGES)], labels)


def _to_input(images: Tensor, device: torch.device) -> Tensor:  # N,R,R,3 uint8 -> N,3,R,R
    return to_tensor(images, device).contiguous(memory_format=torch.channels_last)
