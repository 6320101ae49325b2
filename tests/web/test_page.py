"""The page in a real browser."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from faceage.cli.common import LOOPBACK
from faceage.imaging.photos import is_own_result

gradio = pytest.importorskip("gradio", reason="the extra web is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PORT = 7869
ADDRESS = f"http://127.0.0.1:{PORT}"


def test_errors_do_not_name_the_folder_of_the_upload(tmp_path: Path) -> None:
    from faceage.errors import PhotoError
    from faceage.web.page import _describe

    error = PhotoError(f"{tmp_path / 'me.jpg'} is damaged.", "Copy it again.")
    assert str(tmp_path) not in _describe(error)
    assert _describe(error).startswith("me.jpg is damaged.")


def test_the_page_listens_to_this_machine_only_unless_told_otherwise() -> None:
    assert "127.0.0.1" in LOOPBACK
    assert "0.0.0.0" not in LOOPBACK


def test_old_files_are_removed(tmp_path: Path) -> None:
    from faceage.web.page import _remove_old_files

    (tmp_path / "upload").mkdir()
    old, new = tmp_path / "upload" / "old.jpg", tmp_path / "new.jpg"
    for path in (old, new):
        path.write_bytes(b"photo")
    os.utime(old, (time.time() - 100,) * 2)
    _remove_old_files(tmp_path, 60)
    assert not old.exists()
    assert new.exists()


def test_pages_may_connect_to_their_own_host_only() -> None:
    from faceage.web.page import POLICY

    connect = next(part for part in POLICY.split("; ") if part.startswith("connect-src"))
    assert set(connect.split()[1:]) == {"'self'", "data:", "blob:"}


def _start(port: int, folder: Path) -> subprocess.Popen[str]:
    """Run the command with `folder` as the place of temporary files."""
    command = [sys.executable, "-m", "faceage", "web", "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr
    while "http://" not in (line := process.stderr.readline()):
        assert process.poll() is None, line
    return process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process = _start(PORT, tmp_path_factory.mktemp("temporary"))
    yield ADDRESS
    process.terminate()
    process.wait(20)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_temporary_folder_is_removed_when_the_page_ends(name: str, tmp_path: Path) -> None:
    process = _start(PORT + 1, tmp_path)
    for _ in range(100):  # until it answers: it then waits for a signal
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{PORT + 1}", timeout=5).close()
            break
        time.sleep(0.2)
    (folder,) = tmp_path.glob("faceage-web-*")
    (folder / "photo.jpg").write_bytes(b"photo")
    number = getattr(signal, name)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert not folder.exists()


@pytest.fixture
def browser(server: str) -> Iterator[tuple[Any, list[str]]]:
    """A page of the browser, and the addresses that it requests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        _open(page, server)
        yield page, requests
        chromium.close()


def _open(page: Any, address: str) -> None:
    for attempt in range(20):
        try:
            page.goto(address)
            break
        except Exception:
            if attempt == 19:
                raise
            time.sleep(1)
    page.wait_for_selector("text=Show the people", timeout=60_000)


_SOURCES = "images => images.map(image => image.src)"


@pytest.mark.slow
def test_upload_slide_and_download(browser: Any, astronaut: Path, tmp_path: Path) -> None:
    page, requests = browser
    page.set_input_files("input[type=file]", str(astronaut))
    page.wait_for_selector("text=predicted age", timeout=60_000)
    page.wait_for_function("document.querySelectorAll('img').length >= 2")
    before = page.eval_on_selector_all("img", _SOURCES)
    slider = page.locator("input[type=range]").first
    slider.fill("78")
    page.wait_for_function(
        "old => JSON.stringify([...document.images].map(i => i.src)) != JSON.stringify(old)",
        arg=before,
        timeout=20_000,
    )
    page.get_by_role("button", name="Make the file").click()
    page.wait_for_selector("text=astronaut.age78", timeout=60_000)
    with page.expect_download() as download:
        page.get_by_role("link", name="KB").last.click()
    file = tmp_path / "result.jpg"
    download.value.save_as(file)
    assert is_own_result(file)
    assert "age=78" in Image.open(file).getexif()[270]
    assert Image.open(file).size == Image.open(astronaut).size
    others = [r for r in requests if not r.startswith((ADDRESS, "data:", "blob:"))]
    assert others == []


@pytest.mark.slow
def test_another_photo_replaces_the_first(browser: Any, astronaut: Path, tmp_path: Path) -> None:
    page, _ = browser
    page.set_input_files("input[type=file]", str(astronaut))
    page.wait_for_selector("text=predicted age", timeout=60_000)
    photo = Image.open(astronaut)
    two = Image.new("RGB", (2 * photo.width, photo.height))
    for left in (0, photo.width):
        two.paste(photo, (left, 0))
    two.save(tmp_path / "two.jpg")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open another photo").click()
    chooser.value.set_files(tmp_path / "two.jpg")
    page.wait_for_selector("text=Face 2: predicted age", timeout=60_000)


@pytest.mark.slow
def test_a_photo_without_a_face_gives_a_message(browser: Any, tmp_path: Path) -> None:
    page, _ = browser
    file = tmp_path / "empty.png"
    Image.new("RGB", (300, 300), "grey").save(file)
    page.set_input_files("input[type=file]", str(file))
    page.wait_for_selector("text=No face", timeout=60_000)
    assert "Traceback" not in page.content()
