"""Charts as inline SVG, coloured by the page's style sheet: they follow light, dark and print.

Every mark has a title, which a browser shows under the pointer.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from faceage.ages import GROUP_NAMES

COLOURS = 6  # so many models can be told apart; classes m0 ... m5 of the style sheet

_END = 90.0  # years at the ends of both axes, or more if a target is beyond
_SYMBOLS = (  # around 0, 0
    '<circle r="4.5"/>',
    '<rect x="-4" y="-4" width="8" height="8"/>',
    '<path d="M0 -5.5L5 4H-5Z"/>',
    '<path d="M0 -5.5L5.5 0L0 5.5L-5.5 0Z"/>',
    '<path d="M0 5.5L5 -4H-5Z"/>',
    '<path d="M-4.5 0L-2 -4.5H2L4.5 0L2 4.5H-2Z"/>',
)
_REAL = '<path d="M0 -4.5L4.5 0L0 4.5L-4.5 0Z"/>'


@dataclass(frozen=True)
class Point:
    """A place on a curve, in years, with its 95 % interval and what it is."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class Curve:
    """The judged ages of one model, or of real faces (`mark` None)."""

    name: str
    mark: int | None
    points: Sequence[Point]


def control_chart(curves: Sequence[Curve], ceiling: float) -> str:
    """Judged age against target: the ideal diagonal, the judge's ceiling, a curve per model.

    Args:
        curves: from the lowest layer to the highest.
        ceiling: years that the judge cannot exceed.
    """
    left, top, side = 62.0, 14.0, 480.0
    end = max([_END, *(10 * math.ceil(p.x / 10) for curve in curves for p in curve.points)])

    def x(age: float) -> float:
        return left + side * min(max(age, 0.0), end) / end

    def y(age: float) -> float:
        return top + side - side * min(max(age, 0.0), end) / end

    def line(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)

    parts = []
    for age in range(0, int(end) + 1, 10):
        parts.append(
            f'<path class="grid" d="M{x(age):.1f} {y(0):.1f}V{y(end):.1f}'
            f'M{x(0):.1f} {y(age):.1f}H{x(end):.1f}"/>'
            f'<text class="tick" x="{x(age):.1f}" y="{y(0) + 20:.1f}">{age}</text>'
            f'<text class="tick side" x="{left - 9:.1f}" y="{y(age):.1f}">{age}</text>'
        )
    parts.append(
        f'<path class="ideal" d="M{x(0):.1f} {y(0):.1f}L{x(end):.1f} {y(end):.1f}"/>'
        f'<path class="ceiling" d="M{x(0):.1f} {y(ceiling):.1f}H{x(end):.1f}"/>'
        f'<text class="note" x="{x(1.5):.1f}" y="{y(ceiling) - 8:.1f}">'
        f"the judge says {ceiling:g} at most</text>"
        f'<text class="note" transform="translate({x(61):.1f} {y(63):.1f}) rotate(-45)">'
        "as old as asked for</text>"
        f'<text class="axis" x="{left + side / 2:.1f}" y="{top + side + 46:.1f}">'
        "target age, years</text>"
        f'<text class="axis" transform="translate(16 {top + side / 2:.1f}) rotate(-90)">'
        "judged age, years</text>"
    )
    for curve in curves:
        band = [(p.x, p.high) for p in curve.points]
        band += [(p.x, p.low) for p in reversed(curve.points)]
        marks = "".join(
            f'<g transform="translate({x(p.x):.1f} {y(p.y):.1f})">{_symbol(curve.mark)}'
            f"<title>{escape(p.title)}</title></g>"
            for p in curve.points
        )
        parts.append(
            f'<g class="curve {mark_class(curve.mark)}"><polygon points="{line(band)}"/>'
            f'<polyline points="{line((p.x, p.y) for p in curve.points)}"/>{marks}</g>'
        )
    return _svg(560, 550, "Judged age against target age", parts)


def legend(curves: Iterable[Curve]) -> str:
    """Which curve is whose, as an HTML list."""
    entries = "".join(
        f'<li><svg viewBox="-14 -7 28 14" width="28" height="14" aria-hidden="true">'
        f'<g class="curve {mark_class(curve.mark)}"><polyline points="-14,0 14,0"/>'
        f"{_symbol(curve.mark)}</g></svg>{escape(curve.name)}</li>"
        for curve in curves
    )
    return f'<ul class="legend">{entries}</ul>'


def confusion_chart(
    counts: Sequence[Sequence[int]], recall: Sequence[str], label: str, mark: int | None
) -> str:
    """A confusion matrix: faces as numbers, the share of the true group as depth of colour.

    Args:
        counts: 10 lines (true group) of 10 (group told).
        recall: how much of each true group was told right, as text.
        label: what it is, for those who cannot see it.
        mark: the model's, for its colour.
    """
    left, top, step = 84.0, 56.0, 46.0
    end = left + step * len(GROUP_NAMES)
    parts = [
        f'<text class="axis" x="{(left + end) / 2:.1f}" y="18">group told</text>',
        f'<text class="axis" transform="translate(16 {(top + end - left + top) / 2:.1f})'
        ' rotate(-90)">true group</text>',
        f'<text class="tick" x="{end + 36:.1f}" y="{top - 12:.1f}">recall</text>',
    ]
    for i, name in enumerate(GROUP_NAMES):
        middle = (i + 0.5) * step
        parts.append(
            f'<text class="tick" x="{left + middle:.1f}" y="{top - 12:.1f}">{name}</text>'
            f'<text class="tick side" x="{left - 10:.1f}" y="{top + middle:.1f}">{name}</text>'
            f'<text class="tick side recall" x="{end + 64:.1f}" y="{top + middle:.1f}">'
            f"{escape(recall[i])}</text>"
        )
    for i, row in enumerate(counts):
        total = sum(row)
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            px, py = left + j * step, top + i * step
            kind = " right" if i == j else ""
            ink = "" if count else " none"
            parts.append(
                f'<g class="cell{kind}{ink}"><rect x="{px + 1:.1f}" y="{py + 1:.1f}"'
                f' width="{step - 2:g}" height="{step - 2:g}" fill-opacity="{0.8 * share:.3f}"/>'
                f'<text x="{px + step / 2:.1f}" y="{py + step / 2:.1f}">{count}</text>'
                f"<title>{GROUP_NAMES[i]}, told {GROUP_NAMES[j]}: {count} of {total} faces"
                f" ({share:.0%})</title></g>"
            )
    return _svg(614, 526, label, parts, f"confusion {mark_class(mark)}")


def mark_class(mark: int | None) -> str:
    """The style sheet's class for a model; "real" for none."""
    return "real" if mark is None else f"m{mark % COLOURS}"


def _symbol(mark: int | None) -> str:
    return _REAL if mark is None else _SYMBOLS[mark % COLOURS]


def _svg(width: int, height: int, label: str, parts: Iterable[str], kind: str = "") -> str:
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
