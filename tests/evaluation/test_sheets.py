"""The faces on the contact sheets, and what stands beside them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stand_ins import BrightnessEvaluator, make_dataset, open_inputs, stub_method

from faceage.evaluation.methods import FolderMethod
from faceage.evaluation.sheets import draw_sheets, find_extremes, spread_people
from faceage.evaluation.summary import AgedResults


def results(ages: list, targets: list[float], predicted: list, inputs: Any = None) -> AgedResults:
    """Aged faces; `predicted` has a row for each face."""
    inputs = inputs or SimpleNamespace(ages=np.array(ages, float))
    columns = dict(zip(targets, np.array(predicted, float).T, strict=False))
    arrays: dict = {("predicted_age", target): column for target, column in columns.items()}
    return AgedResults(arrays, targets, targets, np.arange(len(ages)), {}, inputs)


def cases(aged: AgedResults, count: int, *, worst: bool) -> list[tuple[int, float]]:
    rows, targets = find_extremes(aged, count, worst=worst)
    return list(zip(rows.tolist(), targets.tolist(), strict=True))


def test_people_of_all_ages() -> None:
    ages = np.concatenate([np.full(500, 25.0), np.arange(0.0, 90)])
    people = spread_people(ages, 6, seed=0)
    assert len(set(people.tolist())) == 6
    found = ages[people]
    assert (np.diff(found) > 0).all()
    assert found[0] <= 12
    assert found[-1] > 70
    assert spread_people(ages, 6, seed=0).tolist() == people.tolist()
    assert len(spread_people(ages[:3], 6, seed=0)) == 3
    alike = {int(spread_people(np.full(500, 25.0), 1, seed)[0]) for seed in range(8)}
    assert len(alike) > 4  # not always the first ones of the file


def test_worst_and_best() -> None:
    aged = results([30, 40, 60], [10.0, 70.0], [[30, 68], [35, 50], [11, np.nan]])
    assert cases(aged, 9, worst=True) == [(1, 10), (0, 10), (2, 10)]  # each face once
    assert cases(aged, 9, worst=False) == [(2, 10), (0, 70), (1, 70)]
    assert cases(aged, 1, worst=True) == [(1, 10)]


def test_a_face_near_the_target_is_no_best_case() -> None:
    aged = results([65, 30], [70.0], [[70], [60]])
    assert cases(aged, 9, worst=False) == [(1, 70)]
    assert len(cases(aged, 9, worst=True)) == 2


def test_a_target_is_shown_a_few_times() -> None:
    aged = results([30] * 5, [10.0, 20.0, 85.0], [[80, 40, 0]] * 5)
    found = cases(aged, 9, worst=True)
    assert [target for _, target in found] == [10, 10, 10, 20, 20]  # 85 cannot be predicted


def test_no_cases_without_an_age_evaluator() -> None:
    assert cases(results([30], [10.0], []), 9, worst=True) == []


class Sheets(list):
    """What would be drawn."""

    def __call__(self, rows, columns=(), *, captions=(), title=""):
        levels = [[None if c is None else int(c[0, 0, 0]) for c in row] for row in rows]
        self.append((levels, list(columns), [list(c) for c in captions], title))
        return self[-1]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Sheets:
    sheets = Sheets()
    monkeypatch.setattr("faceage.evaluation.sheets.contact_sheet", sheets)
    return sheets


def test_sheets(tmp_path: Path, drawn: Sheets) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10, 20, 30], [10, 20, 30]))
    aged = results([10, 20, 30], [10.0, 40.0], [[22, 61], [33, 71], [43, 81]], inputs)
    sheets = draw_sheets(stub_method(), aged, BrightnessEvaluator(), 2, seed=0)
    assert [(kind, ages) for kind, (_, ages) in sheets.items()] == [
        ("random", [3, 10, 20, 35, 50, 65, 80]),
        ("best", [40]),
        ("worst", [40]),
    ]
    random, best, worst = drawn
    levels, columns, captions, title = random
    assert columns == ["unchanged", "3 years", *(f"{a} years" for a in (10, 20, 35, 50, 65, 80))]
    assert len(levels) == 2
    assert levels[0][:3] == [10, 14, 23]  # 10 + 0.03 and 0.1 of 127.5 levels
    assert captions[0][:2] == ["10, predicted 10", "3, predicted 14"]
    assert title == "stub: people of all ages, drawn at random"
    levels, columns, captions, title = best
    assert levels == [[10, 61], [20, 71]]  # 30 is too near to both targets
    assert columns == ["unchanged", "aged"]
    assert captions[0] == ["10, predicted 10", "40, predicted 61"]
    assert title == "stub: nearest to a target 20 years away or more"
    levels, _, captions, title = worst
    assert levels == [[30, 81], [20, 71]]
    assert title == "stub: farthest from the target"


def test_sheets_without_an_age_evaluator(tmp_path: Path, drawn: Sheets) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10, 20, 30], [10, 20, 30]))
    sheets = draw_sheets(stub_method(), results([10, 20, 30], [], [], inputs), None, 1, seed=0)
    assert list(sheets) == ["random"]
    assert drawn[0][2][0][:3] == ["10", "3", "10"]


class Pictures(FolderMethod):
    """Has one result, without a face."""

    def __init__(self) -> None:
        self.info = stub_method().info

    def age(self, faces, targets):
        for aged in stub_method().age(faces, targets):
            yield aged._replace(found=np.zeros(len(faces.images), bool))


def test_sheets_of_a_folder_have_its_targets(tmp_path: Path, drawn: Sheets) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10], [10]))
    for targets, shown in (
        ([5.0, 70.0], [5, 70]),
        ([float(age) for age in range(0, 90, 5)], [0, 15, 30, 40, 55, 70, 85]),
    ):
        aged = results([10], targets, [], inputs)
        sheets = draw_sheets(Pictures(), aged, BrightnessEvaluator(), 1, seed=0)
        assert sheets["random"][1] == shown
    levels, _, captions, _ = drawn[0]
    assert levels == [[10, None, None]]
    assert captions == [["10, predicted 10", "", ""]]
    assert draw_sheets(Pictures(), results([10], [], [], inputs), None, 1, seed=0) == {}
