"""Correction of the predicted ages of rendered faces by predictions for real faces of known age.

Predictions of an age model regress towards the mean: it predicts less than 80 for most people of
80. A rendered face that is predicted as 76 resembles real people who are older. Trained on
predictions as labels, a synthesis model makes faces of a target age look too old (inverse
calibration; see Osborne, "Statistical Calibration: A Review", 1991).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceage.data.datasets import Dataset
from faceage.errors import DataError
from faceage.pairs.labels import FaceLabeller
from faceage.progress import progress_bar

LEAST_FACES = 200
_BATCH, _SIZE = 32, 256  # faces; px, as of the rendered faces
_WIDTH, _WIDTH_PER_YEAR = 1.5, 0.08  # of the Gaussian weights, years


@dataclass(frozen=True, eq=False)
class AgeCalibration:
    """The mean prediction for real faces of every age.

    Attributes:
        ages: (K,) years, increasing.
        predictions: (K,) mean predictions, increasing.
    """

    ages: NDArray[np.float64]
    predictions: NDArray[np.float64]

    def correct(self, predicted: NDArray[np.float64]) -> NDArray[np.float64]:  # (N,) -> (N,)
        """The ages whose mean predictions these are, from 0 to the highest age of the fit."""
        return np.asarray(np.interp(predicted, self.predictions, self.ages), np.float64)


def calibrate_ages(labeller: FaceLabeller, faces: Dataset) -> AgeCalibration:
    """Fit a calibration to the faces of a dataset whose ages are known, not estimated.

    Raises:
        DataError: there are fewer than `LEAST_FACES` of them, or one cannot be read.
    """
    known = [i for i, sample in enumerate(faces.samples) if not sample.estimated]
    if len(known) < LEAST_FACES:
        raise DataError(
            f"{faces.name} has {len(known)} faces of known age in its val split.",
            f"Give a dataset with at least {LEAST_FACES}.",
        )
    predicted = []
    with progress_bar(shown=True) as bar:
        for start in bar.track(range(0, len(known), _BATCH), description="calibrating"):
            crops = [faces.read_crop(i, _SIZE) for i in known[start : start + _BATCH]]
            predicted.append(labeller.predict_ages(np.stack(crops))[0])
    ages = np.array([faces.samples[i].age for i in known], np.float64)
    return fit_age_calibration(np.concatenate(predicted), ages)


def fit_age_calibration(
    predicted: NDArray[np.float64], ages: NDArray[np.float64]
) -> AgeCalibration:
    """Local linear regression of the predictions on the ages, made increasing.

    Args:
        predicted: (N,) years, for real faces.
        ages: (N,) their known ages.
    """
    grid = np.arange(np.floor(np.percentile(ages, 99.5)) + 1)
    fitted = np.array([_local_mean(predicted, ages, age) for age in grid])
    # Where more years do not raise the prediction, the step of 0.01 keeps the inverse defined.
    fitted = np.maximum.accumulate(fitted - 0.01 * grid) + 0.01 * grid
    return AgeCalibration(np.append(-1e-6, grid), np.append(min(0.0, fitted[0] - 0.01), fitted))


def _local_mean(predicted: NDArray[np.float64], ages: NDArray[np.float64], age: float) -> float:
    width = _WIDTH + _WIDTH_PER_YEAR * age
    root = np.exp(-0.25 * ((ages - age) / width) ** 2)  # the root of the weights
    design = np.column_stack([np.ones(len(ages)), ages - age])
    solution, *_ = np.linalg.lstsq(design * root[:, None], predicted * root, rcond=None)
    return float(solution[0])
