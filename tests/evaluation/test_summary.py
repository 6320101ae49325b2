"""Estimates, computed by hand from values per face."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from faceage.ages import GROUP_NAMES, YEARS, group_of
from faceage.evaluation.results import RANGES, Estimate, MethodInfo, MethodResult
from faceage.evaluation.summary import AgedResults, Summarizer, contain

NAN = np.nan
INFO = MethodInfo("stub", "weights", "stub.safetensors")
RANGE_TARGETS = [7.0, 17.0, 30.0, 45.0, 65.0]


@dataclass
class Labels:
    """The labels of `Inputs`."""

    ages: np.ndarray
    groups: np.ndarray
    exact: np.ndarray
    genders: np.ndarray

    def __len__(self) -> int:
        return len(self.ages)


def labelled(ages: list, exact: bool = True, genders: list[str] | None = None) -> Any:
    """Inputs of these ages, women and men in turn."""
    return Labels(
        ages=np.array(ages, float),
        groups=np.array([group_of(age) for age in ages], np.intp),
        exact=np.full(len(ages), exact),
        genders=np.array(genders or ["FM"[i % 2] for i in range(len(ages))]),
    )


def summarizer(inputs: Any) -> Summarizer:
    return Summarizer(inputs, seed=0)


def certain(ages: list[int]) -> np.ndarray:
    """Distributions over years with one year each."""
    return np.eye(YEARS)[ages]


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


# --- estimates -------------------------------------------------------------------------------


def test_an_estimate_leaves_nan_out() -> None:
    make = summarizer(labelled([]))
    assert make.mean(np.array([NAN, 2.0, 4.0])) == Estimate(3, 2, 4, 2)
    assert value(make.mean(np.array([1, 2, 9]), statistic=np.median)) == 2
    assert make.mean(np.array([NAN])) is None
    assert make.mean(np.array([])) is None


def test_an_estimate_of_two_samples() -> None:
    make = summarizer(labelled([]))
    a, b = np.array([10.0, 20, NAN]), np.array([1.0, 1, 1])
    found = make.mean(a, b, statistic=lambda x, y, axis: x.mean(axis) - y.mean(axis))
    assert found == Estimate(14, 9, 19, 2)
    assert make.mean(a, np.array([])) is None


def test_the_kernel_distance_has_an_interval() -> None:
    make, random = summarizer(labelled([])), np.random.default_rng(0)
    near, same, far = random.normal(0, 1, (3, 60, 2))
    far += 3
    alike, apart = make.kernel(near, same), make.kernel(near, far)
    assert alike.low < 0 < alike.high
    assert 0 < apart.low < apart.value < apart.high
    assert apart.count == 60
    assert make.kernel(near, far) == apart
    assert make.kernel(near[:3], far) is None


def test_every_age_is_in_one_range() -> None:
    ages = np.array([0, 14, 14.4, 14.6, 19.4, 19.6, 39, 40, 49.4, 49.6, 116])
    inside = np.stack([contain(span, ages) for span in RANGES])
    assert inside.sum(0).tolist() == [1] * len(ages)
    assert inside.argmax(0).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert np.isnan(contain(RANGES[0], np.array([NAN]))).all()
    assert all(contain(span, np.array([span.target])) == 1 for span in RANGES)


# --- age estimation --------------------------------------------------------------------------


def estimate(years: np.ndarray, inputs: Any, degraded: dict | None = None) -> tuple[dict, dict]:
    make = summarizer(inputs)
    return make.estimation(years, degraded or {}, np.arange(len(inputs.ages))[-2:])


def test_age_estimation() -> None:
    scores, fields = estimate(certain([5, 25, 52, 69]), labelled([5, 25, 45, 70]))
    assert scores["accuracy"].tolist() == [1, 1, 0, 0]  # 52 for 45, 69 for 70: other groups
    assert scores["within_one_group"].tolist() == [1, 1, 1, 1]
    assert scores["mae"].tolist() == [0, 0, 7, 1]
    assert np.isnan(scores["oldest_bias"]).tolist() == [True, True, True, False]
    assert scores["oldest_bias"][3] == -1
    groups = {row.name: row for row in fields["groups"]}
    assert list(groups) == list(GROUP_NAMES)
    recall = {name: row.accuracy and row.accuracy.value for name, row in groups.items()}
    expected = dict.fromkeys(GROUP_NAMES) | {"3-6": 1, "20-29": 1, "40-49": 0, "70+": 0}
    assert recall == expected
    assert value(groups["40-49"].bias) == 7
    assert value(groups["70+"].bias) == -1
    confusion = np.array(fields["confusion"])
    assert [tuple(place) for place in np.argwhere(confusion)] == [(1, 1), (5, 5), (7, 8), (9, 8)]


def test_calibration() -> None:
    """Uniform over the years 20-29: the middle half is from 22 to 27, 80 % from 20.5 to 28.5."""
    uniform = np.zeros((4, YEARS))
    uniform[:, 20:30] = 0.1
    _, fields = estimate(uniform, labelled([25, 22, 28, 40]))
    rows = {row.name: row for row in fields["intervals"]}
    coverage = {name: value(row.coverage) for name, row in rows.items()}
    assert coverage == {"50 %": 0.5, "80 %": 0.75, "90 %": 0.75}
    assert [value(row.width) for row in rows.values()] == pytest.approx([5, 8, 9])


def test_group_labels_have_no_errors_in_years() -> None:
    scores, fields = estimate(certain([25, 40]), labelled([24.5, 24.5], exact=False))
    assert scores["accuracy"].tolist() == [True, False]
    assert np.isnan(scores["mae"]).all()
    assert [row.coverage for row in fields["intervals"]] == [None, None, None]
    assert all(row.bias is None for row in fields["groups"])


def test_robustness() -> None:
    inputs = labelled([5, 25, 45, 70])
    degraded = {"none": certain([45, 70]), "grey": certain([41, 60])}  # of the last two faces
    _, fields = estimate(certain([5, 25, 45, 70]), inputs, degraded)
    none, grey = fields["robustness"]
    assert (none.name, grey.name) == ("none", "grey")
    assert value(none.accuracy) == 1
    assert value(none.mae) == 0
    assert value(none.coverage) == 1
    assert value(grey.accuracy) == 0.5
    assert value(grey.within_one_group) == 1
    assert value(grey.mae) == 7
    assert value(grey.coverage) == 0
    assert grey.mae.count == 2


def test_the_age_evaluator_on_real_faces() -> None:
    groups, ranges = summarizer(labelled([5, 25, 45, 70])).real(np.array([5.0, 25, 52, 69]))
    rows = {row.name: row for row in groups}
    assert value(rows["all"].mae) == pytest.approx(2)
    assert value(rows["all"].label) == pytest.approx(36.25)
    assert value(rows["all"].bias) == pytest.approx(1.5)
    assert value(rows["40-49"].predicted) == 52
    assert value(rows["40-49"].label) == 45
    assert rows["0-2"].mae is None
    inside = {row.name: row.in_range and row.in_range.value for row in ranges}
    assert inside == {"0-14": 1, "15-19": None, "20-39": 1, "40-49": 0, "50+": 1}


# --- aged faces ------------------------------------------------------------------------------


def aged(targets: list[float], sweep: list[float] = (), **values: Any) -> MethodResult:
    """Results of three faces: a woman of 20, a man of 70, and a child of 10 without a gender.

    Args:
        values: by name; those of a target as {target: values}.
    """
    arrays: dict = {"sharpness": np.ones(3), "skin": np.ones(3)}
    arrays |= {(name, t): np.ones(3) for name in ("sharpness", "skin") for t in targets}
    real = {"embedding": np.array([[1, 0], [0, 1], [0.6, 0.8]])}
    real["predicted_age"] = np.array([22.0, 64, 12])
    for name, given in values.items():
        of_targets = given.items() if isinstance(given, dict) else [(None, given)]
        for target, each in of_targets:
            arrays[name if target is None else (name, target)] = np.array(each, float)
    inputs = labelled([20, 70, 10], genders=["F", "M", ""])
    results = AgedResults(arrays, targets, sweep, np.arange(3), real, inputs)
    return summarizer(inputs).aged(results, {}, info=INFO)


def test_ranges() -> None:
    predicted = {
        7.0: [7, 20, 14],
        17.0: [16, 17, 15],
        30.0: [30, 39.4, 50],
        45.0: [45, 30, 41],
        65.0: [65, 49, NAN],
    }
    found = aged(RANGE_TARGETS, predicted_age=predicted)
    rows = found.ranges[:-1]
    assert [row.name for row in rows] == ["0-14", "15-19", "20-39", "40-49", "50+"]
    fractions = [value(row.in_range) for row in rows]
    assert fractions == pytest.approx([2 / 3, 1, 2 / 3, 2 / 3, 1 / 2], abs=1e-5)
    assert [row.in_range.count for row in rows] == [3, 3, 3, 3, 2]
    assert value(rows[0].predicted_age) == pytest.approx(41 / 3, abs=1e-5)
    assert rows[0].kernel_distance is None
    assert found.ranges[-1].name == "mean"
    assert found.ranges[-1].kernel_distance is None
    assert value(found.genders["F"].in_range) == 1
    assert value(found.genders["M"].in_range) == pytest.approx(2 / 5)
    assert set(found.genders) == {"F", "M"}
    assert found.scores.control_mae is None  # no sweep
    assert found.scores.top1 is None


def test_control() -> None:
    predicted = {
        10.0: [10, 50, 8],
        30.0: [99, 99, 99],  # not of the sweep
        40.0: [30, 50, NAN],
        80.0: [75, 60, 70],
    }
    found = aged([10.0, 30.0, 40.0, 80.0], [10.0, 40.0, 80.0], predicted_age=predicted)
    errors = [(0 + 10 + 5) / 3, (40 + 10 + 20) / 3, (2 + 10) / 2]
    assert value(found.scores.control_mae) == pytest.approx(np.mean(errors), abs=1e-5)
    assert [row.target for row in found.targets] == [10, 30, 40, 80]
    assert [row.predicted_age.count for row in found.targets] == [3, 3, 2, 3]
    assert value(found.targets[2].mae) == 10
    # Of the two with all results, the first rises twice, the second once.
    assert value(found.scores.rising) == pytest.approx(3 / 4)
    assert found.scores.rising.count == 2
    assert found.scores.rank_correlation.high == 1


def test_one_target_has_no_order() -> None:
    found = aged([10.0], [10.0], predicted_age={10.0: [10, 50, 8]})
    assert found.scores.control_mae is not None
    assert found.scores.rising is None
    assert found.scores.rank_correlation is None


def test_bias_against_real_faces() -> None:
    """Real faces within 3 years of the target: that of 20, whose predicted age is 22."""
    found = aged([23.0, 40.0], predicted_age={23.0: [30, 26, NAN], 40.0: [40, 40, 40]})
    near, none = found.targets
    assert value(near.real_age) == 22
    assert value(near.bias) == 28 - 22
    assert (near.bias.low, near.bias.high) == (4, 8)
    assert none.real_age is None  # no real face is near 40
    assert none.bias is None
    assert value(none.predicted_age) == 40


def test_identity() -> None:
    embedding = {
        10.0: [[1, 0], [0, 1], [1, 0]],
        50.0: [[0.6, 0.8], [0, 1], [1, 0]],
    }
    found = aged([10.0, 50.0], embedding=embedding)
    first, second = found.targets
    assert value(first.top1) == 1
    assert first.top1.count == 2  # adults only
    assert value(first.similarity) == 1
    assert value(second.top1) == 0.5  # the woman is most similar to the child
    assert value(second.similarity) == pytest.approx(0.8)
    assert value(found.scores.top1) == pytest.approx(0.75)
    assert value(found.genders["F"].top1) == 0.5


def test_identity_is_unknown_without_an_embedding() -> None:
    found = aged([50.0], embedding={50.0: [[NAN, NAN], [0, 1], [1, 0]]})
    assert found.scores.top1.count == 1


def test_gender_kept() -> None:
    """Women and men in turn, 70 of each, who differ in the second number of the embedding."""
    count = 140
    inputs = labelled([40] * count)
    inputs.ages[4] = 8  # a girl
    inputs.genders[7] = ""
    angle = 0.5 * np.where(np.arange(count) % 2, 1, -1) + 0.1 * np.cos(np.arange(count))
    angle[10] *= -1  # a woman who does not show it
    real = np.stack([np.cos(angle), np.sin(angle)], 1)
    own = np.arange(12)
    kept, changed = real[own], real[own].copy()
    changed[[0, 3, 4, 7, 10]] *= [1, -1]
    changed[2] = NAN
    flat = dict.fromkeys(("sharpness", "skin"), np.ones(len(own)))
    arrays = dict(flat) | {
        (name, target): flat[name] for target in (5.0, 30.0, 50.0) for name in flat
    }
    arrays |= {("embedding", t): rows for t, rows in ((5.0, kept), (30.0, changed), (50.0, kept))}
    found = AgedResults(arrays, [5.0, 30.0, 50.0], [30.0, 50.0], own, {"embedding": real}, inputs)
    result = summarizer(inputs).aged(found, {}, info=INFO)
    child, first, second = result.targets
    assert child.women is child.men is None
    assert (first.women.count, first.men.count) == (3, 5)  # faces 0, 6, 8; and 1, 3, 5, 9, 11
    assert value(first.women) == pytest.approx(2 / 3, abs=1e-5)
    assert value(first.men) == pytest.approx(4 / 5)
    assert value(second.women) == value(second.men) == 1
    assert value(result.scores.gender) == pytest.approx((7 * 1 + 2 * 0.5) / 9, abs=1e-5)
    few = AgedResults(arrays, [30.0], [30.0], own, {"embedding": real[:80]}, labelled([40] * 80))
    assert few.gender_kept(30.0) is None


def test_the_score_of_identity_is_of_its_own_targets() -> None:
    retrieved, confused = [[1, 0], [0, 1], [1, 0]], [[0, 1], [1, 0], [1, 0]]
    found = aged([10.0, 20.0], embedding={10.0: retrieved, 20.0: confused})
    assert value(found.scores.top1) == 1
    assert value(found.targets[1].top1) == 0


def test_reconstructions() -> None:
    found = aged(
        [],
        reconstruction_l1=[0.1, 0.2, 0.6],
        reconstruction_lpips=[0, 0, 0.3],
        cycle_l1=[0.5, NAN, 0.7],
    )
    assert value(found.scores.reconstruction_l1) == pytest.approx(0.3)
    assert value(found.scores.reconstruction_lpips) == pytest.approx(0.1)
    assert value(found.scores.cycle_l1) == pytest.approx(0.6)
    assert found.scores.cycle_lpips is None
    assert value(found.genders["M"].reconstruction_l1) == pytest.approx(0.2)
    assert aged([]).scores.cycle_l1 is None


def test_scores_of_age_estimation_are_added() -> None:
    inputs = labelled([20, 70, 10], genders=["F", "M", ""])
    arrays = {"sharpness": np.ones(1), "skin": np.ones(1), "reconstruction_l1": np.array([0.5])}
    results = AgedResults(arrays, [], [], np.array([1]), {}, inputs)  # only the man is aged
    estimation = {"mae": np.array([1.0, 2, 6])}
    found = summarizer(inputs).aged(results, estimation, info=INFO, sheets={"random": "a.jpg"})
    assert value(found.scores.mae) == 3
    assert value(found.genders["F"].mae) == 1
    assert value(found.scores.reconstruction_l1) == 0.5
    assert found.genders["F"].reconstruction_l1 is None
    assert value(found.genders["M"].reconstruction_l1) == 0.5
    assert found.sheets == {"random": "a.jpg"}
    assert found.info == INFO


def test_sharpness() -> None:
    (row,) = aged([30.0], sharpness={None: [100, 50, 0], 30.0: [50, 50, 7]}).targets
    assert value(row.sharpness_before) == 50
    assert value(row.sharpness_after) == 50
    assert value(row.sharpness_ratio) == pytest.approx(0.75)  # that of a flat picture is undefined
    assert row.sharpness_ratio.count == 2
    (row,) = aged([30.0], sharpness={None: [100, 50, 0], 30.0: [NAN, 50, 7]}).targets
    assert value(row.sharpness_before) == 25  # of faces with a result


def test_skin() -> None:
    skin = {None: [60, 200, 100], 5.0: [90, 195, 100], 30.0: [80, NAN, 120]}
    first, second = aged([5.0, 30.0], skin=skin).targets
    assert (value(first.skin_darkest), value(first.skin_lightest)) == (30, -5)
    assert value(second.skin_darkest) == 20
    assert second.skin_lightest is None


def test_a_face_of_a_range_is_not_compared_with_its_own_picture() -> None:
    random, count = np.random.default_rng(0), 20
    ages = np.concatenate([np.repeat([5.0, 17, 30, 45], 5), np.repeat([6.0, 20], 8)])
    inputs = labelled(ages.tolist())
    made = random.normal(0, 1, (count, 2))
    made[:5] = 1000  # children aged to 7
    real = np.concatenate([made, random.normal(0, 1, (8, 2)), np.full((8, 2), 1000)])
    real[:5] = real[20:25]
    arrays: dict = {name: np.ones(count) for name in ("sharpness", "skin")}
    names = ("features", "crop_features", "inception")
    arrays |= {(name, 7.0): made for name in names}
    results = AgedResults(arrays, [], [], np.arange(count), dict.fromkeys(names, real), inputs)
    child, *_, oldest, mean = summarizer(inputs).aged(results, {}, info=INFO).ranges
    for name in ("kernel_distance", "crop_kernel_distance", "frechet_distance", "kid", "fid"):
        assert getattr(child, name).count == 15
        assert abs(getattr(child, name).value) < 10  # with a child at 1000, far more
        assert getattr(oldest, name) is None  # no real faces of that range
        assert getattr(mean, name) is None  # not all ranges are known
    assert child.in_range is None


def test_the_mean_of_the_ranges() -> None:
    random = np.random.default_rng(0)
    inputs = labelled(np.repeat(RANGE_TARGETS, 6).tolist())
    features, count = random.normal(0, 1, (30, 2)), 30
    arrays: dict = {name: np.ones(count) for name in ("sharpness", "skin")}
    arrays |= {("features", target): features + target for target in RANGE_TARGETS}
    results = AgedResults(arrays, [], [], np.arange(count), {"features": features}, inputs)
    *rows, mean = summarizer(inputs).aged(results, {}, info=INFO).ranges
    expected = np.mean([value(row.kernel_distance) for row in rows])
    assert mean.kernel_distance == Estimate(pytest.approx(expected))
    assert mean.in_range is None
