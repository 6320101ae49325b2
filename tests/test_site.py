"""The documentation site builds without warnings, is complete, and needs no other server."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import faceage
from faceage.cli import app

pytest.importorskip("material", reason="needs the extra faceage[docs]")
pytest.importorskip("mkdocstrings", reason="needs the extra faceage[docs]")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return folder


def read_page(site: Path, name: str) -> str:
    return html.unescape((site / name / "index.html").read_text(encoding="utf-8"))


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    sections = read_page(site, "reference/cli").split("<h2 ")
    commands = {"faceage": typer.main.get_command(app)}
    while commands:
        name, command = commands.popitem()
        commands |= {f"{name} {word}": c for word, c in getattr(command, "commands", {}).items()}
        (section,) = (text for text in sections if f">{name}<a " in text)
        options = [option for parameter in command.params for option in parameter.opts]
        assert [o for o in options if o.startswith("-") and o not in section] == [], name


def test_the_exported_names_are_in_the_python_reference(site: Path) -> None:
    page = read_page(site, "reference/api")
    names = [name for name in faceage.__all__ if name != "__version__"]
    assert [
        name for name in names if not re.search(rf'id="faceage\.(errors\.)?{name}"', page)
    ] == []


@pytest.mark.parametrize("name", ["", "CHANGELOG", "CONTRIBUTING", "SECURITY", "weights"])
def test_pages_outside_the_docs_folder_are_included(site: Path, name: str) -> None:
    assert "<h1" in read_page(site, name)


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    tags = r"<(?:script|img|iframe|source)[^>]+src=[\"']?(?:https?:)?//|<link[^>]+stylesheet[^>]+//"
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not re.search(tags, page.read_text(encoding="utf-8")), page
