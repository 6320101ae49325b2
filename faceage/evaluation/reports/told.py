"""The tables of ages told: confusion, recall and calibration of the classifiers."""

from collections.abc import Mapping
from typing import Any

from faceage.ages import GROUP_NAMES
from faceage.evaluation.reports.formats import Cell, count_text, percent, years
from faceage.evaluation.reports.tables import (
    Heading,
    Model,
    Models,
    Row,
    Table,
    abreast,
    at,
    finished,
    item,
)


def confusion(models: Models) -> list[Table]:
    """Which groups were told for which: one table for each model that tells ages."""
    found = []
    for i, (heading, model) in enumerate(models):
        counts = at(model, "classification", "confusion") or []
        rows = tuple(
            Row(Heading(name), tuple(Cell(count_text(n)) for n in (*line, sum(line))))
            for name, line in zip(GROUP_NAMES, counts, strict=False)
        )
        found += finished(
            Table(
                f"confusion-{i}",
                f"Groups told by {heading.text}",
                "true group",
                (*map(Heading, GROUP_NAMES), Heading("faces")),
                rows,
                "A line is a true group, a column the group told. Numbers of faces.",
            )
        )
    return found


def recall(models: Models) -> list[Table]:
    """How many of each group were told to be of it."""
    columns, rows = abreast(
        models,
        [(name, name) for name in GROUP_NAMES],
        {"": lambda model, group: percent(at(model, "classification", "recall", group))},
    )
    note = "Of the faces of a group, how many were told to be of it."
    return finished(
        Table("recall", "Recall per group, %", "true group", columns, rows, note, bars=True)
    )


def calibration(models: Models) -> list[Table]:
    """How often the true age lies in the intervals told."""

    def row(model: Model, share: float) -> Mapping[str, Any]:
        return item(at(model, "classification", "calibration"), "share", share)

    lines = [at(model, "classification", "calibration") or [] for _, model in models]
    shares = sorted({row["share"] for line in lines for row in line})
    columns, rows = abreast(
        models,
        [(f"{100 * share:g} %", share) for share in shares],
        {
            "true age inside, %": lambda model, share: percent(row(model, share).get("inside")),
            "width, years": lambda model, share: years(row(model, share).get("width")),
        },
    )
    return finished(
        Table(
            "calibration",
            "Calibration of the intervals told",
            "interval",
            columns,
            rows,
            "An honest 80 % interval holds the true age of 80 % of the faces. If two are honest,"
            " the narrower one says more.",
        )
    )
