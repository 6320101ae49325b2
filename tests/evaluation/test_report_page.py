"""The page in a real browser: it is drawn, fits its window, and prints."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_data import full_report, sheets, sparse_report

from faceage.evaluation.report import render_html

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome here"),
]

Browse = Callable[..., str]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """`browse(page, "--flag=x")`: what the browser wrote on stdout."""

    def call(page: Path, *flags: str) -> str:
        assert BROWSER
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [BROWSER, *FLAGS, profile, *flags, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
        return done.stdout

    return call


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a full report, of a sparse one, and of one with many long names."""
    full = full_report()
    name = "a_model_with_a_name_that_has_no_place_to_break_" * 3
    methods = [
        replace(full.methods[0], info=replace(full.methods[0].info, name=f"{name}{i}"))
        for i in range(7)
    ]
    many = replace(full, methods=tuple(methods), data=name * 3, remarks=(name * 3,))
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for kind, report in {"full": full, "sparse": sparse_report(), "many": many}.items():
        found[kind] = folder / f"{kind}.html"
        found[kind].write_text(render_html(report, sheets(report)), encoding="utf-8")
    return found


def framed(page: Path, width: int, height: int) -> Path:
    """A page that shows another one in a frame: a browser's own window has a least width."""
    frame = page.with_name(f"{page.stem}-{width}.html")
    size = f"width:{width}px;height:{height}px;border:0"
    frame.write_text(
        "<!doctype html><body style='margin:0'><script>"
        "addEventListener('message', event => document.title = event.data)</script>"
        f"<iframe src='{page.name}' style='{size}'></iframe>",
        encoding="utf-8",
    )
    return frame


def reporting(page: Path) -> Path:
    """A copy of the page that sends its width to its frame, before its own policy forbids it."""
    copy = page.with_name(f"{page.stem}-reporting.html")
    script = (
        "<script>addEventListener('load', () => parent.postMessage("
        "document.documentElement.scrollWidth + ' of ' + innerWidth, '*'))</script>"
    )
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("<head>", f"<head>{script}", 1), encoding="utf-8")
    return copy


@pytest.mark.parametrize("kind", ["full", "sparse", "many"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_is_not_wider_than_its_window(
    pages: dict[str, Path], browse: Browse, kind: str, width: int
) -> None:
    frame = framed(reporting(pages[kind]), width, 800)
    shown = browse(frame, "--dump-dom", "--virtual-time-budget=5000")
    assert re.findall(r"<title>(.*)</title>", shown) == [f"{width} of {width}"]


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_drawn(
    pages: dict[str, Path], browse: Browse, tmp_path: Path, dark: bool
) -> None:
    picture = tmp_path / "page.png"
    scheme = ["--force-dark-mode"] if dark else []
    browse(pages["full"], f"--screenshot={picture}", "--window-size=1280,4000", *scheme)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (4000, 1280, 3)
    paper = pixels[5, 5]
    assert (paper.mean() < 60) == dark
    ink = np.abs(pixels - paper).sum(-1) > 120
    assert 0.01 < ink.mean() < 0.3
    strips = ink.reshape(10, 400, -1).mean((1, 2))
    assert (strips > 0.002).all()  # nothing is left blank from top to bottom
    colours = {tuple(colour) for colour in pixels[::3, ::3].reshape(-1, 3)}
    assert len(colours) > 200  # the charts are coloured


def test_the_page_prints(pages: dict[str, Path], browse: Browse, tmp_path: Path) -> None:
    printed = tmp_path / "page.pdf"
    browse(pages["full"], f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    data = printed.read_bytes()
    assert data.startswith(b"%PDF")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", data)) < 25
    assert len(re.findall(rb"/Subtype\s*/Image", data)) >= 9  # the contact sheets
