"""Calibration of the predicted age intervals by temperature scaling.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv 1706.04599); the criterion
here is the coverage of the 80 % interval instead of the likelihood.
"""

import numpy as np
import torch
from torch import Tensor

from faceage.distributions import summarize_distribution
from faceage.models.generator import FaceAgeModel
from faceage.models.tta import classify_tta

COVERAGE = 0.8  # of the interval that `summarize_distribution` gives
LOWEST, HIGHEST = 0.25, 4.0  # temperatures
_STEPS = 12  # of the bisection
_BATCH = 16


def calibrate_interval(model: FaceAgeModel, faces: Tensor, ages: Tensor) -> float:
    """Scale the logits so that 80 % of the ages lie in their predicted intervals.

    The classifier's last layer is divided by the temperature, in place. The median hardly moves.

    Args:
        faces: N,3,R,R in [-1, 1], R = `config.classifier_crop`; held out of training.
        ages: (N,) years.

    Returns:
        The temperature.
    """
    with torch.inference_mode():
        parts = [classify_tta(model, part).cpu() for part in torch.split(faces, _BATCH)]
    logits = torch.cat(parts, 1)  # V,N,101
    low, high = LOWEST, HIGHEST
    for _ in range(_STEPS):
        temperature = (low * high) ** 0.5
        if coverage(logits / temperature, ages) < COVERAGE:
            low = temperature
        else:
            high = temperature
    head = model.classifier.get_submodule("head")
    for parameter in head.parameters():
        parameter.data.div_(high)
    return high


def coverage(logits: Tensor, ages: Tensor) -> float:  # V,N,101 and (N,)
    """The fraction of ages inside the 80 % interval of the mean distribution over the views."""
    distributions = logits.softmax(2).mean(0).double().numpy()
    intervals = np.array([summarize_distribution(row)[1] for row in distributions])
    years = ages.cpu().numpy()
    return float(((intervals[:, 0] <= years) & (years <= intervals[:, 1])).mean())
