"""The report as rich tables, and as Markdown."""

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any
from urllib.parse import quote

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from faceage.evaluation.reports.content import faces_text, pictures, remarks, sections
from faceage.evaluation.reports.formats import DASH, plain
from faceage.evaluation.reports.tables import Table, narrowed

WIDEST = 6  # columns about models, side by side in a terminal
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&#])")


def terminal_tables(report: Mapping[str, Any]) -> list[RichTable]:
    """The report's tables for a terminal: all of them but the metadata of the model files.

    Whatever the encoding of a pipe, only names from outside can be more than ASCII.
    """
    return [
        _rich(part)
        for section in sections(report)
        for table in section.tables
        if not table.words
        for part in narrowed(table, WIDEST)
    ]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as GitHub's Markdown; pictures are named, not embedded."""
    names = [plain(model["name"]) for model in report["models"]]
    parts = [
        f"# {_escaped(', '.join(names))}",
        f"Measured by `faceage evaluate` on {_escaped(faces_text(report))}.",
    ]
    for section in sections(report):
        parts += [f"## {section.title}", *([section.text] if section.text else [])]
        for table in section.tables:
            if table.name != section.name:
                parts.append(f"### {_escaped(table.title)}")
            parts += _markdown_table(table)
        if section.name == "remarks":
            parts.append("\n".join(f"- {_escaped(remark)}" for remark in remarks(report)))
        if section.name == "sheets":
            parts += [
                f"![{_escaped(p.title)}]({quote(p.file, errors='surrogateescape')})"
                for p in pictures(report)
            ]
    return "\n\n".join(parts) + "\n"


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=_ascii(table.title),
        title_justify="left",
        caption=_ascii(table.foot) if table.foot else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    drawn.add_column(_ascii(table.corner), overflow="fold")
    for heading in table.columns:
        lines = [part for part in (heading.group, heading.text) if part]
        title = _ascii("\n".join(lines))
        drawn.add_column(title, justify="right", overflow="fold")
    for group, rows in groupby(table.rows, lambda row: row.heading.group):
        if group:
            drawn.add_row(_ascii(group), style="bold")
        for row in rows:
            name = f"  {row.heading.text}" if group else row.heading.text
            cells = (_ascii(str(cell)) for cell in row.cells)
            drawn.add_row(_ascii(name), *cells, style="" if row.heading.measured else "dim")
    return drawn


def _ascii(text: str) -> Text:
    """As text, not markup: a model called "[red]" has a name, not a colour."""
    return Text(text.replace(DASH, "-"))


def _markdown_table(table: Table) -> Iterator[str]:
    if table.note:
        yield _escaped(table.note)
    lines = [
        [table.corner, *(heading.whole for heading in table.columns)],
        *([row.heading.whole, *map(str, row.cells)] for row in table.rows),
    ]
    drawn = [f"| {' | '.join(map(_escaped, line))} |" for line in lines]
    side = "---" if table.words else "---:"
    drawn.insert(1, f"| --- |{f' {side} |' * len(table.columns)}")
    yield "\n".join(drawn)
    if table.foot:
        yield _escaped(table.foot)


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)
