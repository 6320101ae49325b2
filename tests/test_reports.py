"""Reports: figures written by hand on one side, terminal, Markdown and page on the other."""

import base64
import copy
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from evaluation_data import GROUPS, figure, figures, full_report, sheets, sparse_report
from rich.console import Console

from faceage.ages import GROUP_NAMES
from faceage.evaluation.reports import formats, html, markdown, terminal_tables
from faceage.evaluation.reports.charts import Curve, Point, confusion_chart, control_chart
from faceage.evaluation.reports.content import sections
from faceage.evaluation.reports.formats import DASH
from faceage.evaluation.reports.tables import Heading, Row, Table, finished

VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """A page taken apart: elements, text, tables. Fails where tags are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text.append(data)
            if "td" in self._open or "th" in self._open:
                self.tables[-1][-1][-1] += hyphened(data.replace("\u00a0", " "))

    def all(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]


def page_of(report: dict[str, Any]) -> Page:
    return Page(html(report, {}))


def hyphened(text: str) -> str:
    """As the terminal writes it."""
    return text.replace(DASH, "-")


def terminal_of(report: dict[str, Any], width: int = 1000) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        for table in terminal_tables(report):
            console.print(table)
    return capture.get()


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The lines of every table, unescaped, without the one under the heads."""
    found: list[list[list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("| "):
            if not before.startswith("| "):
                found.append([])
            cells = re.split(r"(?<!\\)\|", hyphened(line))[1:-1]
            found[-1].append([re.sub(r"\\(.)", r"\1", cell).strip() for cell in cells])
        before = line
    for table in found:
        assert set(table.pop(1)) <= {"---", "---:"}
    return found


# -- figures and tables ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "given", "expected"),
    [
        (formats.percent, figure(0.54704, 0.0211), "54.7 (52.6-57.0)"),
        (formats.years, {"value": 5.385, "low": 5.14, "high": 5.66}, "5.4 (5.1-5.7)"),
        (
            formats.distance,
            {"value": 0.01354, "low": 0.0129, "high": 0.014},
            "0.0135 (0.0129-0.0140)",
        ),
        (formats.distance, {"value": 0.0271, "count": 300}, "0.0271"),
        (
            formats.distance,
            {"value": -4e-5, "low": -0.0012, "high": 1e-3},
            "0.0000 (-0.0012 to 0.0010)",
        ),
        (formats.ratio, {"value": -0.014, "low": None, "high": None}, "-0.01"),
        (formats.whole, 211.6, "212"),
        (formats.percent, 1, "100.0"),
        (formats.years, None, "-"),
        (formats.years, {"value": None, "low": None, "high": None, "count": 0}, "-"),
        (formats.words, "", "-"),
        (formats.words, "about 60", "about 60"),
    ],
)
def test_figures_are_written(form: Any, given: Any, expected: str) -> None:
    assert hyphened(str(form(given))) == expected


def test_a_missing_figure_is_an_en_dash() -> None:
    assert str(formats.years(None)) == DASH == "\u2013"
    assert str(formats.whole({"value": 2, "low": 1, "high": 3})) == "2 (1\u20133)"


def test_plain_text_is_one_printable_line() -> None:
    assert formats.plain(" a\nb\t\x1b[31mc\x00 ") == "a b [31mc"
    assert formats.plain("caf\udce9") == "caf?"  # a file name that is no UTF-8
    assert formats.plain(128) == "128"


def table(rows: list[Row], *columns: Heading) -> Table:
    return Table("name", "title", "corner", columns, tuple(rows))


def row(name: str, *values: float | None, count: int | None = 5, measured: bool = True) -> Row:
    cells = [formats.number(None if v is None else {"value": v, "count": count}, 0) for v in values]
    return Row(Heading(name, measured=measured), tuple(cells))


def test_what_nobody_measured_is_left_out() -> None:
    paper = row("paper", 7, 8, 9, count=None, measured=False)
    rows = [row("a", 1, None, None), row("b", None, None, None), paper]
    compared = Heading("z", measured=False)
    (found,) = finished(table(rows, Heading("x"), Heading("y"), compared))
    assert [heading.text for heading in found.columns] == ["x"]
    assert [r.heading.text for r in found.rows] == ["a", "paper"]
    assert [r.cells[0].text for r in found.rows] == ["1", "7"]
    assert finished(table([row("a", None), paper], Heading("x"))) == []  # the paper alone: nothing
    assert finished(table([row("a", None, 3)], Heading("x"), compared)) == []


def test_counts_of_faces() -> None:
    (alike,) = finished(table([row("a", 1), row("b", 2)], Heading("x")))
    assert alike.foot == "5 faces each."
    assert len(alike.columns) == 1
    one = Row(Heading("c"), (formats.Cell("1", count=3), formats.Cell("2", count=1200)))
    many = Row(Heading("d"), tuple(formats.Cell("1", count=n) for n in (1, 9, 4)))
    none = Row(Heading("e"), (formats.Cell("1"),) * 3)
    rows = [Row(one.heading, (*one.cells, formats.EMPTY)), many, none]
    (other,) = finished(table(rows, *map(Heading, "xyz")))
    assert other.foot == ""
    assert other.columns[-1].text == "faces"
    assert [r.cells[-1].text for r in other.rows] == ["3 / 1,200", "1 to 9", DASH]


# -- all outputs -----------------------------------------------------------------------------------

DIGITS = {  # by the key of a figure, or of what holds it: scale and digits after the point
    **dict.fromkeys(("accuracy", "within_one_group", "inside", "judged_in_band"), (100, 1)),
    **dict.fromkeys(("monotone", "top1", "recall", "bands"), (100, 1)),
    **dict.fromkeys(("mae", "width", "judged_age", "judged_error"), (1, 1)),
    **dict.fromkeys(("error", "control_error", "label", "judged", "skin"), (1, 1)),
    **dict.fromkeys(("l1", "lpips", "reconstruction_l1", "kernel"), (1, 4)),
    **dict.fromkeys(("rank_correlation", "similarity", "kept", "frechet"), (1, 2)),
    **dict.fromkeys(("in", "out"), (1, 0)),
}


def written(values: Any, keys: tuple[str, ...] = ()) -> Iterator[str]:
    """Every figure below these values as it should be written."""
    if isinstance(values, dict) and "value" in values:
        scale, digits = next(DIGITS[key] for key in reversed(keys) if key in DIGITS)
        value = f"{scale * values['value']:.{digits}f}"
        if "low" in values:
            low, high = (f"{scale * values[key]:.{digits}f}" for key in ("low", "high"))
            value += f" ({low} to {high})" if low.startswith("-") else f" ({low}-{high})"
        yield value
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from written(value, (*keys, key))
    elif isinstance(values, list):
        for value in values:
            yield from written(value, keys)


def outputs(report: dict[str, Any]) -> dict[str, str]:
    return {
        "terminal": re.sub(r" +", " ", terminal_of(report)),
        "markdown": hyphened(re.sub(r"\\(.)", r"\1", markdown(report))),
        "html": hyphened(re.sub(r"\s+", " ", " ".join(page_of(report).text))),
    }


@pytest.mark.parametrize("make", [full_report, sparse_report])
def test_every_figure_is_in_every_output(make: Any) -> None:
    report = make()
    expected = list(written(report))
    assert len(expected) == len(list(figures(report)))
    for name, text in outputs(report).items():
        for value in expected:
            assert value in text, name
        for model in report["models"]:
            if model["kernel_mean"]:
                assert f"{model['kernel_mean']:.4f}" in text


def test_some_figures_by_hand() -> None:
    for name, text in outputs(full_report()).items():
        for value in (
            "54.7 (52.6-57.0)",  # accuracy 0.547, 0.526 to 0.5701
            "0.0135 (0.0128-0.0142)",
            "5.4 (5.1-5.7)",
            "56.4 (54.9-58.1)",  # in the 50 % interval
            "1,861",
            "1,449",
            "the paper, on FFHQ-Aging*",
            "not on this data",
            *("about 60", "more than 95", "0.028", "0.072", "0.040", "0.155"),
            *("57.3", "57.5", "63.1", "64.2", "68.3"),
            "HRFAE and RAGAN are not at hand",
        ):
            assert value in text, name


def test_all_outputs_have_the_same_tables() -> None:
    report = full_report()
    pages, marked = page_of(report).tables, markdown_tables(markdown(report))
    assert len(pages) == len(marked) == sum(len(s.tables) for s in sections(report))
    in_markdown: set[str] = set()
    for drawn, lines in zip(pages, marked, strict=True):
        body = [cells for cells in drawn if len(cells) == len(lines[0])]
        values = [cells[1:] for cells in body][-len(lines[1:]) :]
        assert values == [cells[1:] for cells in lines[1:]]
        if lines[0] != ["", ""]:
            in_markdown |= {cell for cells in values for cell in cells}
    in_terminal = {
        str(cell)
        for table in terminal_tables(report)
        for c in table.columns[1:]
        for cell in c.cells
    }
    assert in_terminal - {""} == in_markdown


def test_models_stand_side_by_side() -> None:
    summary = page_of(full_report()).tables[0]
    names = ["compact-128", "ragan-compact", "HRFAE"]
    assert summary[0] == ["figure", *names, "the paper, on FFHQ-Aging*", "faces"]
    lines = {cells[0]: cells[1:] for cells in summary}
    assert lines["age group right, %"] == ["54.7 (52.6-57.0)", "-", "-", "about 60", "1,861"]
    assert lines["40-49"][3] == "64.2"
    third = next(t for t in page_of(full_report()).tables if t[0][:2] == ["model", "0-14"])
    assert [cells[0] for cells in third[1:4]] == names
    assert third[4][:2] == ["real faces of the band", "81.0 (77.0-85.4)"]
    assert third[5] == ["the paper, on FFHQ-Aging*", "57.3", "57.5", "63.1", "64.2", "68.3", "-"]


def test_many_models() -> None:
    report = full_report()
    first = report["models"][0]
    report["models"] = [{**first, "name": f"model {i}"} for i in range(8)]
    for text in outputs(report).values():
        assert all(f"model {i}" in text for i in range(8))
    targets = [t for t in terminal_tables(report) if str(t.columns[0].header) == "target"]
    assert max(len(t.columns) for t in targets) == 7
    assert len(targets) == 3 + 3 + 4 + 3  # control, identity, sharpness, skin: 3 or 2 at a time
    wide = [t for t in page_of(report).tables if t[0][0] == "target"]
    assert [len(t[0]) - 1 for t in wide] == [4, 4, 4, 4, 3, 3, 2, 4, 4]
    kinds = {kind for value in page_of(report).all("class") for kind in value.split()}
    assert {"m0", "m5"} <= kinds
    assert not {"m6", "m7"} & kinds  # colours start anew


def test_a_narrow_terminal_loses_nothing() -> None:
    text = terminal_of(full_report(), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_the_terminal_tables_are_ascii() -> None:
    tables = terminal_tables(full_report())
    texts = [str(cell) for t in tables for column in t.columns for cell in column.cells]
    texts += [str(t.title) + str(t.caption) for t in tables]
    assert all(text.isascii() for text in texts)


# -- what is missing -------------------------------------------------------------------------------


def test_without_judges_their_figures_are_left_out() -> None:
    report = sparse_report()
    for text in outputs(report).values():
        assert not re.search(r"\b(None|nan|null|inf)\b", text)
        assert "Table 1" in text
        assert "0.028" in text
        for missing in ("Table 3", "0.072", "57.3", "68.3", "Calibration", "By gender", "kernel"):
            assert missing not in text
    for name in ("markdown", "html"):
        assert report["remarks"][0] in outputs(report)[name]
        assert "none given" in outputs(report)[name]
    assert [section.name for section in sections(report)] == [
        *("summary", "setup", "remarks", "ages", "face", "same", "files"),
    ]


def test_a_group_without_faces_has_no_recall() -> None:
    report = sparse_report()
    recall = next(t for t in page_of(report).tables if t[0] == ["true group", "first", "faces"])
    assert [cells[0] for cells in recall[1:]] == ["0-2", *GROUP_NAMES[2:9]]
    chart = html(report, {})
    assert f">{DASH}</text>" in chart  # beside the matrix


def test_nothing_but_pictures() -> None:
    report = full_report()
    report["models"] = report["models"][2:]
    for text in outputs(report).values():
        assert "about 60" not in text
        assert "HRFAE" in text
        assert "Recall" not in text
    assert "finished pictures" in markdown(report)
    assert "sha256</th>" not in html(report, {})


def test_keys_may_be_missing() -> None:
    model = {"name": "bare", "reconstruction": {"l1": figure(0.5, 0.1, 3)}}
    report = {"data": {"name": "few", "set": "test", "faces": 3}, "models": [model]}
    for text in outputs(report).values():
        assert "0.5000 (0.4000-0.6100)" in text


def test_reports_are_not_changed() -> None:
    report = full_report()
    before = copy.deepcopy(report)
    outputs(report)
    assert report == before


# -- text from outside -----------------------------------------------------------------------------

NASTY = '<script>alert("1")</script>|[red]*b*_c_`d`&amp;"><img src=x onerror=alert(2)>\udcff\n# e'
SEEN = '<script>alert("1")</script>|[red]*b*_c_`d`&amp;"><img src=x onerror=alert(2)>? # e'


def nasty_report() -> dict[str, Any]:
    report = full_report()
    report["data"]["name"] = report["command"] = report["faceage"] = NASTY
    for judge in report["judges"].values():
        judge["name"] = judge["sha256"] = NASTY
    for model in report["models"]:
        model |= {"name": NASTY, "file": NASTY, "sha256": NASTY, "metadata": {NASTY: NASTY}}
    report["models"][0]["sheets"] = {NASTY: NASTY, "best": "a b(1)#é.jpg"}
    report["remarks"] = [NASTY]
    return report


def test_text_from_outside_stays_text() -> None:
    report = nasty_report()
    page = Page(html(report, {}))
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name[:2] == "on"]
    assert page.text.count(SEEN) > 5
    assert SEEN in page.all("aria-label")[1]
    text = markdown(report)
    assert text.encode()
    assert SEEN in re.sub(r"\\(.)", r"\1", text)
    assert not re.search(r"(?<!\\)<", text)
    assert "\n# e" not in text
    assert "](a%20b%281%29%23%C3%A9.jpg)" in text
    for table in markdown_tables(text):
        assert len({len(cells) for cells in table}) == 1
    assert SEEN in terminal_of(report)  # "[red]" is no colour


# -- the page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [full_report, sparse_report])
def test_the_page_fetches_and_runs_nothing(make: Any) -> None:
    report = make()
    text = html(report, sheets(report))
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in page.all("href")} <= set(ids)
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.all("src"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|https?:|//", style)
    assert "http" not in text[: text.index("<style>")].replace("http-equiv", "")
    assert "default-src 'none'" in page.all("content")[0]


def test_sheets_are_embedded() -> None:
    report, shown = full_report(), sheets(full_report())
    page = Page(html(report, shown))
    sources = [source.partition(",")[2] for source in page.all("src")]
    assert [base64.b64decode(source) for source in sources] == list(shown.values())
    kinds = ("drawn at random", "best cases", "worst cases")
    names = ("compact-128", "ragan-compact", "HRFAE")
    assert page.all("alt") == [f"{name}: {kind}" for name in names for kind in kinds]
    assert "![compact-128: worst cases](compact-128-worst.jpg)" in markdown(report)
    missing = Page(html(report, {}))
    assert "Not embedded: HRFAE-best.jpg" in missing.text


def test_the_page_says_with_what_it_was_measured() -> None:
    report = full_report()
    text = " ".join(page_of(report).text)
    for judge in report["judges"].values():
        assert f"{judge['name']}, sha256 {judge['sha256']}" in text
    for model in report["models"]:
        assert all(value in text for value in model["metadata"].values())
        assert model["sha256"] is None or model["sha256"] in text
    assert report["command"] in text
    assert all(remark in text for remark in report["remarks"])
    assert "0-2: 81, 3-6: 62, " in text
    assert "male: 902, female: 959" in text


# -- charts ----------------------------------------------------------------------------------------


def test_the_control_chart_is_to_scale() -> None:
    curve = Curve("a", 1, [Point(0, 90, 81, 90, "young"), Point(45, 45, 36, 54, "<middle>")])
    drawn = control_chart([curve], 80)
    # 480 units are 90 years, from x = 62 to the right and from y = 494 up.
    assert '<polyline points="62.0,14.0 302.0,254.0"/>' in drawn
    assert '<polygon points="62.0,14.0 302.0,206.0 302.0,302.0 62.0,62.0"/>' in drawn
    assert 'class="ideal" d="M62.0 494.0L542.0 14.0"' in drawn
    assert 'class="ceiling" d="M62.0 67.3H542.0"' in drawn
    assert "the judge says 80 at most" in drawn
    assert "<title>&lt;middle&gt;</title>" in drawn
    assert 'class="curve m1"' in drawn
    farther = control_chart([Curve("a", 0, [Point(100, 0, 0, 0, "")])], 80)
    assert 'points="542.0,494.0"' in farther  # the axes reach as far as the targets


def test_the_confusion_chart_shows_shares_of_lines() -> None:
    counts = [[0] * 10 for _ in range(10)]
    counts[2][2], counts[2][3] = 3, 1
    drawn = confusion_chart(counts, [""] * 2 + ["75.0 %"] + [""] * 7, "label", 0)
    assert drawn.count("<rect") == 100
    assert re.findall(r'fill-opacity="(0\.[1-9]\d*)"', drawn) == ["0.600", "0.200"]  # of 0.8
    assert "<title>7-9, told 10-14: 1 of 4 faces (25%)</title>" in drawn
    assert "75.0 %" in drawn


def test_the_page_has_its_charts() -> None:
    page = html(full_report(), {})
    assert page.count('<svg class="chart') == 2  # one classifier, one control chart
    marks = re.findall(r'<g class="curve (\w+)"><polygon', page)
    assert marks == ["real", "m0", "m1", "m2"]
    numbers = [int(n) for n in re.findall(r"told [-\d+]+: (\d+) of \d+ faces", page)]
    assert sum(numbers) == sum(GROUPS)
    assert '<svg class="chart' not in html(full_report() | {"models": []}, {})
