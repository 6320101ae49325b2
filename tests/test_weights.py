"""Model files: looking them up, downloading, verifying, and the commands on them."""

import hashlib
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
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


class Remote:
    """A web server on this machine with one file, `content`, and the registry entry "far"."""

    def __init__(self) -> None:
        self.content = b"model" * 1000
        self.status = 200
        self.declared: int | None = len(self.content)  # Content-Length
        self.requests = 0
        remote = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                remote.requests += 1
                self.send_response(remote.status)
                if remote.declared is not None:
                    self.send_header("Content-Length", str(remote.declared))
                self.end_headers()
                self.wfile.write(remote.content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/far.bin"
        self.entry = hub.WeightsFile(
            "far.bin", "a test", "none", self.url, hashlib.sha256(self.content).hexdigest()
        )

    def serve(self, content: bytes) -> None:
        self.content, self.declared = content, len(content)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, packaged: Path, cache: Path) -> Iterator[Remote]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    remote = Remote()
    monkeypatch.setitem(hub.REGISTRY, "far", remote.entry)
    thread = threading.Thread(target=remote.server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    yield remote
    remote.server.shutdown()
    remote.server.server_close()
    thread.join()


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


def test_find_looks_in_the_package_then_in_the_cache_then_for_a_path(
    packaged: Path, cache: Path
) -> None:
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
        (
            "nonsuch",
            "No weights file nonsuch. Give a path, or one of: "
            "paired-128, compact-128, distilled-128, head-segmenter, retinaface, vgg19.",
        ),
        (hub.DEFAULT, "missing from"),
        ("retinaface", "Get them with: faceage weights fetch retinaface"),
        (".", "is a folder"),
    ],
)
def test_find_names_what_is_missing(packaged: Path, cache: Path, name: str, says: str) -> None:
    with pytest.raises(WeightsError, match=says.replace(".", r"\.")):
        hub.find(name)


def test_fetch_writes_the_file_into_the_cache(remote: Remote, cache: Path) -> None:
    reports: list[tuple[int, int]] = []
    path = hub.fetch("far", progress=lambda *bytes_: reports.append(bytes_))
    assert path == cache / "far.bin"
    assert path.read_bytes() == remote.content
    assert path.stat().st_mode & 0o777 == 0o644
    assert reports[-1] == (5000, 5000)
    assert reports == sorted(reports)
    assert [p.name for p in cache.iterdir()] == ["far.bin"]
    assert hub.find("far") == path


def test_fetch_keeps_an_intact_file(remote: Remote, cache: Path) -> None:
    hub.fetch("far")
    assert hub.fetch("far") == cache / "far.bin"
    assert remote.requests == 1
    hub.fetch("far", force=True)
    assert remote.requests == 2


def test_fetch_without_a_content_length(remote: Remote, cache: Path) -> None:
    remote.declared = None
    reports: list[tuple[int, int]] = []
    hub.fetch("far", progress=lambda *bytes_: reports.append(bytes_))
    assert (cache / "far.bin").read_bytes() == remote.content
    assert {total for _, total in reports} == {0}


@pytest.mark.parametrize("content", [b"model" * 999, b"modem" * 1000, b""])
def test_fetch_deletes_a_download_with_the_wrong_sha256(
    remote: Remote, cache: Path, content: bytes
) -> None:
    remote.serve(content)
    with pytest.raises(WeightsError, match="sha256") as caught:
        hub.fetch("far")
    assert remote.url in caught.value.message
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_failed_fetch_keeps_the_file_in_the_cache(
    remote: Remote, cache: Path, force: bool
) -> None:
    good = remote.content
    cache.mkdir()
    (cache / "far.bin").write_bytes(b"damaged")
    remote.serve(b"wrong too")
    with pytest.raises(WeightsError):
        hub.fetch("far", force=force)
    assert (cache / "far.bin").read_bytes() == b"damaged"
    remote.serve(good)
    assert hub.fetch("far", force=force).read_bytes() == good


def _refuse_connections(remote: Remote) -> None:
    remote.server.shutdown()
    remote.server.server_close()


def _answer_404(remote: Remote) -> None:
    remote.status = 404


def _close_early(remote: Remote) -> None:
    remote.declared = 2 * len(remote.content)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (_refuse_connections, "Connection refused"),
        (_answer_404, "404 Client Error: Not Found"),
        (_close_early, "5000 bytes read, 5000 more expected"),
    ],
)
def test_a_failed_download_names_the_url_the_reason_and_the_place(
    remote: Remote, cache: Path, failure: Callable[[Remote], None], reason: str
) -> None:
    failure(remote)
    with pytest.raises(WeightsError, match="Cannot download") as caught:
        hub.fetch("far")
    assert remote.url in caught.value.message
    assert reason in caught.value.message
    assert str(cache / "far.bin") in caught.value.hint
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(remote: Remote, cache: Path) -> None:
    def interrupt(received: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.fetch("far", progress=interrupt)
    assert list(cache.iterdir()) == []


def test_fetch_into_an_unwritable_cache(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("FACEAGE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match="FACEAGE_CACHE"):
        hub.fetch("far")


def test_fetch_onto_a_full_disk(
    remote: Remote, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    def write(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch, "retrieve", write)
    with pytest.raises(WeightsError, match=r"Cannot write into .*: No space left on device"):
        hub.fetch("far")
    assert list(cache.iterdir()) == []


def test_fetch_refuses_unknown_names(packaged: Path, cache: Path) -> None:
    with pytest.raises(WeightsError, match="retinaface"):
        hub.fetch("nonsuch")


def test_verify_reports_changed_missing_unlisted_and_truncated_files(
    packaged: Path, cache: Path, tiny_weights: Path
) -> None:
    whole = tiny_weights.read_bytes()
    contents = {"good": b"1", "changed": b"2", "unlisted": whole, "truncated": whole[:-1]}
    for name, content in contents.items():
        (packaged / f"{name}.safetensors").write_bytes(content)
    one = hashlib.sha256(b"1").hexdigest()
    lines = [f"{one}  {name}.safetensors\n" for name in ("good", "changed", "gone")]
    (packaged / "SHA256SUMS").write_text("".join(lines))
    problems = {check.path.stem: check.problem for check in hub.verify()}
    assert problems.pop("good") == ""
    assert problems.pop("changed").startswith("changed")
    assert problems.pop("gone") == "missing"
    assert problems.pop("unlisted") == "not listed in SHA256SUMS"
    assert problems.pop("truncated") == "truncated, damaged or not a safetensors file"
    assert problems == {}


def test_verify_one_fetched_file(remote: Remote, cache: Path) -> None:
    path = hub.fetch("far")
    assert [check.problem for check in hub.verify("far")] == [""]
    path.write_bytes(b"bad")
    assert "changed" in hub.verify("far")[0].problem


def test_metadata(tiny_weights: Path) -> None:
    metadata = hub.read_metadata(tiny_weights)
    assert metadata["format"] == "faceage-1"
    assert json.loads(metadata["config"])["size"] == 32


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


TENSOR = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


def test_metadata_of_a_file_without_any(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(_safetensors(b'{"a":' + TENSOR + b"}", b"1234"))
    assert hub.read_metadata(path) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"x" * 99,
        _safetensors(b""),
        _safetensors(b"[]"),
        _safetensors(b"7 "),
        _safetensors(b"{}", b"more"),
        _safetensors(b'{"a":' + TENSOR + b"}", b"123"),
        _safetensors(b'{"a":' + TENSOR + b"}", b"12345"),
        _safetensors(b'{"a":{"data_offsets":[0]}}'),
        _safetensors(b'{"a":{"data_offsets":"0123"}}', b"1"),
        _safetensors(b'{"a":{}}'),
        _safetensors(b'{"a":7}'),
        _safetensors(b'{"__metadata__":7}'),
        _safetensors(b'{"__metadata__":{"a":7}}'),
        _safetensors(b'{"a":"\xff"}'),
        _safetensors(b'{"a":' + b"[" * 100_000),
        _safetensors(b'{"a":{"data_offsets":[0,' + b"9" * 10_000 + b"]}}"),
        _safetensors(b'{"a":{"data_offsets":[0,1e999]}}'),
    ],
)
def test_metadata_of_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="truncated, damaged or not a safetensors file"):
        hub.read_metadata(path)


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.9999])
def test_metadata_of_a_truncated_file(tiny_weights: Path, tmp_path: Path, share: float) -> None:
    content = tiny_weights.read_bytes()
    path = tmp_path / "w.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="truncated, damaged or not a safetensors file"):
        hub.read_metadata(path)


@pytest.mark.parametrize("length", [hub.MAX_HEADER + 1, 200_000_000])
def test_a_large_header_is_not_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(length.to_bytes(8, "little"))
    os.truncate(path, 8 + length)  # sparse
    tracemalloc.start()
    with pytest.raises(WeightsError, match=f"a header of {length:,} bytes"):
        hub.read_metadata(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe.safetensors"
    os.mkfifo(path)
    return path


def test_only_regular_files_are_opened(pipe: Path) -> None:
    for path in (Path("/dev/zero"), pipe):
        for read in (hub.find, hub.read_metadata, hub.file_sha256, hub.verify):
            with pytest.raises(WeightsError, match="is a device or a pipe"):
                read(path)


def test_find_with_invalid_paths() -> None:
    for name in ("nul\0byte", "~nosuchuser/w.safetensors", "x" * 1000, "pyproject.toml/w"):
        with pytest.raises(WeightsError, match=r"No weights file|Cannot read") as caught:
            hub.find(name)
        assert "\n" not in str(caught.value)


def test_status_lists_the_registry_and_other_files(packaged: Path, cache: Path) -> None:
    (packaged / "wide.safetensors").write_bytes(b"x")
    found = {s.name: s.path for s in hub.status()}
    assert found.pop("wide") == packaged / "wide.safetensors"
    assert found == dict.fromkeys(hub.REGISTRY)


def test_registry_entries_have_an_https_url_and_a_sha256() -> None:
    for entry in hub.REGISTRY.values():
        assert entry.licence
        if entry.url:
            assert entry.url.startswith("https://")
            assert len(entry.sha256) == 64
            assert entry.url.endswith(entry.file)
    assert hub.REGISTRY["retinaface"].sha256.startswith("2979b33ffafd")
    vgg19 = hub.REGISTRY["vgg19"]  # torchvision puts the first digits into the name
    assert vgg19.sha256[:8] == vgg19.file.removeprefix("vgg19-").removesuffix(".pth")


# --- commands -------------------------------------------------------------------------------------


def test_list_and_info(run, tiny_weights: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run("weights", "list", "--json").out)}
    assert {"paired-128", "retinaface", "vgg19"} <= rows.keys()
    assert rows["vgg19"]["path"] is None
    assert "retinaface  not on this machine" in run("weights", "list").lines
    info = json.loads(run("weights", "info", tiny_weights, "--json").out)
    assert info["sha256"] == hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    assert json.loads(info["config"])["size"] == 32
    assert "licence: none: random numbers" in run("weights", "info", tiny_weights).lines


def test_fetch_and_verify_on_the_command_line(run, remote: Remote, cache: Path) -> None:
    answer = run("weights", "fetch", "far")
    path = cache / "far.bin"
    assert (answer.code, answer.lines) == (0, [str(path)])
    assert answer.errors[-1] == "far: 0.0 of 0.0 MB"
    assert run("weights", "verify", "far").out == f"{path}: OK\n"
    path.write_bytes(b"changed")
    answer = run("weights", "verify", "far")
    assert (answer.code, answer.out, len(answer.errors)) == (1, "", 1)
    assert "changed" in answer.err
    remote.status = 404
    answer = run("weights", "fetch", "far")
    assert (answer.code, answer.out, len(answer.errors)) == (1, "", 1)


@pytest.mark.parametrize("command", ["info", "verify"])
def test_files_that_are_not_weights_give_a_one_line_error(
    run, tmp_path: Path, pipe: Path, tiny_weights: Path, command: str
) -> None:
    cut, header = tmp_path / "cut.safetensors", tmp_path / "header.safetensors"
    cut.write_bytes(tiny_weights.read_bytes()[:-1])
    header.write_bytes((200_000_000).to_bytes(8, "little"))
    for path in (Path("/dev/zero"), pipe, tmp_path, cut, header, tmp_path / "gone"):
        answer = run("weights", command, path)
        assert (answer.code, answer.out, len(answer.errors)) == (1, "", 1), path
        assert str(path) in answer.err


def test_info_prints_no_control_characters(run, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    metadata = {"licence": "MIT\nsha256: 0", "data": "\x1b[2J\ud800 été"}
    path.write_bytes(_safetensors(json.dumps({"__metadata__": metadata}).encode()))
    lines = run("weights", "info", path).lines
    assert lines[3:] == ["licence: MIT\ufffdsha256: 0", "data: \ufffd[2J\ufffd été"]
    info = json.loads(run("weights", "info", path, "--json").out)
    assert {key: info[key] for key in metadata} == metadata
