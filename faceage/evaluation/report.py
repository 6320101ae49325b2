"""Rendering a `Report`: as Markdown, and as a web page with a chart."""

import base64
import dataclasses
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

from faceage.ages import GROUP_NAMES
from faceage.evaluation.charts import draw_control
from faceage.evaluation.common import import_extra
from faceage.evaluation.results import RANGES, Estimate, RangeResult, Report, Scores, clean_text

MAIN, ESTIMATION, AGED = "Main results", "Age estimation", "Aged faces"
APPEARANCE, REAL = "Identity, sharpness and skin", "The age evaluator on real faces"
MAIN_NOTE = """In brackets: 95 % bootstrap intervals over faces. L1 is on [-1, 1]; L1 and LPIPS are
of crops of 256 px, without padding. The paper's values were measured by its authors on FFHQ-Aging,
not on these faces."""
REAL_NOTE = "The predicted ages of aged faces cannot be more accurate than these."

# Tables: their section, title, the rows (of a `MethodResult`), their fields as columns, and a note.
TABLES = [
    (ESTIMATION, "Age groups", "groups", "accuracy bias",
     "The accuracy of a group is its recall. Bias: predicted age minus label."),
    (ESTIMATION, "Calibration of the predicted intervals", "intervals", "coverage width",
     "A calibrated 80 % interval contains the label of 80 % of the faces; a narrow one is better."),
    (ESTIMATION, "Robustness", "robustness", "accuracy within_one_group mae coverage",
     """The faces that are also aged, shrunk to an inner face of 48 px and enlarged again, without
     colour, or compressed; the interval is that of 80 %."""),
    (AGED, "Age ranges", "ranges", "in_range predicted_age",
     """All faces are aged to 7, 17, 30, 45 and 65 years, one target in each range; the age
     evaluator predicts the age of the result."""),
    (AGED, "Age control", "targets", "predicted_age mae",
     "Mean predicted age at a target, and the mean absolute difference from it."),
    (AGED, "Bias against real faces", "targets", "real_age bias",
     """Predicted age of the aged faces minus that of real faces whose label is within 3 years of
     the target: the error of the age evaluator cancels out."""),
    (AGED, "Distances from real faces", "ranges",
     "kernel_distance crop_kernel_distance frechet_distance kid fid",
     """Between the features of the aged faces and of the real faces of a range; less is better.
     Kernel and Frechet distance are KID and FID on AlexNet's last convolution, of the inner face
     or of the crop with the hair. KID and FID are on torchvision's Inception v3 (not the
     TensorFlow network of the original FID), of crops resized to 299 px with Pillow's bicubic
     filter, as clean-fid does. Frechet distances grow as sets get smaller: compare only equal
     numbers of faces."""),
    (APPEARANCE, "Identity", "targets", "top1 similarity",
     """Top-1 retrieval: of all unchanged faces, the input is the most similar; adults only. It is
     perfect without any change: see the predicted ages, too."""),
    (APPEARANCE, "Gender", "targets", "women men",
     """Of faces of 12 and older that show their labelled gender, how many still do. It is predicted
     by a linear estimate on the identity evaluator's embeddings, fitted to other real faces."""),
    (APPEARANCE, "Sharpness", "targets", "sharpness_before sharpness_after sharpness_ratio",
     "Laplacian variance of the inner face: medians."),
    (APPEARANCE, "Lightness of the skin", "targets", "skin_darkest skin_lightest",
     "How much lighter cheeks and nose become, in levels of 0-255; negative is darker."),
]  # fmt: skip

Column = dict[str, tuple[Estimate, str]]  # cells by their rows: estimates, and as text


class ReportTable(NamedTuple):
    """A table of text; the first column names the rows."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def list_tables(report: Report) -> dict[str, list[ReportTable]]:
    """The tables of all measurements, by the titles of their sections."""
    methods = {method.info.name: method for method in report.methods}
    scores = {name: _cells(method.scores) for name, method in methods.items()}
    printed = [each.metadata for each in dataclasses.fields(Scores) if each.metadata["paper"]]
    scores["the paper"] = {each["label"]: (Estimate(0), each["paper"]) for each in printed}
    sections = {MAIN: _tabulate(MAIN, scores, MAIN_NOTE), ESTIMATION: []}
    for name, method in methods.items():
        if method.confusion:
            counts = zip(GROUP_NAMES, method.confusion, strict=True)
            rows = [[group, *map(str, row)] for group, row in counts]
            note, header = "Numbers of faces; columns: predicted groups.", ["", *GROUP_NAMES]
            table = ReportTable(f"Confusion matrix of {name}", header, rows, note)
            sections[ESTIMATION].append(table)
    for section, title, attribute, fields, note in TABLES:
        results = {f"{name}: ": getattr(method, attribute) for name, method in methods.items()}
        if attribute == "ranges":
            paper = [RangeResult(span.name, Estimate(span.paper)) for span in RANGES]
            results |= {"real faces: ": report.real_ranges, "the paper: ": paper}
        tables = _tabulate(title, _field_columns(results, fields), note)
        sections.setdefault(section, []).extend(tables)
    genders = {f"{n}: {g}": _cells(s) for n, m in methods.items() for g, s in m.genders.items()}
    sections["By gender"] = _tabulate("By gender", genders)
    real = _field_columns({"": report.real_groups}, "label predicted bias mae")
    sections[REAL] = _tabulate(REAL, real, REAL_NOTE)
    facts = {k: v for k, v in vars(report).items() if isinstance(v, str | int | dict)}
    for name, method in methods.items():
        info = dataclasses.asdict(method.info)
        facts |= {f"{name}: {k}": v for k, v in (info | info.pop("metadata")).items() if v}
    settings = [[name, str(value)] for name, value in facts.items()]
    sections["Settings"] = [ReportTable("Settings", ["setting", "value"], settings)]
    return {title: tables for title, tables in sections.items() if tables}


def render_markdown(report: Report) -> str:
    """The report as GitHub's Markdown, readable in a terminal; contact sheets are linked."""

    def text(cell: str) -> str:
        return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", clean_text(cell))

    lines = [f"# {text(_title(report))}", *(f"- {text(remark)}" for remark in report.remarks)]
    for section, tables in list_tables(report).items():
        lines.append(f"\n## {section}")
        for title, header, rows, note in tables:
            lines += [f"\n### {text(title)}"] if title != section else []
            cells = [[text(cell) for cell in row] for row in (header, *rows)]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            cells.insert(1, ["-" * max(width, 3) for width in widths])
            padded = [map(str.ljust, row, widths) for row in cells]
            lines += ["", text(note), "", *(f"| {' | '.join(row)} |" for row in padded)]
    links = {text(title): quote(file) for title, file in _list_sheets(report).items()}
    return "\n".join([*lines, *(f"\n![{title}]({link})" for title, link in links.items()), ""])


def render_html(report: Report, sheets: Mapping[str, bytes]) -> str:
    """The report as one page, which loads and runs nothing.

    Args:
        sheets: the contact sheets, JPEG, by the file names in the report.

    Raises:
        ConfigError: jinja2 or matplotlib is not installed.
    """
    jinja2 = import_extra("jinja2", "The report")
    loader = jinja2.PackageLoader("faceage.evaluation")
    blocks = {"trim_blocks": True, "lstrip_blocks": True}
    page = jinja2.Environment(loader=loader, autoescape=True, **blocks)
    curves = {method.info.name: method.targets for method in report.methods}
    chart = draw_control(curves, report.real_groups) if report.real_groups else b""
    html: str = page.get_template("report.html.j2").render(
        title=_title(report),
        remarks=report.remarks,
        sections=list_tables(report),
        charts={AGED: base64.b64encode(chart).decode()} if chart else {},
        sheets=_list_sheets(report),
        images={name: base64.b64encode(image).decode() for name, image in sheets.items()},
        style=files(__package__).joinpath("templates/report.css").read_text("utf-8"),
    )
    return html + "\n"


def _title(report: Report) -> str:
    names = ", ".join(method.info.name for method in report.methods)
    return f"{names} on {report.faces:,} faces of {report.data} ({report.split})"


def _list_sheets(report: Report) -> dict[str, str]:
    """The files of the contact sheets by their titles."""
    return {
        f"{m.info.name}: {kind}": file for m in report.methods for kind, file in m.sheets.items()
    }


# --- tables ----------------------------------------------------------------------------------


def write_estimate(estimate: Estimate, label: str, digits: int) -> str:
    """An estimate as text, with its interval: "54.7 (52.6-57.0)"."""
    scale = 100 if label.endswith("%") else 1
    ends = [end for end in (estimate.low, estimate.high) if end is not None]
    between = " to " if min(ends, default=0) < 0 else "-"  # two dashes are misread
    number, *interval = (f"{scale * v:z.{digits}f}" for v in (estimate.value, *ends))
    return f"{number} ({between.join(interval)})" if interval else number


def _cells(row: Any) -> Column:
    """The measured fields of a dataclass, by their labels."""
    cells: Column = {}
    for each in dataclasses.fields(row):
        if isinstance(estimate := getattr(row, each.name), Estimate):
            label, digits = each.metadata["label"], each.metadata["digits"]
            cells[label] = estimate, write_estimate(estimate, label, digits)
    return cells


def _field_columns(rows_of: Mapping[str, Sequence[Any]], fields: str) -> dict[str, Column]:
    """Fields (their names in one string) of dataclasses as columns; a row is the first field.

    Args:
        rows_of: the dataclasses by what precedes the heading.
    """
    columns: dict[str, Column] = {}
    for before, rows in rows_of.items():
        for name in fields.split():
            for row in rows:
                key = next(iter(vars(row).values()))
                label = row.__dataclass_fields__[name].metadata["label"]
                if cell := _cells(row).get(label):
                    key = key if isinstance(key, str) else f"{key:g}"
                    columns.setdefault(f"{before}{label}", {})[key] = cell
    return columns


def _tabulate(title: str, columns: Mapping[str, Column], note: str = "") -> list[ReportTable]:
    """A table of the columns that have cells, if any of them is measured."""
    columns = {heading: cells for heading, cells in columns.items() if cells}
    keys = list(dict.fromkeys(key for cells in columns.values() for key in cells))
    if all(key.replace(".", "").isdigit() for key in keys):  # targets, maybe of several methods
        keys.sort(key=float)
    counts = {e.count for cells in columns.values() for e, _ in cells.values() if e.count}
    if not counts:
        return []
    few, many = f"{min(counts):,}", f"{max(counts):,}"
    note += f" Faces: {few}." if few == many else f" Faces: {few} to {many}."
    empty = (None, "-")
    rows = [[key, *(cells.get(key, empty)[1] for cells in columns.values())] for key in keys]
    return [ReportTable(title, ["", *columns], rows, note)]
