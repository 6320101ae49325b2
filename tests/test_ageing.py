"""Figures of aged faces, worked out by hand."""

import numpy as np
import pytest

from faceage.evaluation.ageing import Sent, ageing
from faceage.evaluation.figures import Figures
from faceage.evaluation.measure import Plan

FIGURES = Figures(seed=0)
NAN = np.nan


def sent(plan: Plan, **arrays: list) -> Sent:
    """Three faces: a woman of 20, a man of 70, and somebody of 10 without a gender."""
    each = np.ones((3, len(plan.targets)))
    basis = {"sharp_in": np.ones(3), "sharp": each, "skin_in": np.ones(3), "skin": each}
    return Sent(
        arrays=basis | {name: np.array(values, float) for name, values in arrays.items()},
        plan=plan,
        ages=np.array([20.0, 70, 10]),
        genders=np.array(["F", "M", ""]),
        adult=np.array([True, True, False]),
        own=np.array([0, 1, 2]),
        gallery=np.array([[1, 0], [0, 1], [0.6, 0.8]]),
        real=None,
        real_ages=np.array([]),
    )


def value(figure: dict) -> float:
    return figure["value"]


def test_bands() -> None:
    judged = [[7, 16, 30, 45, 65], [20, 17, 39.4, 30, 49], [14, 15, 50, 41, NAN]]
    plan = Plan((), looks=[7.0, 17.0, 30.0, 45.0, 65.0])
    found = ageing(sent(plan, judged=judged), FIGURES)
    shares = [value(row["judged_in_band"]) for row in found["bands"]]
    assert shares == pytest.approx([2 / 3, 1, 2 / 3, 2 / 3, 1 / 2], abs=1e-5)
    assert [row["judged_in_band"]["count"] for row in found["bands"]] == [3, 3, 3, 3, 2]
    assert [row["target"] for row in found["bands"]] == [7, 17, 30, 45, 65]
    assert value(found["bands"][0]["judged_age"]) == pytest.approx(41 / 3, abs=1e-5)
    assert found["bands"][0]["kernel"] is None
    assert found["kernel_mean"] is None
    assert value(found["by_gender"]["F"]["judged_in_band"]) == 1
    assert value(found["by_gender"]["M"]["judged_in_band"]) == pytest.approx(2 / 5)
    assert set(found["by_gender"]) == {"F", "M"}
    assert found["control"] is None  # there is no sweep in the plan
    assert found["identity"] is None


def test_control() -> None:
    plan = Plan((10.0, 40.0, 80.0), looks=[30.0])  # columns 10, 30, 40, 80
    judged = [[10, 99, 30, 75], [50, 99, 50, 60], [8, 99, NAN, 70]]
    control = ageing(sent(plan, judged=judged), FIGURES)["control"]
    errors = [(0 + 10 + 5) / 3, (40 + 10 + 20) / 3, (2 + 10) / 2]
    assert value(control["error"]) == pytest.approx(np.mean(errors), abs=1e-5)
    assert [row["target"] for row in control["targets"]] == [10, 40, 80]
    assert [row["judged_age"]["count"] for row in control["targets"]] == [3, 2, 3]
    assert value(control["targets"][1]["judged_error"]) == 10
    # Of the two whom no target lacks, the first gets older twice, the second once.
    assert value(control["monotone"]) == pytest.approx(3 / 4)
    assert control["monotone"]["count"] == 2
    assert control["rank_correlation"]["high"] == 1


def test_one_target_has_no_order() -> None:
    control = ageing(sent(Plan((10.0,)), judged=[[10], [50], [8]]), FIGURES)["control"]
    assert control["monotone"] is None
    assert control["rank_correlation"] is None


def test_identity() -> None:
    embedding = [[[1, 0], [0.6, 0.8]], [[0, 1], [0, 1]], [[1, 0], [1, 0]]]
    plan = Plan((), identity=(50.0, 10.0))
    found = ageing(sent(plan, embedding=embedding), FIGURES)
    first, second = found["identity"]["targets"]
    assert (first["target"], second["target"]) == (10, 50)
    assert value(first["top1"]) == 1
    assert first["top1"]["count"] == 2  # the child is not asked for
    assert value(first["similarity"]) == 1
    assert value(second["top1"]) == 0.5  # the woman is taken for the child
    assert value(second["similarity"]) == pytest.approx(0.8)
    assert value(found["identity"]["top1"]) == pytest.approx(0.75)
    assert value(found["by_gender"]["F"]["top1"]) == 0.5


def test_a_result_without_a_face_is_nobody() -> None:
    embedding = [[[NAN, NAN]], [[0, 1]], [[1, 0]]]
    found = ageing(sent(Plan((), identity=(50.0,)), embedding=embedding), FIGURES)
    assert found["identity"]["top1"]["count"] == 1


def test_own_age_and_back() -> None:
    arrays = {"own_l1": [0.1, 0.2, 0.6], "own_lpips": [0, 0, 0.3], "back_l1": [0.5, NAN, 0.7]}
    found = ageing(sent(Plan(()), **arrays), FIGURES)
    assert value(found["reconstruction"]["l1"]) == pytest.approx(0.3)
    assert value(found["reconstruction"]["lpips"]) == pytest.approx(0.1)
    assert value(found["cycle"]["l1"]) == pytest.approx(0.6)
    assert found["cycle"]["lpips"] is None
    assert value(found["by_gender"]["M"]["reconstruction_l1"]) == pytest.approx(0.2)
    assert ageing(sent(Plan(())), FIGURES)["cycle"] is None


def test_sharpness() -> None:
    plan = Plan((30.0,))
    arrays = {"sharp_in": [100, 50, 0], "sharp": [[50], [50], [7]]}
    (row,) = ageing(sent(plan, **arrays), FIGURES)["sharpness"]
    assert value(row["in"]) == 50
    assert value(row["out"]) == 50
    assert value(row["kept"]) == pytest.approx(0.75)  # a flat picture has none to keep
    assert row["kept"]["count"] == 2
    arrays = {"sharp_in": [100, 50, 0], "sharp": [[NAN], [50], [7]]}
    (row,) = ageing(sent(plan, **arrays), FIGURES)["sharpness"]
    assert value(row["in"]) == 25  # of those that were sent


def test_skin() -> None:
    arrays = {"skin_in": [60, 200, 100], "skin": [[90, 80], [195, NAN], [100, 120]]}
    first, second = ageing(sent(Plan((5.0, 30.0)), **arrays), FIGURES)["skin"]
    assert [value(first[key]) for key in ("darkest", "lightest")] == [30, -5]
    assert value(second["darkest"]) == 20
    assert second["lightest"] is None  # his picture has no face


def test_who_is_of_the_age_already_is_not_compared_with_himself() -> None:
    random = np.random.default_rng(0)
    count, plan = 20, Plan((), looks=[7.0, 17.0, 30.0, 45.0, 65.0])
    ages = np.repeat([5.0, 17, 30, 45], 5)
    looks = np.zeros((count, 5, 2))
    looks[:5, 0] = 1000  # children sent to childhood
    looks[5:, 0] = random.normal(0, 1, (15, 2))
    real = np.concatenate([random.normal(0, 1, (8, 2)), np.full((8, 2), 1000)])
    found = ageing(
        Sent(
            arrays={
                "looks": looks,
                **{name: np.ones(count) for name in ("sharp_in", "skin_in")},
                **{name: np.ones((count, 5)) for name in ("sharp", "skin")},
            },
            plan=plan,
            ages=ages,
            genders=np.full(count, ""),
            adult=ages >= 15,
            own=np.arange(count),
            gallery=None,
            real=real,
            real_ages=np.repeat([6.0, 20], 8),
        ),
        FIGURES,
    )
    child, *_, old = found["bands"]
    assert child["kernel"]["count"] == child["frechet"]["count"] == 15
    assert abs(child["kernel"]["value"]) < 2
    assert old["kernel"] is None  # no real faces of that band
    assert found["kernel_mean"] is None  # not of all bands
    assert child["judged_in_band"] is None
