"""Monitoring during training: accuracy on the val set, and a sheet of sample faces.

Computed quickly, in the training's precision; `faceage evaluate` gives the figures to report.
"""

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from faceage.data.datasets import DecodedDataset
from faceage.imaging.drawing import contact_sheet
from faceage.models.generator import (
    FaceAgeModel,
    apply_change,
    expected_age,
    group_log_probabilities,
)

BATCH = 64
SAMPLE_PEOPLE, SAMPLE_AGES = 8, (3, 10, 20, 35, 50, 65, 80)


@torch.no_grad()
def measure_accuracy(model: FaceAgeModel, faces: DecodedDataset) -> dict[str, float]:
    """Accuracy, accuracy within one group and MAE in years of the age classifier.

    Empty without a classifier; without the MAE if no face's exact age is known.
    """
    if not model.config.decomposition:
        return {}
    batches = faces.images.split(BATCH)
    with torch.autocast(faces.images.device.type, torch.bfloat16):
        logits = torch.cat([model.age_logits(_to_input(images)) for images in batches]).float()
    difference = (group_log_probabilities(logits).argmax(1) - faces.groups).abs()
    figures = {
        "val/accuracy": float((difference == 0).float().mean()),
        "val/one_off": float((difference <= 1).float().mean()),
    }
    if faces.exact.any():
        errors = (expected_age(logits) - faces.ages).abs()
        figures["val/mae"] = float(errors[faces.exact].mean())
    return figures


@torch.no_grad()
def draw_samples(model: FaceAgeModel, faces: DecodedDataset) -> Image.Image:
    """A contact sheet of a few faces, the same ones in every call, each at `SAMPLE_AGES`."""
    picks = torch.linspace(0, len(faces) - 1, min(SAMPLE_PEOPLE, len(faces))).long().tolist()
    ages = torch.tensor(SAMPLE_AGES, dtype=torch.float32, device=faces.images.device)
    rows = []
    for pick in picks:
        face = _to_input(faces.images[pick : pick + 1])
        face = F.interpolate(face, model.config.size, mode="area")
        encoded = model.encode(face).select(torch.zeros_like(ages, dtype=torch.long))
        source = None if model.config.decomposition else faces.ages[pick].expand(len(ages))
        change = model.decode(encoded, ages, source)
        aged = apply_change(face.expand(len(ages), -1, -1, -1), change)
        pixels = (torch.cat([face, aged]) * 127.5 + 127.5).round().byte()
        rows.append(list(pixels.permute(0, 2, 3, 1).cpu().numpy()))
    labels = [f"{faces.ages[pick]:.0f}" for pick in picks]
    return contact_sheet(rows, ["input", *map(str, SAMPLE_AGES)], labels)


def _to_input(images: Tensor) -> Tensor:  # N,R,R,3 uint8 -> N,3,R,R in [-1, 1]
    faces = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return faces.contiguous(memory_format=torch.channels_last)
