"""Hooks of the documentation site: the files outside docs/, and the reference of the command line.

The source path of every page is its path in the repository, so that a relative link works both in
the repository and on the site. The addresses on the site leave out `docs/`.
"""

import html
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

from faceage.cli import app

# Pages outside docs/, and the files that pages link to.
OUTSIDE = (
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "LICENSES/*.txt",
    "SECURITY.md",
    "benchmarks/*.py",
    "examples/*",
    "weights/README.md",
)
CLI_PAGE = "docs/reference/cli.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Name the files of docs/ by their paths in the repository, and add those outside it."""
    root = Path(config.config_file_path).parent
    theme = [file for file in files if file.src_dir != config.docs_dir]
    inside = [f"docs/{file.src_uri}" for file in files if file.src_dir == config.docs_dir]
    outside = [
        path.relative_to(root).as_posix()
        for pattern in OUTSIDE
        for path in sorted(root.glob(pattern))
    ]
    own = [
        File(uri, str(root), config.site_dir, config.use_directory_urls)
        for uri in (*inside, *outside)
    ]
    for file in own:
        file.dest_uri = file.dest_uri.removeprefix("docs/")
    return Files([*theme, *own])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Append the reference of all commands to its page."""
    if page.file.src_uri != CLI_PAGE:
        return markdown
    return "\n\n".join([markdown, *_render_command(get_command(app), "faceage")])


def _render_command(command: Any, name: str) -> Iterator[str]:
    """The sections of a command, called by `name`, and of its sub-commands."""
    context = typer.Context(command, info_name=name)
    yield f"## {name}"
    yield html.escape(command.help, quote=False)
    yield f"    {' '.join([name, *command.collect_usage_pieces(context)])}"
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [(f"<code>{_escape(names)}</code>", _escape(text)) for names, text in records]
    yield _render_table("argument or option", "meaning", rows)
    commands: dict[str, Any] = getattr(command, "commands", {})
    if commands:
        inner_commands = {f"{name} {word}": inner for word, inner in commands.items()}
        rows = [
            (f"[{words}](#{words.replace(' ', '-')})", _escape(inner.help.split("\n\n")[0]))
            for words, inner in inner_commands.items()
        ]
        yield _render_table("command", "purpose", rows)
        for words, inner in inner_commands.items():
            yield from _render_command(inner, words)


def _render_table(name: str, meaning: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {name} | {meaning} |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Text for a cell of a table, in one line."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")
