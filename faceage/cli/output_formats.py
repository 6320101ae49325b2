"""Predictions as a table, JSON, JSON lines or CSV.

A row is a dictionary: the object that `--json` prints for a face, or `file` and `error`.
"""

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from faceage.ages import GROUP_NAMES

if TYPE_CHECKING:
    from rich.table import Table

    from faceage.api import Prediction
    from faceage.cli.inputs import Item

Row = dict[str, Any]

CSV_COLUMNS = (
    "file",
    "face",
    "age",
    "low",
    "high",
    "group",
    "group_probability",
    "x0",
    "y0",
    "x1",
    "y1",
    "score",
    *(f"p_{name}" for name in GROUP_NAMES),
    "error",
)


COLUMN_TYPES: dict[str, type] = {
    name: str if name in ("file", "group", "error") else int if name == "face" else float
    for name in CSV_COLUMNS
}


def prediction_row(file: str, prediction: "Prediction") -> Row:
    """The row of one face."""
    return {"file": file, **prediction.as_dict()}


def error_row(item: "Item") -> Row:
    """The row of a photo that failed."""
    return {"file": item.name, "error": item.error}


class RowWriter:
    """Prints rows on stdout; this one as JSON lines, each as soon as it is known."""

    def write(self, rows: Sequence[Row]) -> None:
        """Print the rows of one photo, or keep them for `close`."""
        for row in rows:
            typer.echo(json.dumps(row))  # in ASCII

    def close(self) -> None:
        """Print what is left; called also when the command is interrupted."""


class CsvWriter(RowWriter):
    """CSV with the header `CSV_COLUMNS`; a photo without a face has only `file` and `error`."""

    def __init__(self) -> None:
        self._header_printed = False

    def write(self, rows: Sequence[Row]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
        if not self._header_printed:
            writer.writeheader()
            self._header_printed = True
        writer.writerows(map(flatten_row, rows))
        typer.echo(text.getvalue(), nl=False)

    def close(self) -> None:
        if not self._header_printed:
            self.write([])


class JsonWriter(RowWriter):
    """One JSON list, a line a row."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        self._rows += rows

    def close(self) -> None:
        lines = ",\n".join("  " + json.dumps(row) for row in self._rows)
        typer.echo(f"[\n{lines}\n]" if lines else "[]")


class TableWriter(JsonWriter):
    """A table for people."""

    def close(self) -> None:
        if any("error" not in row for row in self._rows):
            print_table(predictions_table(self._rows))


WRITERS: dict[str, type[RowWriter]] = {
    "table": TableWriter,
    "json": JsonWriter,
    "jsonl": RowWriter,
    "csv": CsvWriter,
}


def predictions_table(rows: Sequence[Row]) -> "Table":
    """A rich table of the predictions, without the rows that have an `error`."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("face", justify="right")
    table.add_column("age", justify="right")
    table.add_column("80 % interval", justify="right", no_wrap=True)
    table.add_column("group", justify="right", no_wrap=True)
    table.add_column("probability", justify="right")
    for row in rows:
        if "error" in row:
            continue
        low, high = row["interval"]
        table.add_row(
            escape(row["file"]),  # a name such as "[red].jpg" is not markup
            str(row["face"]),
            f"{row['age']:.1f}",
            f"{low:.0f} to {high:.0f}",
            row["group"],
            f"{row['probabilities'][row['group']]:.0%}",
        )
    return table


def print_table(table: "Table") -> None:
    """Print a table on stdout; not folded to a width when stdout is not a terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 1000  # rich does not pad the lines
    console.print(table)


def flatten_row(row: Row) -> Row:
    """A row with the keys `CSV_COLUMNS`; a row with an error stays as it is."""
    if "error" in row:
        return row
    probabilities = row["probabilities"]
    return {
        **{key: row[key] for key in ("file", "face", "age", "group", "score")},
        **dict(zip(("low", "high"), row["interval"], strict=True)),
        **dict(zip(("x0", "y0", "x1", "y1"), row["box"], strict=True)),
        **{f"p_{name}": probabilities[name] for name in GROUP_NAMES},
        "group_probability": probabilities[row["group"]],
    }
