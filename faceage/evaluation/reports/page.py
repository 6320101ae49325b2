"""The report as a web page: one file, which fetches nothing and runs nothing."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from typing import Any

from faceage.ages import GROUP_NAMES
from faceage.evaluation.reports.aged import JUDGE_CEILING
from faceage.evaluation.reports.charts import (
    Curve,
    Point,
    confusion_chart,
    control_chart,
    legend,
    mark_class,
)
from faceage.evaluation.reports.content import (
    Picture,
    Section,
    faces_text,
    listed,
    pictures,
    remarks,
    sections,
)
from faceage.evaluation.reports.formats import Cell, percent, plain, years
from faceage.evaluation.reports.tables import Heading, Table, at, narrowed, numbered_models

WIDEST = 9  # columns about models, side by side: as much as a sheet of paper holds
DENSE = 7  # columns from which on intervals stand below their values
PERCENT = "\u00a0%"  # with a space at which no line ends
SHORT = 8  # letters of a line's name that need no room to wrap

# A browser holds the page to it: no script, nothing from elsewhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html(report: Mapping[str, Any], sheets: Mapping[str, bytes]) -> str:
    """The report as one self-contained page.

    Args:
        report: what `faceage evaluate` measured.
        sheets: the contact sheets that the report names: file name -> JPEG.
    """
    names = [heading.text for heading, _ in numbered_models(report["models"])]
    charts = dict(_charts(report))
    parts = sections(report)
    links = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in parts)
    bodies = {
        "remarks": _remarks(remarks(report)),
        "sheets": _sheets(pictures(report), sheets),
    }
    main = ""
    for part in parts:
        body = bodies.get(part.name)
        main += _section(part, body if body is not None else _figures(part, charts))
    title = escape(listed(names))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title} - faceage evaluate</title>\n"
        f"<style>\n{files(__package__).joinpath('page.css').read_text('utf-8')}</style>\n"
        "</head>\n<body>\n<header>\n"
        f'<p class="eyebrow">faceage evaluate</p>\n<h1>{title}</h1>\n'
        f'<p class="lede">{escape(_lede(report))}</p>\n'
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n</header>\n<main>\n'
        f"{main}</main>\n</body>\n</html>\n"
    )


def _lede(report: Mapping[str, Any]) -> str:
    judges = [plain(j["name"]) for j in (report.get("judges") or {}).values() if j]
    by = f" Judged by {listed(judges)}." if judges else " There was no judge of aged faces."
    return f"Measured on {faces_text(report)}.{by}"


def _charts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The charts by the names of the tables that they draw."""
    models = numbered_models(report["models"])
    for i, (heading, model) in enumerate(models):
        if counts := at(model, "classification", "confusion"):
            recall = [percent(at(model, "classification", "recall", g)) for g in GROUP_NAMES]
            texts = [f"{cell.text} %" if cell.known else cell.text for cell in recall]
            label = f"Confusion matrix of {heading.text}; its numbers are in the table below it"
            yield f"confusion-{i}", confusion_chart(counts, texts, label, heading.mark)
    curves = [
        Curve(heading.text, heading.mark, list(_aged(heading.text, model)))
        for heading, model in models
    ]
    curves = [curve for curve in curves if curve.points]
    if real := list(_real(report)):
        curves = [Curve("unchanged faces, at their own age", None, real), *curves]
    yield "control", legend(curves) + control_chart(curves, JUDGE_CEILING)


def _aged(name: str, model: Mapping[str, Any]) -> Iterator[Point]:
    rows = at(model, "control", "targets") or ()
    for row in sorted(rows, key=lambda row: row["target"]):
        if judged := row.get("judged_age"):
            title = f"{name}, sent to {row['target']:g}: judged {years(judged)}"
            yield Point(row["target"], judged["value"], judged["low"], judged["high"], title)


def _real(report: Mapping[str, Any]) -> Iterator[Point]:
    for group in GROUP_NAMES:
        row = at(report, "judged_unchanged", "groups", group) or {}
        if (label := row.get("label")) and (judged := row.get("judged")):
            title = f"faces of {group}, {years(label).text} on average: judged {years(judged)}"
            yield Point(label["value"], judged["value"], judged["low"], judged["high"], title)


def _section(section: Section, content: str) -> str:
    text = f"<p>{escape(section.text)}</p>\n" if section.text else ""
    title = escape(section.title)
    return f'<section id="{section.name}">\n<h2>{title}</h2>\n{text}{content}\n</section>\n'


def _remarks(told: Iterable[str]) -> str:
    return f'<ul class="remarks">{"".join(f"<li>{escape(t)}</li>" for t in told)}</ul>'


def _figures(section: Section, charts: Mapping[str, str]) -> str:
    """Charts and tables; neighbouring tables form one block, which may stand beside a chart."""
    content = ""
    for drawn, tables in groupby(section.tables, lambda table: table.name in charts):
        figures = "".join(_figure(table, charts.get(table.name, ""), section) for table in tables)
        content += figures if drawn else f'<div class="tables">\n{figures}</div>\n'
    return f'<div class="figures">\n{content}</div>'


def _figure(table: Table, chart: str, section: Section) -> str:
    title = "" if table.name == section.name else f"<h3>{escape(table.title)}</h3>"
    note = f"<p>{escape(table.note.replace(' %', PERCENT))}</p>" if table.note else ""
    foot = f'<p class="foot">{escape(table.foot)}</p>' if table.foot else ""
    drawn = "".join(_scroll(table.title, _table(part)) for part in narrowed(table, WIDEST))
    if chart:
        drawn = f"{chart}<details><summary>The same as a table</summary>{drawn}</details>"
    kind = "drawn" if chart else "words" if table.words else "plain"
    caption = f"<figcaption>{title}{note}</figcaption>"
    return f'<figure class="{kind}" id="table-of-{table.name}">{caption}{drawn}{foot}</figure>\n'


def _scroll(title: str, content: str) -> str:
    """What may be wider than the window, and is reached by keyboard, too."""
    label = f'aria-label="{escape(title)}"'
    return f'<div class="scroll" tabindex="0" role="region" {label}>{content}</div>'


def _table(table: Table) -> str:
    body = ""
    for group, rows in groupby(table.rows, lambda row: row.heading.group):
        if group:
            heading = _heading(Heading(group), "rowgroup", f' colspan="{len(table.columns) + 1}"')
            body += f"<tr>{heading}</tr>\n"
        for row in rows:
            cells = zip(row.cells, table.columns, strict=True)
            content = "".join(_cell(cell, column, table.bars) for cell, column in cells)
            kind = _kind([] if row.heading.measured else ["compared"])
            body += f"<tr{kind}>{_heading(row.heading, 'row')}{content}</tr>\n"
    kinds = ["dense"] if len(table.columns) >= DENSE else []
    kinds += ["named"] if any(len(row.heading.text) > SHORT for row in table.rows) else []
    return f"<table{_kind(kinds)}>{_head(table)}<tbody>\n{body}</tbody></table>"


def _head(table: Table) -> str:
    if table.words:
        return ""
    corner = escape(table.corner)
    if not any(column.group for column in table.columns):
        cells = "".join(_heading(column, "col") for column in table.columns)
        return f'<thead><tr><th scope="col" class="corner">{corner}</th>{cells}</tr></thead>'
    upper, lower = [], []
    for group, columns in groupby(table.columns, lambda column: column.group):
        members = list(columns)
        if group:
            whole = Heading(group, mark=members[0].mark)
            upper.append(_heading(whole, "colgroup", f' colspan="{len(members)}"'))
            lower += [_heading(Heading(m.text), "col") for m in members]
        else:
            upper += [_heading(m, "col", ' rowspan="2"') for m in members]
    return (
        f'<thead><tr><th scope="col" class="corner" rowspan="2">{corner}</th>{"".join(upper)}</tr>'
        f"<tr>{''.join(lower)}</tr></thead>"
    )


def _heading(heading: Heading, scope: str, more: str = "") -> str:
    kinds = [] if heading.mark is None else ["model", mark_class(heading.mark)]
    kinds += [] if heading.measured else ["compared"]
    text = escape(heading.text.replace(" %", PERCENT))
    return f'<th scope="{scope}"{_kind(kinds)}{more}>{text}</th>'


def _cell(cell: Cell, column: Heading, bars: bool) -> str:
    kinds = [] if column.measured else ["compared"]
    style = ""
    if bars and cell.share is not None:
        kinds.append("bar")
        style = f' style="--share:{cell.share:.4f}"'
    interval = f" <small>({escape(cell.interval)})</small>" if cell.interval else ""
    return f"<td{_kind(kinds)}{style}>{escape(cell.text)}{interval}</td>"


def _kind(kinds: Sequence[str]) -> str:
    return f' class="{" ".join(kinds)}"' if kinds else ""


def _sheets(shown: Iterable[Picture], sheets: Mapping[str, bytes]) -> str:
    parts = []
    for picture in shown:
        title = escape(picture.title)
        if picture.file in sheets:
            data = base64.b64encode(sheets[picture.file]).decode("ascii")
            image = f'<img src="data:image/jpeg;base64,{data}" alt="{title}">'
            image = _scroll(picture.title, image)
        else:
            image = f'<p class="foot">Not embedded: {escape(plain(picture.file))}</p>'
        caption = f'<h3 class="model {mark_class(picture.mark)}">{title}</h3>'
        parts.append(f'<figure class="sheet"><figcaption>{caption}</figcaption>{image}</figure>\n')
    return "".join(parts)
