"""The age teacher: the face backbone with heads for age and gender.

It is used in training only. The shipped classifier starts from its weights and learns from its age
distributions (knowledge distillation, Hinton et al., 2015, arXiv 1503.02531), and it labels
synthetic faces.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import YEARS
from faceage.models.mobilenet import MobileNet, hidden_layers
from faceage.models.windows import CLASSIFIER_WINDOWS, window_grid

WINDOW = CLASSIFIER_WINDOWS["mobilenet"]
TEACHER_SIZE = 192  # px of the window; the backbone was pretrained at 224 px
TEACHER_ZOOMS = (0.95, 1.05)  # test-time augmentation, each with its mirror image


class TeacherOutput(NamedTuple):
    """Estimates for N faces."""

    age_logits: Tensor  # N,101 over the years 0-100
    gender_logits: Tensor  # (N,), positive for male


class AgeTeacher(nn.Module):
    """The backbone, a hidden layer, and two heads."""

    def __init__(self, hidden: int = 512, dropout: float = 0.3) -> None:
        super().__init__()
        self.backbone = MobileNet()
        self.body = hidden_layers(hidden, dropout)
        self.age = nn.Linear(hidden, YEARS)
        self.gender = nn.Linear(hidden, 1)

    def forward(self, windows: Tensor) -> TeacherOutput:  # N,3,s,s in [-1, 1]
        x = self.body(self.backbone(windows).mean((2, 3)))
        return TeacherOutput(self.age(x), self.gender(x)[:, 0])


def crop_windows(
    images: Tensor, grid: Tensor, valid: Tensor | None = None
) -> Tensor:  # N,R,R,3 uint8, N,s,s,2 -> N,3,s,s in [-1, 1]
    """The pictures at the places of `grid`; outside of `valid`, the nearest valid pixel.

    Args:
        valid: N,4 in fractions of the side: what is picture and not padding.
    """
    if valid is not None:
        box = valid[:, None, None] * 2 - 1
        grid = torch.minimum(torch.maximum(grid, box[..., :2]), box[..., 2:])
    faces = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.grid_sample(faces, grid, padding_mode="reflection", align_corners=False)


@torch.no_grad()
def estimate(
    teacher: AgeTeacher,
    images: Tensor,
    valid: Tensor | None = None,
    zooms: tuple[float, ...] = TEACHER_ZOOMS,
    mirrors: tuple[float, ...] = (1.0, -1.0),
    batch: int = 64,
) -> tuple[Tensor, Tensor]:
    """Estimates for FFHQ crops, averaged over zooms and mirror images.

    Args:
        images: N,R,R,3 uint8, moved to the teacher's device batch by batch.
        valid: as for `crop_windows`.
        zooms, mirrors: test-time augmentation; mirrors are 1 and -1.

    Returns:
        Age distributions over the years 0-100, N,101, and probabilities of "male", (N,).
    """
    ages, genders = [], []
    device = teacher.age.weight.device
    for start in range(0, len(images), batch):
        part = images[start : start + batch].to(device)
        box = None if valid is None else valid[start : start + batch].to(device)
        outputs = []
        for zoom in zooms:
            for mirror in mirrors:
                transform = torch.tensor([[mirror * zoom, 0, 0], [0, zoom, 0]], device=part.device)
                grid = window_grid(transform.expand(len(part), 2, 3), TEACHER_SIZE, WINDOW)
                windows = crop_windows(part, grid, box)
                outputs.append(teacher(windows.to(memory_format=torch.channels_last)))
        ages.append(torch.stack([o.age_logits.float().softmax(1) for o in outputs]).mean(0))
        genders.append(torch.stack([o.gender_logits.float().sigmoid() for o in outputs]).mean(0))
    return torch.cat(ages), torch.cat(genders)
