"""Atomic writes."""

from pathlib import Path

import pytest

from faceage import files
from faceage.errors import OutputError
from faceage.files import write_file


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "o.bin"
    move = files._rename_without_overwriting

    def appear_first(source: Path, path: Path) -> None:
        target.write_bytes(b"precious")
        move(source, path)

    monkeypatch.setattr(files, "_rename_without_overwriting", appear_first)
    with pytest.raises(OutputError, match="exists already"):
        write_file(target, b"new")
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]


def test_writing_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", no_links)
    assert write_file(tmp_path / "o.bin", b"new").read_bytes() == b"new"
    with pytest.raises(OutputError, match="exists already"):
        write_file(tmp_path / "o.bin", b"newer")
    assert [p.name for p in tmp_path.iterdir()] == ["o.bin"]
