"""Who is on the contact sheets."""

from pathlib import Path

import numpy as np
import pytest
from stand_ins import BrightnessJudge, make_dataset, open_inputs, stub_system

from faceage.evaluation.ageing import Sent
from faceage.evaluation.measure import Plan
from faceage.evaluation.sheets import cases_sheet, extremes, people_sheet, sheet_ages, spread
from faceage.evaluation.systems import Weights


def sent(ages: list, targets: list[float], judged: list) -> Sent:
    count = len(ages)
    return Sent(
        arrays={"judged": np.array(judged, float)} if judged else {},
        plan=Plan(tuple(targets)),
        ages=np.array(ages, float),
        genders=np.full(count, ""),
        adult=np.ones(count, bool),
        own=np.arange(count),
        gallery=None,
        real=None,
        real_ages=np.array([]),
    )


def test_people_of_all_ages() -> None:
    ages = np.concatenate([np.full(500, 25.0), np.arange(0.0, 90)])
    people = spread(ages, 6, seed=0)
    assert len(set(people.tolist())) == 6
    found = ages[people]
    assert (np.diff(found) > 0).all()
    assert found[0] < 12
    assert found[-1] > 70
    assert spread(ages, 6, seed=0).tolist() == people.tolist()
    assert spread(ages, 6, seed=1).tolist() != people.tolist()
    assert len(spread(ages[:3], 6, seed=0)) == 3
    alike = {int(spread(np.full(500, 25.0), 1, seed)[0]) for seed in range(8)}
    assert len(alike) > 4  # not always the first ones of the file


def test_people_of_unknown_ages() -> None:
    assert len(set(spread(np.full(9, np.nan), 6, seed=0).tolist())) == 6
    some = np.array([np.nan, 30, np.nan, 50])
    assert spread(some, 6, seed=0).tolist() == [1, 3]


def test_worst_and_best() -> None:
    faces = sent([30, 40, 60], [10.0, 70.0], [[30, 68], [35, 50], [11, np.nan]])
    assert extremes(faces, 9, worst=True) == [(1, 10), (0, 10), (2, 10)]  # each face once
    assert extremes(faces, 9, worst=False) == [(2, 10), (0, 70), (1, 70)]
    assert extremes(faces, 1, worst=True) == [(1, 10)]


def test_who_has_not_far_to_go_is_no_success() -> None:
    faces = sent([65, 30, np.nan], [70.0], [[70], [60], [71]])
    assert extremes(faces, 9, worst=False) == [(2, 70), (1, 70)]  # unknown ages are let through
    assert len(extremes(faces, 9, worst=True)) == 3


def test_a_target_is_not_shown_over_and_over() -> None:
    faces = sent([30] * 5, [10.0, 20.0, 85.0], [[80, 40, 0]] * 5)
    cases = extremes(faces, 9, worst=True)
    assert [target for _, target in cases] == [10, 10, 10, 20, 20]  # 85 cannot be confirmed


def test_no_cases_without_a_judge() -> None:
    assert extremes(sent([30], [10.0], []), 9, worst=True) == []


def test_ages_of_the_sheet() -> None:
    assert sheet_ages(stub_system(), Plan((5.0,))) == [3, 10, 20, 35, 50, 65, 80]

    class Few(Weights):
        available = np.array([0])

    few = Few.__new__(Few)
    assert sheet_ages(few, Plan((5.0, 70.0))) == [5, 70]
    assert sheet_ages(few, Plan(())) == []
    many = sheet_ages(few, Plan(tuple(float(age) for age in range(0, 90, 5))))
    assert (len(many), many[0], many[-1]) == (7, 0, 85)


def test_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10, 20, 30], [10, 20, 30]))
    said: list = []

    def note(rows, columns=(), labels=(), *, captions=(), title=""):
        said.append((rows, list(columns), list(labels), [list(c) for c in captions], title))

    monkeypatch.setattr("faceage.evaluation.sheets.contact_sheet", note)
    people_sheet(stub_system(), inputs, np.array([0, 2]), [0.0, 40.0], BrightnessJudge())
    rows, columns, labels, captions, title = said[-1]
    assert [[int(face[0, 0, 0]) for face in row] for row in rows] == [[10, 10, 61], [30, 30, 81]]
    assert columns == ["unchanged", "0 years", "40 years"]
    assert labels == ["10", "30"]
    assert captions == [
        ["judged 10", "judged 10", "judged 61"],
        ["judged 30", "judged 30", "judged 81"],
    ]
    assert title.startswith("stub:")
    people_sheet(stub_system(), inputs, np.array([0]), [40.0], None)
    assert said[-1][3] == []

    faces = sent([30, 10], [40.0], [[66.4], [61]])
    chosen = np.array([2, 0])
    cases_sheet(stub_system(), inputs, chosen, faces, [(1, 40.0), (0, 40.0)], "some")
    rows, _, _, captions, title = said[-1]
    assert [[int(face[0, 0, 0]) for face in row] for row in rows] == [[10, 61, 30, 81]]
    assert captions == [["is 10", "to 40, judged 61", "is 30", "to 40, judged 66"]]
    assert title == "stub: some"
