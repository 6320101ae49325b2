"""Finding the photos that arguments name."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from faceage.cli.inputs import collect_items, leave_out_results
from faceage.imaging.photos import Photo, save_photo


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


def test_pictures_that_cannot_be_read_are_named(
    folder: Path, run, capsys: pytest.CaptureFixture
) -> None:
    for name in ("IMG_1.RAF", "IMG_2.psd", "IMG_3.dng", "IMG_4.cr2", "IMG_5.nef"):
        Path(name).write_bytes(b"x")
    assert len(paths(".")) == 4
    said = "skipped IMG_1.RAF, IMG_2.psd, IMG_3.dng and 2 more: cannot read this format"
    assert said in capsys.readouterr().err
    assert said in run("predict", ".", "--weights", "nonsuch").err
    assert said not in run("predict", ".", "--weights", "nonsuch", "--quiet").err


def test_a_list_on_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("c.jpg\n\n[1] (copy).png\ndeep\n"))
    items = collect_items(["a.png", "-"])
    assert [i.name for i in items] == ["a.png", "c.jpg", "[1] (copy).png", "deep/d.jpg"]
    assert [item.named for item in items] == [True, False, False, False]


def test_own_results_are_recognised_by_their_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pixels = np.full((20, 20, 3), 90, np.uint8)
    photo = Photo(pixels)
    for name in ("a.png", "b.jpg", "c.webp", "d.tif"):
        save_photo(photo, pixels, tmp_path / name, synthetic={"age": 5})
    save_photo(photo, pixels, tmp_path / "e.jpg", annotated=True)
    save_photo(photo, pixels, tmp_path / "f.age05.jpg")  # named like a result, but is none
    (tmp_path / "g.jpg").write_text("no picture: opening it tells")
    items = collect_items([str(tmp_path)])
    kept = leave_out_results(items, include_synthetic=False)
    assert [item.path.name for item in kept] == ["f.age05.jpg", "g.jpg"]
    assert capsys.readouterr().err.startswith("note: left out 5 of 7 pictures")
    assert leave_out_results(items, include_synthetic=True) == items
    named = collect_items([str(tmp_path / "a.png")])
    assert leave_out_results(named, include_synthetic=False) == named
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["predict", "age", "align"])
def test_commands_leave_out_synthetic_pictures(
    run, tiny_weights: Path, portrait_png: Path, command: str
) -> None:
    weights, folder = ("--weights", tiny_weights), portrait_png.parent
    assert run("age", portrait_png, *weights, "--to", 5, "--sheet").code == 0
    options = {
        "predict": (*weights, "--json"),
        "age": (*weights, "--to", 70, "--out", folder / "out"),
        "align": ("--out", folder / "out"),
    }[command]
    answer = run(command, folder, *options)
    assert answer.code == 0
    assert "left out 2 of 3 pictures" in answer.err
    if command == "predict":
        assert [row["file"] for row in json.loads(answer.out)] == [str(portrait_png)]
        rows = json.loads(run(command, folder, *options, "--include-synthetic").out)
        assert len({row["file"] for row in rows}) == 3
    else:
        results = [path.stem for path in (folder / "out").glob("*.png")]
        assert results == (["me.age70"] if command == "age" else ["me"])
