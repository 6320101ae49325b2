"""What results look like: contact sheets, photos with the ages drawn on them, tables.

A picture here is a PIL image or a uint8 array (H,W,3) RGB. The rows of the tables are plain
dictionaries, the same that `--json` prints (`faceage.ager.prediction_row`).
"""

import csv
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from faceage.ages import GROUP_NAMES

Picture = Image.Image | np.ndarray

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_EMPTY = (238, 238, 238)
_BOX = (255, 205, 0)  # readable on light and dark skin alike, with the dark outline beside it

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


def progress_bar(shown: bool) -> Progress:
    """A bar on stderr that counts; it is seen on a terminal only, and only if `shown`."""
    console = Console(stderr=True)
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
        # Results printed meanwhile must not land in the bar's stderr when stdout is a file.
        redirect_stdout=sys.stdout.isatty(),
    )


def contact_sheet(
    rows: Sequence[Sequence[Picture | None]],
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    *,
    captions: Sequence[Sequence[str]] = (),
    tile: int = 192,
    title: str = "",
) -> Image.Image:
    """Lay pictures out in a labelled grid on white.

    Args:
        rows: pictures, row by row; None leaves a grey gap, a short row is filled up with nothing.
        columns: labels above the columns; may be empty.
        labels: labels left of the rows; may be empty.
        captions: a line under each picture, in the shape of `rows`; may be empty.
        tile: side in px of the square each picture is fitted into, keeping its proportions.
        title: a line above everything.

    Raises:
        ValueError: there is no picture.
    """
    count = max((len(row) for row in rows), default=0)
    if not count:
        raise ValueError("A contact sheet needs at least one picture.")
    size = max(11, tile // 12)  # of the letters, px
    font = ImageFont.load_default(size)
    gap, line = max(2, tile // 32), round(size * 1.6)
    left = gap + max((round(font.getlength(text)) + 2 * gap for text in labels), default=0)
    top = gap + (line if title else 0) + (line if columns else 0)
    step_x, step_y = tile + gap, tile + gap + (line if captions else 0)

    sheet = Image.new("RGB", (left + count * step_x, top + len(rows) * step_y), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((left, gap + line / 2), title, _INK, font, "lm")
    for c, text in enumerate(columns[:count]):
        draw.text((left + c * step_x + tile / 2, top - line / 2), text, _INK, font, "mm")
    for r, row in enumerate(rows):
        y = top + r * step_y
        if r < len(labels):
            draw.text((left - 2 * gap, y + tile / 2), labels[r], _INK, font, "rm")
        for c, picture in enumerate(row):
            x = left + c * step_x
            if picture is None:
                draw.rectangle((x, y, x + tile - 1, y + tile - 1), _EMPTY)
            else:
                fitted = _fit(picture, tile)
                sheet.paste(
                    fitted, (x + (tile - fitted.width) // 2, y + (tile - fitted.height) // 2)
                )
            if r < len(captions) and c < len(captions[r]):
                draw.text((x + tile / 2, y + tile + line / 2), captions[r][c], _INK, font, "mm")
    return sheet


def strip(
    pictures: Sequence[Picture], captions: Sequence[str], *, wrap: int = 8, tile: int = 256
) -> Image.Image:
    """A contact sheet of one sequence, captions under the pictures, `wrap` pictures to a line."""
    starts = range(0, len(pictures), wrap)
    return contact_sheet(
        [pictures[i : i + wrap] for i in starts],
        captions=[captions[i : i + wrap] for i in starts],
        tile=tile,
    )


def draw_faces(pixels: np.ndarray, rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """The photo with a box and a label ("2: 34 years, 30-39") on every face.

    Args:
        pixels: uint8 (H,W,3) RGB; not changed.
        rows: predictions with `face`, `age`, `group` and `box`.
    """
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 500))
    font = ImageFont.load_default(max(12, max(image.size) // 45))
    for row in rows:
        x0, y0, x1, y1 = row["box"]
        draw.rectangle((x0 - width, y0 - width, x1 + width, y1 + width), None, _INK, 3 * width)
        draw.rectangle((x0, y0, x1, y1), None, _BOX, width)
    for row in rows:  # labels last, so that no neighbour's box runs through them
        x0, y0, _, y1 = row["box"]
        text = f"{row['face']}: {row['age']:.0f} years, {row['group']}"
        _, _, w, h = draw.textbbox((0, 0), text, font)
        w, h = w + 4 * width, h + 4 * width
        x = min(max(0, x0), max(0, image.width - w))
        y = y0 - h if y0 >= h else min(y1, image.height - h)  # above the box, or below, but inside
        draw.rectangle((x, y, x + w, y + h), _BOX)
        draw.text((x + 2 * width, y + h / 2), text, _INK, font, "lm")
    return np.asarray(image)


def predictions_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A rich table of predictions; rows with an `error` have no place in it and are left out."""
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
            escape(row["file"]),  # a file called "[red].jpg" has a name, not a colour
            str(row["face"]),
            f"{row['age']:.1f}",
            f"{low:.0f} to {high:.0f}",
            row["group"],
            f"{row['probabilities'][row['group']]:.0%}",
        )
    return table


def print_table(table: Table) -> None:
    """Print a table on stdout: as wide as the terminal, or as wide as it likes in a pipe."""
    console = Console()
    if not console.is_terminal:
        console.width = 1000  # lines end where the table ends
    console.print(table)


def to_json(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as one JSON list, one object per line, in ASCII: safe on any terminal or pipe."""
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    return f"[\n{lines}\n]" if rows else "[]"


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV with the header `CSV_COLUMNS`; a photo without a face has only `error`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row if "error" in row else _flat(row))
    return text.getvalue().rstrip("\n")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    chances = row["probabilities"]
    return {
        **{key: row[key] for key in ("file", "face", "age", "group", "score")},
        **dict(zip(("low", "high"), row["interval"], strict=True)),
        **dict(zip(("x0", "y0", "x1", "y1"), row["box"], strict=True)),
        **{f"p_{name}": chances[name] for name in GROUP_NAMES},
        "group_probability": chances[row["group"]],
    }


def _fit(picture: Picture, side: int) -> Image.Image:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image = image.convert("RGB")
    scale = side / max(image.size)
    if scale == 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
