"""Dividing photos into shards, and the output folder."""

import csv
from pathlib import Path

import pytest

from faceage.errors import ConfigError, OutputError
from faceage.scale.shards import Shard, ShardFolder, parse_shard, shard_file


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 1), (10, 3), (16, 16), (1001, 7), (5, 8)])
def test_shards_hold_every_item_once_in_order(size: int, count: int) -> None:
    items = list(range(size))
    parts = [Shard(index, count).select(items) for index in range(1, count + 1)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_names_sort_in_the_order_of_the_shards() -> None:
    names = [Shard(index, 1200).name for index in range(1, 1201)]
    assert names[2] == "00003-of-01200"
    assert names == sorted(names)


def test_parse_shard() -> None:
    assert parse_shard("3/16") == Shard(3, 16)
    for text in ("0/4", "5/4", "3", "3/", "-1/4", "1/0", "a/b", "1/4/2", " 1/4", "٣/٤"):
        with pytest.raises(ConfigError, match="Cannot read the shard"):
            parse_shard(text)


def make_folder(tmp_path: Path) -> ShardFolder:
    return ShardFolder(tmp_path / "out", "predictions", ".txt")


def test_a_folder_is_claimed_by_one_kind_of_run(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    folder.claim({"photos": 3, "face": "all"}, force=False)
    folder.claim({"photos": 3, "face": "all"}, force=False)
    kept = folder.file(Shard(1, 2))
    kept.write_text("done")
    with pytest.raises(OutputError, match=r"differs in face, photos\."):
        folder.claim({"photos": 4, "face": 1}, force=False)
    assert kept.read_text() == "done"
    folder.claim({"photos": 3, "face": "all"}, force=True)
    assert kept.exists()  # the same run: nothing to delete
    folder.claim({"photos": 4, "face": 1}, force=True)
    assert not kept.exists()


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    folder.claim({"photos": 3}, force=False)
    (folder.root / "shards.json").write_text('{"photos"')
    with pytest.raises(OutputError, match="results of another run"):
        folder.claim({"photos": 3}, force=False)


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="Cannot create the folder"):
        make_folder(tmp_path).claim({}, force=False)


def test_a_shard_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "a.txt"
    left = tmp_path / "predictions" / ".a.txt.0123.tmp"
    left.mkdir(parents=True)
    other = tmp_path / "predictions" / ".b.txt.0123.tmp"
    other.mkdir()
    with shard_file(path) as folder:
        (folder / "a.txt").write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert not left.exists()
    assert other.exists()


def test_a_shard_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(ZeroDivisionError), shard_file(path) as folder:
        1 / (folder / "a.txt").write_bytes(b"")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="No space left"), shard_file(path):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_failures_of_complete_shards_are_merged_in_order(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    folder.claim({}, force=False)
    for index in (2, 1, 3):
        shard = Shard(index, 3)
        folder.write_failures(shard, [(f'{index}, "x".jpg', "two\nlines")])
        if index != 3:
            folder.file(shard).touch()
    merged = folder.merge_failures(3)
    assert merged == folder.root / "failures.csv"
    rows = list(csv.reader(merged.read_text().splitlines(keepends=True)))
    expected = [["file", "error"], *([f'{i}, "x".jpg', "two\nlines"] for i in (1, 2))]
    assert rows == expected
    for index in (1, 2, 3):
        folder.write_failures(Shard(index, 3), [])
    assert folder.merge_failures(3) is None
    assert not merged.exists()
