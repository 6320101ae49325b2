"""What a training run is watched by: classification of val, and a few people at a few ages.

Quick, in training's own precision. The figures to publish come from `faceage evaluate`.
"""

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from faceage.data.datasets import Faces
from faceage.evaluation import metrics
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
def classification(model: FaceAgeModel, faces: Faces) -> dict[str, float]:
    """Accuracy, accuracy within one group, and mean absolute error in years.

    Nothing without a classifier; no error where no face's years are known.
    """
    if not model.config.decomposition:
        return {}
    batches = faces.images.split(BATCH)
    with torch.autocast(faces.images.device.type, torch.bfloat16):
        logits = torch.cat([model.age_logits(_as_input(images)) for images in batches]).float()
    groups = group_log_probabilities(logits).argmax(1).cpu().numpy()
    true, known = faces.groups.cpu().numpy(), faces.exact.cpu().numpy()
    figures = {
        "val/accuracy": metrics.accuracy(groups, true),
        "val/one_off": metrics.accuracy(groups, true, tolerance=1),
    }
    if known.any():
        years, ages = expected_age(logits).cpu().numpy(), faces.ages.cpu().numpy()
        figures["val/mae"] = metrics.mean_absolute_error(years[known], ages[known])
    return figures


@torch.no_grad()
def sample_sheet(model: FaceAgeModel, faces: Faces) -> Image.Image:
    """A few of the faces, always the same, each at the same ages."""
    picks = torch.linspace(0, len(faces) - 1, min(SAMPLE_PEOPLE, len(faces))).long().tolist()
    ages = torch.tensor(SAMPLE_AGES, dtype=torch.float32, device=faces.images.device)
    rows = []
    for pick in picks:
        face = _as_input(faces.images[pick : pick + 1])
        face = F.interpolate(face, model.config.size, mode="area")
        encoded = model.encode(face).select(torch.zeros_like(ages, dtype=torch.long))
        source = None if model.config.decomposition else faces.ages[pick].expand(len(ages))
        change = model.decode(encoded, ages, source)
        aged = apply_change(face.expand(len(ages), -1, -1, -1), change)
        pixels = (torch.cat([face, aged]) * 127.5 + 127.5).round().byte()
        rows.append(list(pixels.permute(0, 2, 3, 1).cpu().numpy()))
    labels = [f"{faces.ages[pick]:.0f}" for pick in picks]
    return contact_sheet(rows, ["input", *map(str, SAMPLE_AGES)], labels)


def _as_input(images: Tensor) -> Tensor:  # N,R,R,3 uint8 -> N,3,R,R in [-1, 1]
    faces = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return faces.contiguous(memory_format=torch.channels_last)
