"""Correction of the predicted ages of rendered faces."""

from pathlib import Path

import numpy as np
import pytest
from noise_dataset import write_noise

from faceage.data.datasets import open_dataset
from faceage.errors import DataError
from faceage.pairs.calibration import calibrate_ages, fit_age_calibration
from faceage.pairs.labels import FaceLabeller


def make_predictions(count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are exact up to 60 years, and only half of what is above it."""
    random = np.random.default_rng(0)
    ages = random.uniform(0, 90, count)
    predicted = np.where(ages < 60, ages, 60 + (ages - 60) / 2)
    return np.clip(predicted + random.normal(0, 2, count), 0, 100), ages


def test_it_inverts_the_mean_prediction() -> None:
    calibration = fit_age_calibration(*make_predictions())
    corrected = calibration.correct(np.array([10.0, 30, 50, 65, 70, 74]))
    np.testing.assert_allclose(corrected, [10, 30, 50, 70, 80, 88], atol=2)


def test_order_is_kept_and_the_range_is_that_of_the_faces() -> None:
    calibration = fit_age_calibration(*make_predictions(300))
    corrected = calibration.correct(np.linspace(-5, 120, 500))
    assert (np.diff(corrected) >= 0).all()
    assert corrected[0] == pytest.approx(0, abs=1e-3)
    assert 80 < corrected[-1] <= 90


def test_predictions_that_do_not_rise_with_age_keep_an_inverse() -> None:
    ages = np.tile(np.arange(80.0), 5)
    calibration = fit_age_calibration(np.full(len(ages), 40.0), ages)
    assert (np.diff(calibration.predictions) > 0).all()


def test_too_few_faces_are_refused(tmp_path: Path) -> None:
    write_noise(tmp_path)
    with pytest.raises(DataError, match="of known age in its val split"):
        calibrate_ages(FaceLabeller(), open_dataset(tmp_path, "val"))
