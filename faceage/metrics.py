"""Measures, as pure functions of numpy arrays."""

import numpy as np
from numpy.typing import NDArray


def accuracy(predicted: NDArray, true: NDArray, tolerance: int = 0) -> float:
    """Share of the groups predicted right, or off by at most `tolerance` groups.

    Args:
        predicted, true: (N,) age groups.
    """
    return float((np.abs(predicted - true) <= tolerance).mean())


def mean_absolute_error(predicted: NDArray, true: NDArray) -> float:
    """Mean absolute difference, in the unit of the arguments."""
    return float(np.abs(predicted - true).mean())
