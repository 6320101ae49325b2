"""Contact sheets of aged faces: people of all ages, successes, and the worst cases."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceage.evaluation.ageing import Sent
from faceage.evaluation.evaluators import AgeJudge
from faceage.evaluation.inputs import Indices, Inputs
from faceage.evaluation.measure import Plan
from faceage.evaluation.systems import Crops, System
from faceage.imaging.drawing import contact_sheet

AGES = (3.0, 10.0, 20.0, 35.0, 50.0, 65.0, 80.0)  # years, of the sheet of random people
NEAREST = 10  # a person is drawn from so many whose age is nearest to the one wanted
ABREAST = 4  # cases to a line
PER_TARGET = 3  # cases at most, so that not all of a sheet shows the same
FAR = 20.0  # years between the own age and the target, at least, of what is called a success


def people_sheet(
    system: System,
    inputs: Inputs,
    people: Indices,
    targets: Sequence[float],
    judge: AgeJudge | None,
) -> Image.Image:
    """People unchanged and at every target, the judge's word under each picture.

    Args:
        people: their places among the inputs, a row each.
    """
    faces = _crops(system, inputs, people)
    columns: list[list[NDArray | None]] = [list(faces.images)]
    captions = [_words(judge, faces.images, np.ones(len(faces), bool))]
    for aged in system.age(faces, [np.full(len(faces), age) for age in targets]):
        pairs = zip(aged.images, aged.found, strict=True)
        columns.append([image if found else None for image, found in pairs])
        captions.append(_words(judge, aged.images, aged.found))
    return contact_sheet(
        list(zip(*columns, strict=True)),
        ["unchanged", *(f"{age:g} years" for age in targets)],
        [f"{age:.0f}" if np.isfinite(age) else "?" for age in faces.ages],
        captions=list(zip(*captions, strict=True)) if judge else (),
        title=f"{system.name}: people of all ages, drawn at random",
    )


def cases_sheet(
    system: System,
    inputs: Inputs,
    chosen: Indices,
    sent: Sent,
    cases: Sequence[tuple[int, float]],
    title: str,
) -> Image.Image:
    """Cases in pairs: the face as it is with its own age, and aged with target and judged age.

    Args:
        chosen: (N,) places among the inputs of the faces sent.
        cases: rows of `sent` and targets.
    """
    rows, targets = (np.array(values) for values in zip(*cases, strict=True))
    faces = _crops(system, inputs, chosen[rows])
    (aged,) = system.age(faces, [targets])
    pictures: list[NDArray] = []
    captions: list[str] = []
    for i, (row, target) in enumerate(cases):
        pictures += [faces.images[i], aged.images[i]]
        own, judged = faces.ages[i], sent.column("judged", target)
        captions += [
            f"is {own:.0f}" if np.isfinite(own) else "unchanged",
            f"to {target:g}, judged {judged[row]:.0f}" if judged is not None else f"to {target:g}",
        ]
    starts = range(0, len(pictures), 2 * ABREAST)
    return contact_sheet(
        [pictures[i : i + 2 * ABREAST] for i in starts],
        captions=[captions[i : i + 2 * ABREAST] for i in starts],
        title=f"{system.name}: {title}",
    )


def sheet_ages(system: System, plan: Plan) -> list[float]:
    """The targets of `people_sheet`: the same of all systems that age any face to any age."""
    if system.available is None:
        return list(AGES)
    there = plan.targets
    few = np.linspace(0, len(there) - 1, min(len(there), len(AGES))).round().astype(int)
    return [there[i] for i in few]


def extremes(
    sent: Sent, count: int, *, worst: bool, ceiling: float = 80.0
) -> list[tuple[int, float]]:
    """The cases in which the judged age is nearest to the target, or farthest from it.

    Everybody is shown once, and a target `PER_TARGET` times, as far as there are enough. Successes
    are only those who had `FAR` to go: who stays as old as he is succeeds easily.

    Args:
        ceiling: years; higher targets, which the judge cannot confirm, are left out.

    Returns:
        Rows of `sent` and targets, the most extreme first; none without a judge.
    """
    errors = sent.errors()
    if errors is None:
        return []
    targets = np.array(sent.plan.ages)
    usable = np.isfinite(errors) & (targets <= ceiling)
    if not worst:
        usable &= ~(np.abs(targets - sent.ages[:, None]) < FAR)  # unknown ages are let through
    places = np.argwhere(usable)
    order = np.argsort(errors[usable] * (-1 if worst else 1), kind="stable")
    cases: list[tuple[int, float]] = []
    for row, column in places[order]:
        target = float(targets[column])
        shown = sum(other == target for _, other in cases)
        if shown < PER_TARGET and all(row != other for other, _ in cases):
            cases.append((int(row), target))
        if len(cases) == count:
            break
    return cases


def spread(ages: NDArray, count: int, seed: int) -> Indices:
    """Indices of `count` faces from young to old, evenly spread over the years, drawn at random.

    The years wanted leave out the youngest and oldest fiftieth, whose labels are doubtful. Where no
    age is known, any are drawn.
    """
    random = np.random.default_rng([seed, 1])
    left = random.permutation(len(ages))  # many faces are equally near; none comes first
    known = np.isfinite(ages)
    if not known.any():
        return np.sort(left[:count])
    left = left[known[left]]
    chosen: list[int] = []
    low, high = np.quantile(ages[known], [0.02, 0.98])
    for wanted in np.linspace(low, high, min(count, len(left))):
        near = left[np.argsort(np.abs(ages[left] - wanted), kind="stable")[:NEAREST]]
        chosen.append(int(random.choice(near)))
        left = left[left != chosen[-1]]
    return np.array(chosen)[np.argsort(ages[chosen], kind="stable")]


def _crops(system: System, inputs: Inputs, people: Indices) -> Crops:
    landmarks = np.full((len(people), 5, 2), np.nan)
    if system.available is not None:  # finished pictures are aligned by them
        landmarks = inputs.landmarks(people)
    return Crops(people, inputs.crops(people), landmarks, inputs.ages[people])


def _words(judge: AgeJudge | None, images: NDArray, found: NDArray) -> list[str]:
    if judge is None:
        return []
    return [
        f"judged {age:.0f}" if there else ""
        for age, there in zip(judge.ages(images), found, strict=True)
    ]
