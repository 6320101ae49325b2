"""The folder of a run: lock, options, journal, links to the real pictures, a full disk."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceage.balance.folder import Journal, link_real, open_folder, write_table
from faceage.data.datasets import open_dataset
from faceage.errors import ConfigError, DataError, OutputError
from faceage.files import write_file

OPTIONS = {"--seed": 0, "--tries": 4}


def test_a_folder_is_continued_with_the_same_options_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        with open_folder(out, OPTIONS):
            pass
    with (
        pytest.raises(ConfigError, match="other values of: --seed"),
        open_folder(out, OPTIONS | {"--seed": 1}),
    ):
        pass


def test_two_runs_into_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        open_folder(tmp_path / "out", OPTIONS),
        pytest.raises(OutputError, match="Another faceage balance is writing into"),
        open_folder(tmp_path / "out", OPTIONS),
    ):
        pass
    with open_folder(tmp_path / "out", OPTIONS):  # it is free again
        pass


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("text")
    with pytest.raises(OutputError, match="did not write"), open_folder(tmp_path, OPTIONS):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_folder(out, OPTIONS):
        (out / "synthetic").mkdir()
        (out / "synthetic" / ".faceage-0123.tmp").write_bytes(b"half")
    with open_folder(out, OPTIONS):
        assert list((out / "synthetic").iterdir()) == []


def test_damaged_options_are_reported(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_folder(out, OPTIONS):
        pass
    (out / "balance.json").write_text("{")
    with pytest.raises(DataError, match=r"balance\.json cannot be read"), open_folder(out, OPTIONS):
        pass


def test_a_full_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder(tmp_path / "out", OPTIONS) as out:
        pass

    def fail(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", fail)
    with (
        pytest.raises(OutputError, match=r"The disk is full.*same command again"),
        open_folder(out, OPTIONS),
    ):
        write_file(out / "picture.png", b"0123", force=True)
    assert not (out / "picture.png").exists()


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^mine$"), open_folder(tmp_path / "out", OPTIONS):
        raise OutputError("mine")


def test_a_journal_keeps_its_entries_and_cuts_off_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for number in range(3):
        journal.append({"number": number})
    whole = path.read_bytes()
    for cut in range(1, 15):
        path.write_bytes(whole[:-cut])
        assert [row["number"] for row in Journal(path).rows] == [0, 1]
        assert path.read_bytes() == whole[: 2 * len(whole) // 3]


def test_a_damaged_journal_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"number": 0}\nnonsense\n{"number": 2}\n')
    with pytest.raises(DataError, match="line 2, cannot be read"):
        Journal(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    (root / "faces.csv").write_text("file,age,set\na.png,1,train\nb.png,30,train\n")
    for name, level in (("a", 10), ("b", 200)):
        Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(root / f"{name}.png")
    return root


@pytest.mark.parametrize("links", [True, False])
def test_real_pictures_are_linked_or_copied(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another file system")

    if not links:
        monkeypatch.setattr(os, "link", fail)
    out = tmp_path / "out"
    for _ in range(2):
        link_real(open_dataset(dataset), out)
    for name in ("a.png", "b.png"):
        assert (out / "real" / name).read_bytes() == (dataset / name).read_bytes()
        assert ((out / "real" / name).stat().st_nlink == 2) == links


def test_a_missing_real_picture_is_reported(dataset: Path, tmp_path: Path) -> None:
    (dataset / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures .* missing, such as b\.png"):
        link_real(open_dataset(dataset), tmp_path / "out")


def test_another_file_in_place_of_a_real_picture_is_kept(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "real").mkdir(parents=True)
    (out / "real" / "a.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a\.png is not the picture"):
        link_real(open_dataset(dataset), out)
    assert (out / "real" / "a.png").read_bytes() == b"mine"


def test_a_table_that_was_changed_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    for _ in range(2):
        write_table(path, "file,age\n")
    path.write_text("file,age\nmine.png,3\n")
    with pytest.raises(OutputError, match="does not match the pictures of its folder"):
        write_table(path, "file,age\n")
    assert path.read_text() == "file,age\nmine.png,3\n"
