"""Reports: made-up results on one side; JSON, Markdown and the page on the other."""

import base64
import dataclasses
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_data import GROUPS, estimate, estimates, full_report, make_method, sheets, sparse_report

from faceage.ages import GROUP_NAMES
from faceage.errors import ConfigError, DataError
from faceage.evaluation.charts import draw_control
from faceage.evaluation.report import list_tables, render_html, render_markdown, write_estimate
from faceage.evaluation.results import AgeResult, Estimate, Report, TargetResult, clean_text

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
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text.append(data)
            if "td" in self._open or "th" in self._open:
                self.tables[-1][-1][-1] += data

    def all(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]


@pytest.fixture(autouse=True)
def _needs_the_extra() -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")


def page_of(report: Report) -> Page:
    return Page(render_html(report, sheets(report)))


def unescaped(markdown: str) -> str:
    return re.sub(r"\\(.)", r"\1", markdown)


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The lines of every table, unescaped, without the rule under the header."""
    found: list[list[list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("| "):
            if not before.startswith("| "):
                found.append([])
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found[-1].append([unescaped(cell).strip() for cell in cells])
        before = line
    for table in found:
        assert all(re.fullmatch("-{3,}", cell) for cell in table.pop(1))
    return found


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [full_report, sparse_report])
def test_a_report_is_read_as_it_was_written(make: Any, tmp_path: Path) -> None:
    report = make()
    (tmp_path / "report.json").write_text(report.to_json(), encoding="utf-8")
    assert Report.read(tmp_path / "report.json") == report


def test_other_files_are_no_reports(tmp_path: Path) -> None:
    texts = {
        "missing.json": None,
        "text.json": "no json",
        "list.json": "[]",
        "old.json": '{"schema": 2}',
        "cut.json": '{"schema": 3, "data": "faces"}',
        "more.json": full_report().to_json().replace('"seed"', '"sead"'),
    }
    for name, text in texts.items():
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=name) as caught:
            Report.read(tmp_path / name)
        assert "\n" not in str(caught.value)


# -- estimates and tables --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "digits", "given", "expected"),
    [
        ("accuracy, %", 1, Estimate(0.54704, 0.52594, 0.57025, 1861), "54.7 (52.6-57.0)"),
        ("MAE, years", 1, Estimate(5.385, 5.14, 5.66), "5.4 (5.1-5.7)"),
        ("L1", 4, Estimate(0.01354, 0.0129, 0.014), "0.0135 (0.0129-0.0140)"),
        ("L1", 4, Estimate(0.0271, count=300), "0.0271"),
        ("KID", 4, Estimate(-4e-5, -0.0012, 1e-3), "0.0000 (-0.0012 to 0.0010)"),
        ("similarity", 2, Estimate(-0.014), "-0.01"),
        ("before", 0, Estimate(211.6), "212"),
        ("top-1, %", 1, Estimate(1, 1, 1), "100.0 (100.0-100.0)"),
    ],
)
def test_estimates_as_text(label: str, digits: int, given: Estimate, expected: str) -> None:
    assert write_estimate(given, label, digits) == expected


def test_clean_text_is_one_printable_line() -> None:
    assert clean_text(" a\nb\t\x1b[31mc\x00 ") == "a b [31mc"
    assert clean_text("caf\udce9") == "caf?"  # a file name that is not UTF-8


def table(report: Report, title: str) -> tuple[list[str], dict[str, list[str]], str]:
    """Header, rows and note of a table, without what precedes ": " in the header."""
    (found,) = [t for tables in list_tables(report).values() for t in tables if t.title == title]
    return found.header, {row[0]: row[1:] for row in found.rows}, found.note


def test_main_results() -> None:
    header, rows, note = table(full_report(), "Main results")
    assert header == ["", "compact-128", "ragan-compact", "HRFAE", "the paper"]
    assert rows["age group: accuracy, %"] == ["54.7 (52.6-57.0)", "-", "-", "about 60"]
    assert rows["age group: within one group, %"][3] == "more than 95"
    assert rows["reconstruction: L1"] == [
        *("0.0135 (0.0128-0.0142)", "0.0312 (0.0296-0.0329)", "0.0448 (0.0426-0.0473)"),
        "0.028",
    ]
    assert [rows[f"reconstruction: {kind}"][3] for kind in ("L1", "LPIPS")] == ["0.028", "0.072"]
    assert [rows[f"cycle reconstruction: {kind}"][3] for kind in ("L1", "LPIPS")] == [
        *("0.040", "0.155"),
    ]
    assert rows["age: bias of 70+, years"][0] == "-7.3 (-8.6 to -6.0)"
    assert "not on these faces" in note
    assert note.endswith("Faces: 80 to 1,861.")


def test_ranges_have_real_faces_and_the_paper_beside_them() -> None:
    header, rows, _ = table(full_report(), "Age ranges")
    assert header[-2:] == [
        *("real faces: predicted in range, %", "the paper: predicted in range, %"),
    ]
    assert rows["0-14"][-2:] == ["81.0 (77.0-85.4)", "57.3"]
    paper = [row[-1] for row in rows.values()]
    assert paper == ["57.3", "57.5", "63.1", "64.2", "68.3"]


def test_rows_of_several_methods_are_merged_in_order() -> None:
    report = full_report()
    first, second, _ = report.methods
    some = {"targets": (TargetResult(7.0, mae=estimate(1.5, 0.1)), *first.targets[3:5])}
    methods = (dataclasses.replace(first, **some), second)
    _, rows, _ = table(dataclasses.replace(report, methods=methods), "Age control")
    ages = [*(f"{target:g}" for target in (2, 5, 7, *range(10, 90, 5)))]
    assert list(rows) == ages
    assert rows["7"] == ["-", "1.5 (1.4-1.6)", "-", "-"]


def test_what_was_not_measured_is_left_out() -> None:
    report = sparse_report()
    for text in (unescaped(render_markdown(report)), " ".join(page_of(report).text)):
        assert not re.search(r"\b(None|nan|null|inf)\b", text)
        assert "Sharpness" in text
        assert report.remarks[0] in text
        for missing in ("Age ranges", "Calibration", "Robustness", "By gender", "Distances"):
            assert missing not in text
    assert list(list_tables(report)) == [
        *("Main results", "Age estimation", "Identity, sharpness and skin", "Settings"),
    ]
    header, rows, note = table(report, "Sharpness")
    assert header == ["", "first: after"]
    assert rows == {"70": ["141 (133-150)"]}
    assert note.endswith("Faces: 30.")


def test_confusion_matrix() -> None:
    header, rows, _ = table(full_report(), "Confusion matrix of compact-128")
    assert header == ["", *GROUP_NAMES]
    assert [sum(map(int, row)) for row in rows.values()] == list(GROUPS.values())


def test_settings() -> None:
    report = full_report()
    _, rows, _ = table(report, "Settings")
    assert rows["command"] == [report.command]
    assert "4f9f0075" * 8 in rows["evaluators"][0]
    assert rows["split"] == ["test"]
    assert "'0-2': 81" in rows["groups"][0]
    for method in report.methods:
        assert rows[f"{method.info.name}: file"] == [method.info.file]
        for key, value in method.info.metadata.items():
            assert rows[f"{method.info.name}: {key}"] == [value]


# -- both outputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [full_report, sparse_report])
def test_every_estimate_is_in_every_output(make: Any) -> None:
    report = make()
    outputs = (unescaped(render_markdown(report)), "\n".join(page_of(report).text))
    hidden = {"recall"}
    count = 0
    for each, value in estimates(report):
        if each.name not in hidden:
            text = write_estimate(value, each.metadata["label"], each.metadata["digits"])
            assert all(text in output for output in outputs), (each.name, text)
            count += 1
    assert count > 10


def test_both_outputs_have_the_same_tables() -> None:
    report = full_report()
    expected = [[t.header, *t.rows] for tables in list_tables(report).values() for t in tables]
    assert markdown_tables(render_markdown(report)) == expected
    assert page_of(report).tables == expected


def test_markdown_lines_are_aligned() -> None:
    lines = render_markdown(full_report()).splitlines()
    start = lines.index("## Main results")
    drawn = [line for line in lines[start : start + 25] if line.startswith("| ")]
    assert len({len(line) for line in drawn}) == 1
    assert all(line.isascii() for line in lines)


def test_many_methods() -> None:
    methods = tuple(make_method(f"model {i}", 0.5, 0.3, 0.02) for i in range(8))
    report = dataclasses.replace(full_report(), methods=methods)
    for text in (render_markdown(report), " ".join(page_of(report).text)):
        assert all(f"model {i}" in text for i in range(8))


# -- text from outside -----------------------------------------------------------------------------

NASTY = '<script>alert("1")</script>|[red]*b*_c_`d`&amp;"><img src=x onerror=alert(2)>\udcff\n# e'
SHOWN = '<script>alert("1")</script>|[red]*b*_c_`d`&amp;"><img src=x onerror=alert(2)>? # e'


def test_text_from_outside_stays_text() -> None:
    report = full_report()
    name = clean_text(NASTY) + "$x$"  # as `open_weights` gives it
    info = dataclasses.replace(
        report.methods[0].info, name=name, file=NASTY, metadata={NASTY: NASTY}
    )
    method = dataclasses.replace(
        report.methods[0], info=info, sheets={NASTY: "a b(1)#é.jpg", "best": "b.jpg"}
    )
    report = dataclasses.replace(
        report, methods=(method,), data=NASTY, command=NASTY, remarks=(NASTY,)
    )
    page = Page(render_html(report, {"a b(1)#é.jpg": b"", "b.jpg": b""}))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name[:2] == "on"]
    text = render_markdown(report)
    assert text.encode()
    assert SHOWN in unescaped(text)
    assert not re.search(r"(?<!\\)<", text)
    assert "\n# e" not in text
    assert "](a%20b%281%29%23%C3%A9.jpg)" in text
    for lines in markdown_tables(text):
        assert len({len(cells) for cells in lines}) == 1


# -- the page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [full_report, sparse_report])
def test_the_page_loads_and_runs_nothing(make: Any) -> None:
    report = make()
    text = render_html(report, sheets(report))
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    assert all(source.startswith("data:image/") for source in page.all("src"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|https?:|//", style)
    assert "default-src 'none'" in page.all("content")[0]


def test_sheets_are_embedded() -> None:
    report, shown = full_report(), sheets(full_report())
    page = Page(render_html(report, shown))
    sources = [s.partition(",")[2] for s in page.all("src") if s.startswith("data:image/jpeg")]
    assert [base64.b64decode(source) for source in sources] == list(shown.values())
    names = ("compact-128", "ragan-compact", "HRFAE")
    titles = [f"{name}: {kind}" for name in names for kind in ("random", "best", "worst")]
    assert page.all("alt")[1:] == titles
    assert "![compact-128: worst](sheet-compact-128-worst.jpg)" in render_markdown(report)


def test_the_page_has_a_chart_of_predicted_ages() -> None:
    def svgs(report: Report) -> list[bytes]:
        sources = [s for s in page_of(report).all("src") if s.startswith("data:image/svg")]
        return [base64.b64decode(source.partition(",")[2]) for source in sources]

    (drawn,) = svgs(full_report())
    assert drawn.startswith(b"<?xml")
    assert svgs(full_report()) == [drawn]  # no date and no random ids
    assert svgs(sparse_report()) == []


def test_the_chart_draws_every_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    lines, bands = {}, {}
    plot, fill = Axes.plot, Axes.fill_between

    def watch_plot(self: Axes, x: Any, y: Any, **style: Any) -> Any:
        lines[style["label"]] = list(zip(x, y, strict=True))
        return plot(self, x, y, **style)

    def watch_fill(self: Axes, x: Any, low: Any, high: Any, **style: Any) -> Any:
        bands[len(bands)] = (list(low), list(high))
        return fill(self, x, low, high, **style)

    monkeypatch.setattr(Axes, "plot", watch_plot)
    monkeypatch.setattr(Axes, "fill_between", watch_fill)
    rows = [TargetResult(5.0), TargetResult(45.0, Estimate(40, 36, 44))]
    real = [AgeResult("3-6", label=Estimate(4), predicted=Estimate(6, 5, 7)), AgeResult("all")]
    draw_control({"a": rows}, real)
    assert lines["a"] == [(45, 40)]  # without what was not measured
    assert lines["real faces, at their label"] == [(4, 6)]
    assert bands == {0: ([5], [7]), 1: ([36], [44])}


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=rf"needs {missing}.*pip install 'faceage\[evaluate\]'"):
        render_html(full_report(), sheets(full_report()))
    assert render_markdown(full_report())  # needs neither
