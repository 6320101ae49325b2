"""A table before it is drawn: what terminal, Markdown and HTML have in common.

Rows and columns in which nothing was measured are left out, and so is a table of nothing: a figure
that is missing never looks like one that was measured.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from faceage.evaluation.reports.formats import Cell, count_text, plain, words

Model = Mapping[str, Any]  # one of report["models"]


@dataclass(frozen=True)
class Heading:
    """What stands above a column or left of a row.

    Attributes:
        text: its name.
        group: what stands above it and its neighbours in the same group; empty for nothing.
        mark: which model it is about, to be marked in the model's colour; None for no model.
        measured: False for what is there to compare with: the paper, real faces. A row or column
            without figures of measured ones is left out.
    """

    text: str
    group: str = ""
    mark: int | None = None
    measured: bool = True

    @property
    def whole(self) -> str:
        """With its group, in one line."""
        return ": ".join(part for part in (self.group, self.text) if part)


Models = Sequence[tuple[Heading, Model]]  # with the headings they have in every table


@dataclass(frozen=True)
class Row:
    """One line of a table; as many cells as there are columns."""

    heading: Heading
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: tells the tables of a report apart; letters, digits and "-".
        title: what it shows.
        corner: what stands above the rows' names.
        columns: without that of the rows' names.
        rows: its lines.
        note: how the figures came about, and how to read them.
        foot: what must be read with them: how many faces, whose figures.
        bars: whether shares are also drawn.
        words: whether the cells hold words, not figures.
    """

    name: str
    title: str
    corner: str
    columns: tuple[Heading, ...]
    rows: tuple[Row, ...]
    note: str = ""
    foot: str = ""
    bars: bool = False
    words: bool = False


def numbered_models(models: Iterable[Model]) -> Models:
    """The models with the headings they have in every table."""
    return [(Heading(plain(m["name"]), mark=i), m) for i, m in enumerate(models)]


def finished(table: Table) -> list[Table]:
    """The table without what nobody measured and with its counts; none if nothing is left."""
    if table.words:
        return [table] if table.rows else []

    def told(row: Row, columns: Iterable[int]) -> bool:
        return any(row.cells[c].known for c in columns)

    every = range(len(table.columns))
    own = [c for c in every if table.columns[c].measured]
    measured = [row for row in table.rows if row.heading.measured and told(row, own)]
    kept = [c for c in every if any(row.cells[c].known for row in measured)]
    if not kept:
        return []
    rows = [
        row for row in table.rows if (told(row, own) if row.heading.measured else told(row, kept))
    ]
    return [
        _with_counts(
            replace(
                table,
                columns=tuple(table.columns[c] for c in kept),
                rows=tuple(Row(r.heading, tuple(r.cells[c] for c in kept)) for r in rows),
            )
        )
    ]


def narrowed(table: Table, most: int) -> Iterator[Table]:
    """The table, or some of fewer models each: at most so many columns about models, if it can."""
    sizes = Counter(column.group for column in table.columns if column.group)
    groups = list(sizes)
    step = max(1, most // max(sizes.values(), default=1))
    for start in range(0, max(1, len(groups)), step):
        own = {"", *groups[start : start + step]}
        kept = [i for i, column in enumerate(table.columns) if column.group in own]
        rows = (Row(row.heading, tuple(row.cells[i] for i in kept)) for row in table.rows)
        yield replace(table, columns=tuple(table.columns[i] for i in kept), rows=tuple(rows))


def abreast(
    models: Models,
    keys: Sequence[tuple[str, Any]],
    parts: Mapping[str, Callable[[Model, Any], Cell]],
) -> tuple[tuple[Heading, ...], tuple[Row, ...]]:
    """Columns and rows of a table in which models stand side by side, some columns each.

    Args:
        models: from `numbered_models`.
        keys: what the rows are about: their names, and what `parts` are asked for.
        parts: a model's columns; the name "" alone gives one column that has the model's name.
    """
    columns = tuple(
        Heading(part, heading.text, heading.mark) if part else heading
        for heading, _ in models
        for part in parts
    )
    rows = tuple(
        Row(
            Heading(name), tuple(cell(model, key) for _, model in models for cell in parts.values())
        )
        for name, key in keys
    )
    return columns, rows


def beneath(
    models: Models, parts: Mapping[str, Callable[[Model], Cell]]
) -> tuple[tuple[Heading, ...], tuple[Row, ...]]:
    """Columns and rows of a table with a line for each model, as in the paper."""
    rows = (
        Row(heading, tuple(cell(model) for cell in parts.values())) for heading, model in models
    )
    return tuple(Heading(part) for part in parts), tuple(rows)


def at(values: Any, *keys: str) -> Any:
    """What lies below these keys; None where one of them is missing or was not measured."""
    for key in keys:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def item(rows: Iterable[Mapping[str, Any]] | None, key: str, value: Any) -> Mapping[str, Any]:
    """The first of `rows` that has this value; {} if none has."""
    return next((row for row in rows or () if row.get(key) == value), {})


def _with_counts(table: Table) -> Table:
    """Adds how many faces were measured: in the foot if that is one number, else as a column."""
    counts = [_counts(row) for row in table.rows]
    every = list(dict.fromkeys(count for row in counts for count in row))
    if not every:
        return table
    if len(every) == 1:
        faces = "1 face." if every == [1] else f"{count_text(every[0])} faces each."
        return replace(table, foot=" ".join(part for part in (faces, table.foot) if part))
    rows = tuple(
        Row(row.heading, (*row.cells, _spoken(own)))
        for row, own in zip(table.rows, counts, strict=True)
    )
    return replace(table, columns=(*table.columns, Heading("faces")), rows=rows)


def _counts(row: Row) -> list[int]:
    return list(dict.fromkeys(cell.count for cell in row.cells if cell.count is not None))


def _spoken(counts: Sequence[int]) -> Cell:
    if len(counts) < 3:
        return words(" / ".join(map(count_text, counts)))
    return words(f"{count_text(min(counts))} to {count_text(max(counts))}")
