"""Tar shards in WebDataset layout."""

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

from faceage.errors import ConfigError, DataError
from faceage.scale.tars import add_member, add_metadata, make_keys, read_pictures

PICTURES = frozenset({".jpg", ".png"})


def write(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            add_member(archive, name, data)
    return path


def test_keys_are_unique_and_have_no_dot_in_the_file_name() -> None:
    names = ["d/a.b/x.jpg", "d/a.b/x.png", "d/a.b/y.2.jpg", "d/c/x.jpg", "d/c/x_jpg.jpg"]
    assert list(make_keys(names).values()) == [
        "a.b/x_jpg",
        "a.b/x_png",
        "a.b/y_2",
        "c/x",
        "c/x_jpg",
    ]
    assert list(make_keys(names, strip=False).values())[3] == "d/c/x"
    hard = ["x.jpg", "x.png", "x_jpg.jpg", "x.jpg.gif", "../x.webp"]
    assert len(set(make_keys(hard).values())) == 5
    assert make_keys(["/p/only.jpg"]) == {"/p/only.jpg": "only"}
    assert make_keys(["/p/x.jpg", "../x.jpg"], strip=False) == {"/p/x.jpg": "p/x", "../x.jpg": "x"}


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    members = {"a.age05.jpg": b"123", "a.age70.jpg": b"4" * 1000}
    one, two = (write(tmp_path / name, members) for name in ("1.tar", "2.tar"))
    assert one.read_bytes() == two.read_bytes()


def test_pictures_of_a_tar(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    members = {"d/1.jpg": b"one", "d/1.json": b"{}", "d/2.age05.png": b"two", "d/2.txt": b"no"}
    tar = write(tmp_path / "t.tar", members)
    assert list(read_pictures(tar, PICTURES)) == [("d/1.jpg", b"one"), ("d/2.age05.png", b"two")]


def test_results_are_samples_for_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as archive:
        add_member(archive, "d/x.age05.jpg", b"5")
        add_member(archive, "d/x.age70.jpg", b"70")
        add_metadata(archive, "d/x", {"photo": "d/x.jpg", "faces": []})
    (sample,) = webdataset.WebDataset([str(path)], shardshuffle=False)
    assert (sample["__key__"], sample["age05.jpg"], sample["age70.jpg"]) == ("d/x", b"5", b"70")
    assert json.loads(sample["json"])["photo"] == "d/x.jpg"


def test_a_tar_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    data = write(tmp_path / "t.tar", {f"{i}.jpg": b"x" * 700 for i in range(3)}).read_bytes()
    cut = tmp_path / "cut.tar"
    for size in (0, 1, 512, 1024, 1536, 2000, 3 * 1536):
        cut.write_bytes(data[:size])
        with pytest.raises(DataError, match="Cannot read the shard"):
            list(read_pictures(cut, PICTURES))
    with pytest.raises(DataError, match="No such file"):
        list(read_pictures(tmp_path / "gone.tar", PICTURES))


def test_a_damaged_tar_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    tar = tmp_path / "t.tar"
    tar.write_bytes(b"no tar" * 1000 + bytes(1024))
    with pytest.raises(DataError, match="Cannot read the shard"):
        list(read_pictures(tar, PICTURES))


def test_links_and_special_files_are_no_pictures(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    tar = tmp_path / "t.tar"
    with tarfile.open(tar, "w") as archive:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("folder.jpg/"), io.BytesIO())
        add_member(archive, "b.jpg", b"b")
    names = [name for name, data in read_pictures(tar, PICTURES) if data]
    assert names == ["b.jpg"]


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ConfigError, match=r"pip install 'faceage\[scale\]'"):
        list(read_pictures(write(tmp_path / "t.tar", {}), PICTURES))
