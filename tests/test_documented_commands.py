"""The commands in the documentation: all are valid, and those that need only photos are run."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from PIL import Image
from typer.testing import CliRunner

from faceage.cli import app
from faceage.training.config import make_config

ROOT = Path(__file__).parent.parent
GUIDE = sorted(ROOT.glob("docs/guide/*.md"))
OLD = ROOT / "docs" / "results.md"  # its commands are those of earlier commits
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *GUIDE, ROOT / "weights" / "README.md"} - {OLD}
)
PROGRAMS = ("faceage", "ls", "pip", "torchrun")  # the guide uses no others
RUN = [ROOT / "docs" / "guide" / f"{name}.md" for name in ("predict", "age", "faces", "batches")]
BLOCKS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_lines(page: Path) -> list[str]:
    """The lines of the indented code blocks, with continued lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.startswith("    ") and line.strip()]


def split_line(line: str) -> list[list[str]]:
    """The simple commands of a line of shell, without redirections and comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&>")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word == ">":
            next(words)
        elif word in ("|", "&&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def commands_of(page: Path) -> Iterator[list[str]]:
    """The simple commands of a page whose program is checked here, without what precedes it."""
    for line in code_lines(page):
        if not line.startswith(("faceage", "pip install", "torchrun", "python ", "time ", "OMP_")):
            continue
        for command in split_line(line):
            while command[0] == "time" or "=" in command[0]:
                command.pop(0)
            yield command


def parse(arguments: list[str]) -> tuple[str, dict[str, object]]:
    """Parse the arguments of `faceage` without running it: the command's name and its options."""
    command, name = typer.main.get_command(app), "faceage"
    while hasattr(command, "commands") and not arguments[0].startswith("-"):
        name, arguments = arguments[0], arguments[1:]
        command = command.commands[name]
    try:
        return name, command.make_context(name, list(arguments)).params
    except typer.Exit:  # of --help
        return name, {}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_valid(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    extras = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for program, *arguments in commands_of(page):
        if "-m" in arguments and program in ("python", "torchrun"):
            program, *arguments = arguments[arguments.index("-m") + 1 :]
        if program == "faceage":
            check_options(*parse(arguments))
        elif program == "python" and arguments[0] != "-c":
            assert Path(arguments[0]).exists(), arguments
        elif program == "pip":
            for extra in re.findall(r"\.\[([\w,]+)\]", " ".join(arguments)):
                assert set(extra.split(",")) <= set(extras)


def check_options(name: str, options: dict[str, object]) -> None:
    """Check the options of `train`, which depend on each other."""
    if name != "train":
        return
    fixed = [options[key] for key in ("recipe", "data", "out", "settings")]
    changes = {key: options[key] for key in ("images", "vgg", "pairs", "licence")}
    weights = options["weights"] and Path(str(options["weights"]))
    make_config(*fixed[:3], fixed[3] or (), weights=weights, **changes).check()


@pytest.mark.parametrize("page", GUIDE, ids=name_of)
def test_code_of_the_guide_is_commands(page: Path) -> None:
    programs = {command[0] for line in code_lines(page) for command in split_line(line)}
    assert programs <= set(PROGRAMS)


@pytest.fixture
def photos(tmp_path: Path, astronaut: Path, couple: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the photos that the pages name."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name in ("photo.jpg", "me.jpg", "a.jpg", "photos/x.jpg", "photos/more/y.jpg"):
        shutil.copy(astronaut, tmp_path / name)
    Image.open(astronaut).save(tmp_path / "b.png")
    Image.open(couple).save(tmp_path / "party.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_line(line: str, weights: Path) -> None:
    """Run a line of shell whose last command is one of faceage; needs no network."""
    before, _, last = line.rpartition("| ")
    (arguments,) = split_line(last)
    if arguments[1] in ("predict", "age") and "--weights" not in arguments:
        arguments += ["--weights", str(weights)]
    stdin = subprocess.run(before, shell=True, capture_output=True, text=True).stdout
    result = CliRunner().invoke(app, arguments[1:], input=stdin)
    assert result.exit_code == 0, (line, result.stdout + result.stderr)
    assert result.stdout


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_commands_run_and_write_the_files_that_the_page_names(
    page: Path, photos: Path, tiny_weights: Path
) -> None:
    # These need the network, or a certificate.
    lines = [line for line in code_lines(page) if not re.search("retinaface|--sign", line)]
    assert len(lines) >= 5
    present = set(photos.rglob("*"))
    written: set[str] = set()
    for line in lines:
        run_line(line, tiny_weights)
        for path in sorted(set(photos.rglob("*")) - present, reverse=True):
            written.add(path.relative_to(photos).as_posix())
            path.rmdir() if path.is_dir() else path.unlink()
    named = set(re.findall(r"`((?:\w+/)?photo\.[\w.]+)`", page.read_text(encoding="utf-8")))
    assert named - {"photo.jpg"} <= written


@pytest.mark.parametrize("page", ["README.md", "docs/reference/api.md"])
def test_python_code_runs(page: str, photos: Path) -> None:
    (code,) = BLOCKS.findall((ROOT / page).read_text(encoding="utf-8"))
    exec(code, {})
    assert (photos / "aged70.png").exists() or page == "README.md"
