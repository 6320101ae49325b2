"""Finding the photos that arguments name."""

import io
from pathlib import Path

import pytest

from faceage.cli.inputs import Item, collect_items, leave_out_results


def paths(*arguments: str, recursive: bool = False, exclude: Path | None = None) -> list[str]:
    items = collect_items(arguments, recursive=recursive, exclude=exclude)
    assert not any(item.error for item in items)
    return [item.name for item in items]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", ".hidden.jpg", "notes.txt", "c.jpg", "[1] (copy).png"):
        Path(name).write_bytes(b"x")
    for name in ("empty", "deep/er", "deep/.cache"):
        Path(name).mkdir(parents=True)
    for name in ("deep/d.jpg", "deep/er/e.jpg", "deep/er/c.jpg", "deep/.cache/f.jpg"):
        Path(name).write_bytes(b"x")
    return tmp_path


def test_files_folders_and_globs(folder: Path) -> None:
    assert paths(".") == ["[1] (copy).png", "a.png", "b.JPG", "c.jpg"]
    assert paths("*.jpg") == ["c.jpg"]
    assert paths("c.jpg", "[ab]*.*") == ["c.jpg", "a.png", "b.JPG"]
    assert paths("[1] (copy).png") == ["[1] (copy).png"]
    # A missing file is listed, so that the others are done.
    assert paths("gone.jpg", "a.png") == ["gone.jpg", "a.png"]


def test_every_photo_is_taken_once(folder: Path) -> None:
    assert paths("c.jpg", str(folder / "c.jpg"), "./c.jpg", "*.jpg") == ["c.jpg"]


def test_arguments_without_photos_keep_their_place(folder: Path) -> None:
    items = collect_items(["empty", "a.png", "*.bmp", "deep/er/.."])
    assert [item.name for item in items] == ["empty", "a.png", "*.bmp", "deep/er/../d.jpg"]
    assert "folder empty has no photos" in items[0].error
    assert "pattern *.bmp has no photos" in items[2].error
    Path("deep/d.jpg").unlink()
    (item,) = collect_items(["deep"])
    assert "Use --recursive" in item.error


def test_recursive(folder: Path) -> None:
    found = ["deep/d.jpg", "deep/er/c.jpg", "deep/er/e.jpg"]
    assert paths("deep", recursive=True) == found
    assert paths("deep") == found[:1]
    assert paths("deep", recursive=True, exclude=Path("deep/er")) == found[:1]
    items = collect_items(["deep", "c.jpg"], recursive=True)
    assert [str(item.subfolder) for item in items] == [".", "er", "er", "."]


def test_a_list_on_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("c.jpg\n\n[1] (copy).png\ndeep\n"))
    items = collect_items(["a.png", "-"])
    assert [i.name for i in items] == ["a.png", "c.jpg", "[1] (copy).png", "deep/d.jpg"]
    assert [item.named for item in items] == [True, False, False, False]


def test_results_given_by_themselves_are_kept() -> None:
    names = ["me.jpg", "me.age05.jpg", "me.sheet.jpg", "me.face2.age05.png", "you.age05.jpg"]
    items = [Item(Path(name)) for name in names]
    assert [i.name for i in leave_out_results(items)] == ["me.jpg", "you.age05.jpg"]
    items[1].named = True
    assert [i.name for i in leave_out_results(items)] == ["me.jpg", "me.age05.jpg", "you.age05.jpg"]
