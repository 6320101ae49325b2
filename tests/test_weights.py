import hashlib
import json
import sys
from pathlib import Path

import pytest

from faceage import hub
from faceage.errors import WeightsError


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of `weights/`."""
    folder = tmp_path / "packaged"
    folder.mkdir()
    monkeypatch.setattr(hub, "packaged_dir", lambda: folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FACEAGE_CACHE", str(folder))
    return folder


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packaged: Path, cache: Path) -> Path:
    """A file behind a URL, registered as "far"."""
    file = tmp_path / "remote.bin"
    file.write_bytes(b"model" * 1000)
    entry = hub.WeightsFile(
        file="far.bin",
        what="a test",
        licence="none",
        url=file.as_uri(),
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    monkeypatch.setitem(hub.REGISTRY, "far", entry)
    return file


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACEAGE_CACHE", str(tmp_path / "own"))
    assert hub.cache_dir() == tmp_path / "own"
    monkeypatch.delenv("FACEAGE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub.cache_dir() == tmp_path / "xdg" / "faceage"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.cache_dir() == tmp_path / ".cache" / "faceage"


def test_find_prefers_package_to_cache_and_path_to_nothing(packaged: Path, cache: Path) -> None:
    cache.mkdir()
    name = hub.REGISTRY[hub.DEFAULT].file
    (cache / name).write_bytes(b"b")
    assert hub.find() == cache / name
    (packaged / name).write_bytes(b"a")
    assert hub.find() == hub.find(hub.DEFAULT) == packaged / name
    own = packaged / "own.safetensors"
    own.write_bytes(b"c")
    assert hub.find("own") == hub.find(own) == hub.find(str(own)) == own


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonsuch", "No weights file nonsuch. Give a path, or one of: compact-128, retinaface."),
        (hub.DEFAULT, "missing from"),
        ("retinaface", "Get them with: faceage weights fetch retinaface"),
        (".", "is a folder"),
    ],
)
def test_find_says_what_is_missing(packaged: Path, cache: Path, name: str, says: str) -> None:
    with pytest.raises(WeightsError, match=says.replace(".", r"\.")):
        hub.find(name)


def test_fetch_keeps_what_hashes_right(remote: Path, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = hub.fetch("far", progress=lambda *numbers: seen.append(numbers))
    assert path == cache / "far.bin"
    assert path.read_bytes() == remote.read_bytes()
    assert seen[-1] == (5000, 5000)
    assert [p.name for p in cache.iterdir()] == ["far.bin"]
    assert hub.find("far") == path
    remote.unlink()
    assert hub.fetch("far") == path  # intact and here: nothing is downloaded


@pytest.mark.parametrize("damage", [b"model" * 999, b"modem" * 1000, b""])
def test_fetch_throws_away_what_hashes_wrong(remote: Path, cache: Path, damage: bytes) -> None:
    remote.write_bytes(damage)
    with pytest.raises(WeightsError, match="sha256"):
        hub.fetch("far")
    assert list(cache.iterdir()) == []


def test_fetch_replaces_a_damaged_file_but_only_by_a_right_one(remote: Path, cache: Path) -> None:
    good = remote.read_bytes()
    cache.mkdir()
    (cache / "far.bin").write_bytes(b"damaged")
    remote.write_bytes(b"wrong too")
    with pytest.raises(WeightsError):
        hub.fetch("far")
    assert (cache / "far.bin").read_bytes() == b"damaged"
    remote.write_bytes(good)
    assert hub.fetch("far").read_bytes() == good


def test_fetch_without_connection_names_url_and_place(remote: Path, cache: Path) -> None:
    remote.unlink()
    with pytest.raises(WeightsError) as caught:
        hub.fetch("far")
    assert remote.as_uri() in str(caught.value)
    assert str(cache / "far.bin") in caught.value.hint
    assert list(cache.iterdir()) == []


def test_fetch_into_an_unwritable_cache(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("FACEAGE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match="FACEAGE_CACHE"):
        hub.fetch("far")


def test_fetch_refuses_unknown_names(packaged: Path, cache: Path) -> None:
    with pytest.raises(WeightsError, match="retinaface"):
        hub.fetch("nonsuch")


def test_verify_finds_good_changed_missing_and_unlisted(packaged: Path, cache: Path) -> None:
    for name, content in {"good": b"1", "changed": b"2", "unlisted": b"3"}.items():
        (packaged / f"{name}.safetensors").write_bytes(content)
    one = hashlib.sha256(b"1").hexdigest()
    lines = [f"{one}  {name}.safetensors\n" for name in ("good", "changed", "gone")]
    (packaged / "SHA256SUMS").write_text("".join(lines))
    problems = {check.path.stem: check.problem for check in hub.verify()}
    assert problems.pop("good") == ""
    assert problems.pop("changed").startswith("changed")
    assert problems.pop("gone") == "missing"
    assert problems.pop("unlisted") == "not listed in SHA256SUMS"
    assert problems == {}


def test_verify_one_fetched_file(remote: Path, cache: Path) -> None:
    path = hub.fetch("far")
    assert [check.problem for check in hub.verify("far")] == [""]
    path.write_bytes(b"bad")
    assert "changed" in hub.verify("far")[0].problem


def test_metadata_without_torch(tiny_weights: Path) -> None:
    found = hub.read_metadata(tiny_weights)
    assert found["format"] == "faceage-1"
    assert json.loads(found["config"])["size"] == 32


def test_metadata_of_damaged_files(tiny_weights: Path, tmp_path: Path) -> None:
    content = tiny_weights.read_bytes()
    for damaged in (
        b"",
        b"abc",
        content[:5],
        content[:-1],
        content[: len(content) // 2],
        b"x" * 99,
    ):
        path = tmp_path / "damaged.safetensors"
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged or not a safetensors file"):
            hub.read_metadata(path)


def test_status_lists_the_registry_and_further_files(packaged: Path, cache: Path) -> None:
    (packaged / "wide.safetensors").write_bytes(b"x")
    found = {s.name: s.path for s in hub.status()}
    assert found == {"compact-128": None, "retinaface": None, "wide": packaged / "wide.safetensors"}


def test_the_registry_downloads_over_https_and_knows_the_hash() -> None:
    for entry in hub.REGISTRY.values():
        assert entry.licence
        if entry.url:
            assert entry.url.startswith("https://")
            assert len(entry.sha256) == 64
            assert entry.url.endswith(entry.file)
    assert hub.REGISTRY["retinaface"].sha256.startswith("2979b33ffafd")
