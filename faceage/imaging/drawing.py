"""Contact sheets, and boxes and labels drawn on photos."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ImageLike = Image.Image | np.ndarray  # an array is uint8 (H,W,3) RGB

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_EMPTY = (238, 238, 238)
_BOX = (255, 205, 0)  # with a dark outline: visible on light and dark skin


def fit(picture: ImageLike, side: int) -> Image.Image:
    """The picture in RGB, its longer side resized to `side` px."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image = image.convert("RGB")
    scale = side / max(image.size)
    if scale == 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def contact_sheet(
    rows: Sequence[Sequence[ImageLike | None]],
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    *,
    captions: Sequence[Sequence[str]] = (),
    tile: int = 192,
    title: str = "",
) -> Image.Image:
    """Lay pictures out in a labelled grid on white.

    Args:
        rows: pictures, row by row; None gives a grey tile, a short row is left white at its end.
        columns: labels above the columns; may be empty.
        labels: labels left of the rows; may be empty.
        captions: a line under each picture, in the shape of `rows`; may be empty.
        tile: side in px of the square each picture is fitted into, keeping its proportions.
        title: a line above the sheet.

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
                fitted = fit(picture, tile)
                sheet.paste(
                    fitted, (x + (tile - fitted.width) // 2, y + (tile - fitted.height) // 2)
                )
            if r < len(captions) and c < len(captions[r]):
                draw.text((x + tile / 2, y + tile + line / 2), captions[r][c], _INK, font, "mm")
    return sheet


def strip(
    pictures: Sequence[ImageLike], captions: Sequence[str], *, wrap: int = 8, tile: int = 256
) -> Image.Image:
    """A contact sheet of one sequence, captions under the pictures, `wrap` pictures to a line."""
    starts = range(0, len(pictures), wrap)
    return contact_sheet(
        [pictures[i : i + wrap] for i in starts],
        captions=[captions[i : i + wrap] for i in starts],
        tile=tile,
    )


def draw_boxes(
    pixels: np.ndarray, boxes: Sequence[Sequence[float]], labels: Sequence[str]
) -> np.ndarray:
    """The photo with labelled boxes.

    Args:
        pixels: uint8 (H,W,3) RGB; not changed.
        boxes: x0, y0, x1, y1 in px; may reach beyond the photo.
        labels: one a box.
    """
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 500))
    font = ImageFont.load_default(max(12, max(image.size) // 45))
    for x0, y0, x1, y1 in boxes:
        draw.rectangle((x0 - width, y0 - width, x1 + width, y1 + width), None, _INK, 3 * width)
        draw.rectangle((x0, y0, x1, y1), None, _BOX, width)
    for (x0, y0, _, y1), label in zip(boxes, labels, strict=True):  # above all boxes
        _, _, w, h = draw.textbbox((0, 0), label, font)
        w, h = w + 4 * width, h + 4 * width
        x = min(max(0, x0), max(0, image.width - w))
        y = y0 - h if y0 >= h else min(y1, image.height - h)  # above the box, else below it
        draw.rectangle((x, y, x + w, y + h), _BOX)
        draw.text((x + 2 * width, y + h / 2), label, _INK, font, "lm")
    return np.asarray(image)
