"""Contact sheets of aged faces: people of all ages, the best results, and the worst."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from faceage.evaluation.common import Floats, Indices
from faceage.evaluation.evaluators import MAX_ESTIMATE, AgeEvaluator
from faceage.evaluation.methods import AgedBatch, FaceBatch, FolderMethod, Method
from faceage.evaluation.summary import AgedResults
from faceage.imaging.drawing import contact_sheet

AGES = (3.0, 10.0, 20.0, 35.0, 50.0, 65.0, 80.0)  # years, of the sheet of random people
PER_TARGET = 3  # faces at most, for variety
FAR = 20.0  # years between source and target age
TITLES = {
    "random": "people of all ages, drawn at random",
    "best": f"nearest to a target {FAR:g} years away or more",
    "worst": "farthest from the target",
}


def draw_sheets(
    method: Method, aged: AgedResults, evaluator: AgeEvaluator | None, people: int, seed: int
) -> dict[str, tuple[Image.Image, Sequence[float]]]:
    """The contact sheets by kind, each with the ages it shows; a row shows one person.

    "random" has several targets; "best" and "worst", with an age evaluator, one for each person.
    """
    targets: Sequence[float] = AGES
    if isinstance(method, FolderMethod):
        last, count = len(aged.targets) - 1, min(len(aged.targets), len(AGES))
        targets = [aged.targets[round(i)] for i in np.linspace(0, last, count)]
    rows = spread_people(aged.inputs.ages[aged.own], people, seed)
    wanted = {"random": (rows, {f"{age:g} years": np.full(len(rows), age) for age in targets})}
    for kind in ("best", "worst"):
        rows, ages = find_extremes(aged, people, worst=kind == "worst")
        wanted[kind] = rows, {"aged": ages}

    def draw(rows: Indices, columns: dict[str, Floats], title: str) -> Image.Image:
        chosen, every = aged.own[rows], np.ones(len(rows), bool)
        faces = FaceBatch(chosen, aged.inputs.crops(chosen), aged.inputs.ages[chosen])
        results = [AgedBatch(faces.images, every, every), *method.age(faces, [*columns.values()])]
        pictures, captions = [], []
        for ages, result in zip([faces.ages, *columns.values()], results, strict=True):
            shown = zip(result.images, result.found, strict=True)
            pictures.append([image if found else None for image, found in shown])
            texts = [f"{a:g}" if found else "" for a, found in zip(ages, result.found, strict=True)]
            if evaluator:
                predicted = zip(texts, evaluator.ages(result.images), strict=True)
                texts = [text and f"{text}, predicted {age:.0f}" for text, age in predicted]
            captions.append(texts)
        tiles, under = (list(zip(*values, strict=True)) for values in (pictures, captions))
        return contact_sheet(tiles, ["unchanged", *columns], captions=under, title=title)

    sheets: dict[str, tuple[Image.Image, Sequence[float]]] = {}
    for kind, (rows, columns) in wanted.items():
        if len(rows) and columns:
            shown = np.unique(np.concatenate([*columns.values()])).tolist()
            sheets[kind] = draw(rows, columns, f"{method.info.name}: {TITLES[kind]}"), shown
    return sheets


def spread_people(ages: Floats, count: int, seed: int) -> Indices:
    """Indices of `count` faces from young to old, evenly spread over the years, drawn at random.

    The youngest and oldest fiftieth are not aimed at, as their labels are doubtful.
    """
    left = np.random.default_rng([seed, 1]).permutation(len(ages))  # who of one age comes first
    chosen: list[int] = []
    low, high = np.quantile(ages, [0.02, 0.98])
    for wanted in np.linspace(low, high, min(count, len(left))):
        chosen.append(left[np.abs(ages[left] - wanted).argmin()])
        left = left[left != chosen[-1]]
    return np.array(chosen)[np.argsort(ages[chosen], kind="stable")]


def find_extremes(aged: AgedResults, count: int, *, worst: bool) -> tuple[Indices, Floats]:
    """Aged faces and targets where the predicted age is nearest to the target, or farthest off.

    Each face is shown once, and each target at most `PER_TARGET` times. The nearest are only of
    faces with `FAR` years to go, as an unchanged face is near its own age. Targets above the
    evaluator's highest estimate are left out. Without an age evaluator, both are empty.
    """
    if (errors := aged.errors()) is None:
        return np.empty(0, np.intp), np.empty(0)
    errors, targets = np.abs(errors), np.array(aged.sweep)
    usable = np.isfinite(errors) & (targets <= MAX_ESTIMATE)
    if not worst:
        usable &= np.abs(targets - aged.inputs.ages[aged.own][:, None]) >= FAR
    order = np.argsort(errors[usable] * (-1 if worst else 1), kind="stable")
    rows, columns = list[int](), list[int]()
    for row, column in np.argwhere(usable)[order].tolist():
        if len(rows) < count and row not in rows and columns.count(column) < PER_TARGET:
            rows.append(row)
            columns.append(column)
    return np.array(rows, np.intp), targets[np.array(columns, np.intp)]
