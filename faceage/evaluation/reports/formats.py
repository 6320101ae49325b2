"""Figures as text: "54.7 (52.6-56.9)" for {"value", "low", "high", "count"}, an en dash for None.

The only place that decides how many digits a figure is shown with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DASH = "\u2013"  # an en dash


@dataclass(frozen=True)
class Cell:
    """One place of a table.

    Attributes:
        text: what stands there; an en dash where nothing was measured.
        interval: the 95 % interval, "52.6-56.9"; empty if there is none.
        count: how many faces were measured; None if that is not told.
        share: the value where it is a share of 1, to draw it; otherwise None.
    """

    text: str = DASH
    interval: str = ""
    count: int | None = None
    share: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is anything to read."""
        return self.text != DASH

    def __str__(self) -> str:
        return f"{self.text} ({self.interval})" if self.interval else self.text


EMPTY = Cell()


def number(figure: Any, digits: int, scale: float = 1.0) -> Cell:
    """A figure with so many digits after the point; `scale` is multiplied first.

    Args:
        figure: {"value", "low", "high", "count"}, of which all but the value may be missing; a
            plain number; or None.
        digits: after the point.
        scale: 100 for a percentage.
    """
    if figure is None:
        return EMPTY
    if not isinstance(figure, Mapping):
        figure = {"value": figure}
    if figure.get("value") is None:
        return EMPTY

    def text(key: str) -> str:
        return f"{figure[key] * scale:z.{digits}f}"  # z: no "-0.0"

    interval = ""
    if figure.get("low") is not None and figure.get("high") is not None:
        # A dash after a minus sign would be hard to read.
        between = " to " if min(figure["low"], figure["high"]) < 0 else DASH
        interval = between.join((text("low"), text("high")))
    return Cell(text("value"), interval, figure.get("count"))


def percent(figure: Any) -> Cell:
    """A share of 1 as "54.7", for a column that says %."""
    cell = number(figure, 1, 100.0)
    if not cell.known:
        return cell
    share = figure["value"] if isinstance(figure, Mapping) else figure
    return Cell(cell.text, cell.interval, cell.count, share)


def years(figure: Any) -> Cell:
    """Years as "34.1"."""
    return number(figure, 1)


def distance(figure: Any) -> Cell:
    """L1, LPIPS and the kernel distance, as "0.0135"."""
    return number(figure, 4)


def ratio(figure: Any) -> Cell:
    """Similarities, correlations and ratios, as "0.93"."""
    return number(figure, 2)


def levels(figure: Any) -> Cell:
    """Differences in levels of 0-255, as "-4.2"."""
    return number(figure, 1)


def whole(figure: Any) -> Cell:
    """Large figures without digits after the point."""
    return number(figure, 0)


def plain(value: Any) -> str:
    """Text from outside in one line that any file takes: no control characters, no lone bytes."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def count_text(count: int) -> str:
    """A count of faces, as "1,861"."""
    return f"{count:,}"


def words(text: str) -> Cell:
    """Words in the place of a figure; an en dash if there are none."""
    return Cell(text) if text else EMPTY
