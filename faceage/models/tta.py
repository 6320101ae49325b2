"""The model, looking at each face more than once: what `predict`, `age` and `evaluate` share.

Each view errs a little differently, and the mean errs less.
"""

import math

import numpy as np
import torch

from faceage.ages import GROUP_NAMES, MAX_AGE, MIN_AGE, YEARS, group_of
from faceage.models.generator import Change, Decomposed, FaceAgeModel

TTA_ZOOMS = (0.92, 1.0, 1.07, 1.14)  # how close the classifier looks
CHUNK = 16  # faces at once; bounds the memory, not their number


def encode_tta(model: FaceAgeModel, faces: torch.Tensor) -> Decomposed:  # N,3,S,S -> 2N
    """Faces and, behind them, their mirror images, encoded for `decode_tta`."""
    return model.encode(torch.cat([faces, faces.flip(3)]))


def decode_tta(
    model: FaceAgeModel,
    views: Decomposed,
    index: torch.Tensor,
    target_age: torch.Tensor,
    source_age: torch.Tensor | None = None,
) -> Change:
    """The changes of some faces: the mean over each face and its mirror image.

    What the model would do to one cheek only, it mostly does not mean.

    Args:
        views: of N faces, from `encode_tta`.
        index: (M,) which of the N faces.
        target_age, source_age: (M,) years, as for `FaceAgeModel.decode`.
    """
    face = model.decode(views.select(index), target_age, source_age)
    mirrored = views.select(index + len(views.identity) // 2)
    mirror = model.decode(mirrored, target_age, source_age)
    sideways = torch.tensor([-1.0, 1.0], device=index.device)[:, None, None]
    return Change(
        (face.residual + mirror.residual.flip(3)) / 2,
        (face.flow + mirror.flow.flip(3) * sideways) / 2,
    )


@torch.inference_mode()
def predict_distributions(model: FaceAgeModel, faces: torch.Tensor) -> np.ndarray:
    """Distributions over whole years, (N,101): the mean over a few views of each face.

    The views are the face and its mirror image, each a little closer and a little farther.

    Args:
        faces: N,3,R,R in [-1, 1] with R = `config.classifier_crop`, on the model's device.
    """
    rows = []
    for part in faces.split(CHUNK):
        both = torch.cat([part, part.flip(3)])
        views = torch.cat([model.age_logits(both, zoom) for zoom in TTA_ZOOMS])
        rows.append(views.float().softmax(1).unflatten(0, (-1, len(part))).mean(0).cpu())
    return torch.cat(rows).double().numpy()


def summarize_distribution(years: np.ndarray) -> tuple[float, tuple[float, float], np.ndarray]:
    """What a distribution over years (101,) says: age, interval, probabilities of the groups.

    The age is the median, which has the least absolute error; the interval the middle 80 %. The
    groups' ten probabilities sum to 1.
    """
    years = years / years.sum()
    sums = np.zeros(len(GROUP_NAMES))
    np.add.at(sums, [group_of(year) for year in range(MIN_AGE, MAX_AGE + 1)], years)
    low, age, high = _quantiles(years, 0.1, 0.5, 0.9)
    return age, (low, high), sums


def nearest_group(age: float) -> int:
    """The group of a predicted age: that of the nearest whole year, as labels are whole years."""
    return group_of(math.floor(age + 0.5))


def _quantiles(years: np.ndarray, *shares: float) -> list[float]:
    """Ages below which these shares of the distribution lie; year k reaches from k-.5 to k+.5."""
    cumulative = np.concatenate([[0], np.cumsum(years) / years.sum()])
    edges = np.arange(YEARS + 1) + MIN_AGE - 0.5
    return [float(np.clip(np.interp(q, cumulative, edges), MIN_AGE, MAX_AGE)) for q in shares]
