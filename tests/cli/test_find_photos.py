"""Finding the photos that arguments name."""

from pathlib import Path

import pytest

from faceage.cli.inputs import find_photos, leave_out_results
from faceage.errors import PhotoError


def test_find_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", ".hidden.jpg", "notes.txt", "c.jpg"):
        Path(name).write_bytes(b"x")
    Path("empty").mkdir()
    assert find_photos(["."]) == [Path("a.png"), Path("b.JPG"), Path("c.jpg")]
    assert find_photos(["*.jpg"]) == [Path("c.jpg")]
    assert find_photos(["c.jpg", "*.*"]) == [Path("c.jpg"), Path("a.png"), Path("b.JPG")]
    # A missing one stays, for the rest of the batch to be done.
    assert find_photos(["gone.jpg", "a.png"]) == [Path("gone.jpg"), Path("a.png")]
    for argument, said in {
        "empty": "folder empty has no photos",
        "*.bmp": r"pattern \*\.bmp",
    }.items():
        with pytest.raises(PhotoError, match=said):
            find_photos([argument])


def test_results_that_are_named_one_by_one_are_kept() -> None:
    names = ["me.jpg", "me.age05.jpg", "me.sheet.jpg", "me.face2.age05.png", "you.age05.jpg"]
    paths = [Path(name) for name in names]
    assert leave_out_results(paths, ["."]) == [Path("me.jpg"), Path("you.age05.jpg")]
    assert leave_out_results(paths, ["me.age05.jpg"]) == [Path(n) for n in (*names[:2], names[4])]
