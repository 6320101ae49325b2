"""The tables of aged faces: the paper's three, age control, distances, identity, detail, skin."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from faceage.evaluation.reports.formats import (
    Cell,
    distance,
    levels,
    percent,
    plain,
    ratio,
    whole,
    years,
)
from faceage.evaluation.reports.measures import PAPER, PAPER_NOTE, InBand, Measure
from faceage.evaluation.reports.tables import (
    Heading,
    Model,
    Models,
    Row,
    Table,
    abreast,
    at,
    beneath,
    finished,
    item,
)

JUDGE_CEILING = 80  # years: the age judge says no more

Report = Mapping[str, Any]


def kept(name: str, title: str, measures: Sequence[Measure], models: Models) -> list[Table]:
    """Tables 1 and 2: a line for each model, and the paper's."""
    columns, rows = beneath(models, {measure.text: measure.of for measure in measures})
    paper = Row(PAPER, tuple(measure.paper for measure in measures))
    return finished(Table(name, title, "model", columns, (*rows, paper), foot=PAPER_NOTE))


def bands(report: Report, models: Models) -> list[Table]:
    """Table 3: of the faces sent to a band, how many are judged to be in it."""
    names = band_names(report)
    real = at(report, "judged_unchanged", "bands") or {}
    columns, rows = beneath(models, {name: InBand(name).of for name in names})
    compared = (
        Row(
            Heading("real faces of the band", measured=False),
            tuple(percent(real.get(name)) for name in names),
        ),
        Row(PAPER, tuple(InBand(name).paper for name in names)),
    )
    targets = [f"{band['target']:g}" for band in at(report, "options", "bands") or ()]
    note = (
        "Faces of all ages are sent to one age in each band"
        f"{' (' + ', '.join(targets) + ' years)' if targets else ''}. Not all real faces of a"
        " band are judged to be in it, either."
    )
    title = "Table 3: judged to be in the band aimed at, %"
    return finished(
        Table("table-3", title, "model", columns, (*rows, *compared), note, PAPER_NOTE, bars=True)
    )


def control(models: Models) -> list[Table]:
    """The age that the judge sees, target by target."""

    def row(model: Model, target: float) -> Mapping[str, Any]:
        return item(at(model, "control", "targets"), "target", target)

    columns, rows = abreast(
        models,
        _targets(at(model, "control", "targets") for _, model in models),
        {
            "judged age": lambda model, target: years(row(model, target).get("judged_age")),
            "off by": lambda model, target: years(row(model, target).get("judged_error")),
        },
    )
    note = (
        "The mean age that the judge sees in faces sent to a target, and how far from the target"
        f" it is, face by face. The judge says {JUDGE_CEILING} at most."
    )
    title = "Judged age against target, years"
    return finished(Table("control", title, "target", columns, rows, note))


def distances(report: Report, models: Models) -> list[Table]:
    """How far aged faces as a whole are from the real faces of a band."""

    def show(key: str, form: Callable[[Any], Cell]) -> Callable[[Model, str], Cell]:
        return lambda model, name: form(item(model.get("bands"), "band", name).get(key))

    def kernel(model: Model, name: str) -> Cell:
        return show("kernel", distance)(model, name) if name else distance(model.get("kernel_mean"))

    frechet = show("frechet", ratio)
    columns, rows = abreast(
        models,
        [*((name, name) for name in band_names(report)), ("mean", "")],
        {
            "judged age": show("judged_age", years),
            "kernel": kernel,
            "Frechet": frechet,
        },
    )
    judge = at(report, "judges", "perceptual", "name")
    features = f" Both are taken on features of {plain(judge)}." if judge else ""
    note = (
        "The mean age that the judge sees, in years; and how far the aged faces as a whole are"
        f" from real ones: kernel and Frechet distance, less is better.{features}"
    )
    title = "Faces sent to a band, and real faces of it"
    return finished(Table("distances", title, "band", columns, rows, note))


def identity(models: Models) -> list[Table]:
    """Whether a face is still found among all."""

    def row(model: Model, target: float | None) -> Mapping[str, Any]:
        if target is None:
            return {"top1": at(model, "identity", "top1")}
        return item(at(model, "identity", "targets"), "target", target)

    targets = _targets(at(model, "identity", "targets") for _, model in models)
    columns, rows = abreast(
        models,
        [*targets, ("all", None)],
        {
            "top-1, %": lambda model, target: percent(row(model, target).get("top1")),
            "similarity": lambda model, target: ratio(row(model, target).get("similarity")),
        },
    )
    note = (
        "Top-1: of all unchanged faces, the own one is nearest to the aged one. Similarity: the"
        " cosine between the two. A face that is not changed is always found: read this beside"
        " the ages reached."
    )
    return finished(Table("identity", "Staying the same person", "target", columns, rows, note))


def sharpness(models: Models) -> list[Table]:
    """What is left of the detail."""

    columns, rows = _by_target(
        models, "sharpness", {"in": ("in", whole), "out": ("out", whole), "kept": ("kept", ratio)}
    )
    note = (
        "Laplacian variance of the inner face before and after, and the share that is kept:"
        " medians over faces."
    )
    return finished(Table("sharpness", "Sharpness", "target", columns, rows, note))


def skin(models: Models) -> list[Table]:
    """Whether the skin keeps its shade."""

    columns, rows = _by_target(
        models,
        "skin",
        {"darkest fifth": ("darkest", levels), "lightest fifth": ("lightest", levels)},
    )
    note = (
        "How much lighter cheeks and nose get, in levels of 0-255; less than 0 is darker. Ageing"
        " itself changes it by some levels; it should not depend on whose skin it is."
    )
    return finished(Table("skin", "Lightness of the skin", "target", columns, rows, note))


def band_names(report: Report) -> list[str]:
    """The bands that faces are sent to, from young to old."""
    names = [band["name"] for band in at(report, "options", "bands") or ()]
    names += [row["band"] for model in report["models"] for row in model.get("bands") or ()]
    return list(dict.fromkeys(names))


def _by_target(
    models: Models, part: str, shown: Mapping[str, tuple[str, Callable[[Any], Cell]]]
) -> tuple[tuple[Heading, ...], tuple[Row, ...]]:
    """Columns and rows of a part of the report that has a line for each target.

    Args:
        models: from `numbered_models`.
        part: its key in the report.
        shown: a model's columns: which figure of the line, and how it is written.
    """

    def cell(key: str, form: Callable[[Any], Cell]) -> Callable[[Model, float], Cell]:
        return lambda model, target: form(item(model.get(part), "target", target).get(key))

    targets = _targets(model.get(part) for _, model in models)
    return abreast(models, targets, {name: cell(*how) for name, how in shown.items()})


def _targets(
    tables: Iterable[Sequence[Mapping[str, Any]] | None],
) -> list[tuple[str, float | None]]:
    """All targets, as names and as keys, from young to old."""
    return [(f"{t:g}", t) for t in sorted({row["target"] for rows in tables for row in rows or ()})]
