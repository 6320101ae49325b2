"""The chart of the report, as SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from faceage.evaluation.common import import_extra
from faceage.evaluation.evaluators import MAX_ESTIMATE
from faceage.evaluation.results import AgeResult, Estimate, TargetResult


def draw_control(targets: Mapping[str, Sequence[TargetResult]], real: Sequence[AgeResult]) -> bytes:
    """Predicted age against target age, of every method, and against the label of real faces."""
    matplotlib = import_extra("matplotlib", "The report")
    figure = import_extra("matplotlib.figure", "The report").Figure((7, 6), layout="tight")
    axes = figure.subplots()
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1, label="predicted age = target")
    axes.axhline(MAX_ESTIMATE, color="0.6", linestyle=":", label="highest estimate")
    means = [(group.label.value, group.predicted) for group in real[:-1] if group.label]
    _draw_curve(axes, means, label="real faces, at their label", color="0.4", linestyle="--")
    for name, rows in targets.items():
        points = [(row.target, row.predicted_age) for row in rows]
        _draw_curve(axes, points, label=name.replace("$", r"\$"))  # no formula
    axes.set(xlabel="target age, years", ylabel="predicted age, years")
    axes.grid(color="0.9")
    axes.legend(frameon=False)
    file = io.BytesIO()
    # The same file for the same values: no date, no random ids.
    with matplotlib.rc_context({"svg.hashsalt": "faceage"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _draw_curve(axes: Any, points: Sequence[tuple[float, Estimate | None]], **style: Any) -> None:
    """Estimates at some ages, with their intervals as a band."""
    known = [(x, estimate) for x, estimate in points if estimate]
    x, y = [age for age, _ in known], [estimate for _, estimate in known]
    (line,) = axes.plot(x, [each.value for each in y], marker="o", markersize=4, **style)
    low, high = [each.low for each in y], [each.high for each in y]
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
