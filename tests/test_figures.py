"""Figures of faces as they are, worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from faceage.ages import GROUP_NAMES, YEARS, group_of
from faceage.evaluation.figures import BANDS, Figures, classification, judged_unchanged

FIGURES = Figures(seed=0)


def labelled(ages: list, exact: bool = True) -> SimpleNamespace:
    """Inputs of these ages, women and men in turn."""
    return SimpleNamespace(
        ages=np.array(ages, float),
        groups=np.array([group_of(age) for age in ages]),
        exact=np.full(len(ages), exact),
        genders=np.array(["FM"[i % 2] for i in range(len(ages))]),
    )


def sure(ages: list[int]) -> np.ndarray:
    """Distributions over years of somebody who has no doubts."""
    return np.eye(YEARS)[ages]


def test_classification() -> None:
    found, by_gender = classification(sure([5, 25, 52, 69]), labelled([5, 25, 45, 70]), FIGURES)
    assert found["accuracy"]["value"] == 0.5  # 52 for 45 and 69 for 70 are in other groups
    assert found["within_one_group"]["value"] == 1
    assert found["mae"]["value"] == pytest.approx((7 + 1) / 4)
    recall = {name: figure and figure["value"] for name, figure in found["recall"].items()}
    expected = dict.fromkeys(GROUP_NAMES) | {"3-6": 1, "20-29": 1, "40-49": 0, "70+": 0}
    assert recall == expected
    confusion = np.array(found["confusion"])
    assert [tuple(place) for place in np.argwhere(confusion)] == [(1, 1), (5, 5), (7, 8), (9, 8)]
    for name in ("accuracy", "mae"):
        figure = found[name]
        assert figure["count"] == 4
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert by_gender["F"]["accuracy"]["value"] == 0.5
    assert by_gender["M"]["mae"]["value"] == pytest.approx(0.5)


def test_calibration() -> None:
    """Even over the years 20-29: the middle half reaches from 22 to 27, 80 % from 20.5 to 28.5."""
    even = np.zeros((4, YEARS))
    even[:, 20:30] = 0.1
    found, _ = classification(even, labelled([25, 22, 28, 40]), FIGURES)
    rows = {row["share"]: row for row in found["calibration"]}
    assert {share: row["inside"]["value"] for share, row in rows.items()} == {
        0.5: 0.5,
        0.8: 0.75,
        0.9: 0.75,
    }
    widths = [row["width"]["value"] for row in rows.values()]
    assert widths == pytest.approx([5, 8, 9])


def test_groups_alone_have_no_errors_in_years() -> None:
    found, _ = classification(sure([25, 40]), labelled([24.5, 24.5], exact=False), FIGURES)
    assert found["accuracy"]["value"] == 0.5
    assert found["mae"] is None
    assert [row["inside"] for row in found["calibration"]] == [None, None, None]


def test_the_judge_on_unchanged_faces() -> None:
    found = judged_unchanged(np.array([5.0, 25, 52, 69]), labelled([5, 25, 45, 70]), FIGURES)
    assert found["all"]["mae"]["value"] == pytest.approx(2)
    assert found["all"]["label"]["value"] == pytest.approx(36.25)
    assert found["groups"]["40-49"]["judged"]["value"] == 52
    assert found["groups"]["40-49"]["label"]["value"] == 45
    assert found["groups"]["0-2"]["mae"] is None
    bands = {name: figure and figure["value"] for name, figure in found["bands"].items()}
    assert bands == {"0-14": 1, "15-19": None, "20-39": 1, "40-49": 0, "50+": 1}


def test_bands_hold_every_age_once() -> None:
    ages = np.array([0, 14, 14.4, 14.6, 19.4, 19.6, 39, 40, 49.4, 49.6, 116])
    held = np.stack([band.holds(ages) for band in BANDS])
    assert held.sum(0).tolist() == [1] * len(ages)
    assert held.argmax(0).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert np.isnan(BANDS[0].holds(np.array([np.nan]))).all()
    assert all(band.holds(np.array([band.target])) == 1 for band in BANDS)


def test_a_figure_leaves_out_what_is_not_known() -> None:
    assert FIGURES.of(np.array([np.nan, 2.0, 4.0]))["value"] == 3
    assert FIGURES.of(np.array([np.nan, 2.0, 4.0]))["count"] == 2
    assert FIGURES.of(np.array([1, 2, 9]), np.median)["value"] == 2
    assert FIGURES.of(np.array([np.nan])) is None
    assert FIGURES.of(np.array([])) is None
    assert FIGURES.of(None) is None


def test_the_kernel_distance_has_an_interval() -> None:
    random = np.random.default_rng(0)
    near, same, far = random.normal(0, 1, (3, 60, 2))
    far += 3
    alike, apart = FIGURES.kernel(near, same), FIGURES.kernel(near, far)
    assert alike["low"] < 0 < alike["high"]
    assert 0 < apart["low"] < apart["value"] < apart["high"]
    assert apart["count"] == 60
    assert FIGURES.kernel(near, far) == apart
    assert FIGURES.kernel(near[:3], far) is None
