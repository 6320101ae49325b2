"""Predictions as a table, JSON or CSV.

A row is a dictionary: the object that `--json` prints for a face, or `file` and `error`.
"""

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from faceage.ages import GROUP_NAMES

if TYPE_CHECKING:
    from rich.table import Table

    from faceage.api import Prediction

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


def prediction_row(file: str, prediction: "Prediction") -> Row:
    """The row of one face."""
    return {
        "file": file,
        "face": prediction.number,
        "age": round(prediction.age, 2),
        "interval": [round(year, 2) for year in prediction.interval],
        "group": prediction.group,
        "probabilities": {name: round(p, 5) for name, p in prediction.probabilities.items()},
        "box": [round(float(v), 1) for v in prediction.face.box],
        "score": round(float(prediction.face.score), 4),
    }


def to_json(rows: Sequence[Row]) -> str:
    """The rows as one JSON list, one object per line, in ASCII."""
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    return f"[\n{lines}\n]" if rows else "[]"


def to_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV with the header `CSV_COLUMNS`; a photo without a face has only `error`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row if "error" in row else _flatten(row))
    return text.getvalue().rstrip("\n")


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


def _flatten(row: Row) -> Row:
    probabilities = row["probabilities"]
    return {
        **{key: row[key] for key in ("file", "face", "age", "group", "score")},
        **dict(zip(("low", "high"), row["interval"], strict=True)),
        **dict(zip(("x0", "y0", "x1", "y1"), row["box"], strict=True)),
        **{f"p_{name}": probabilities[name] for name in GROUP_NAMES},
        "group_probability": probabilities[row["group"]],
    }
