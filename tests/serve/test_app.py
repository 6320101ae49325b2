"""The HTTP server's endpoints, limits and errors."""

import asyncio
import io
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

import faceage
from faceage.api import FaceAger
from faceage.imaging.photos import is_own_result

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient

from faceage.serve.app import Limits, make_app


@pytest.fixture(scope="module")
def ager(tiny_weights: Path) -> FaceAger:
    return faceage.load(tiny_weights, device="cpu")


@pytest.fixture
def client(ager: FaceAger) -> Iterator[TestClient]:
    with TestClient(make_app(ager), raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, path: str, file: Path, **query: Any) -> Any:
    return client.post(path, params=query, files={"photo": file.read_bytes()})


def error_of(answer: Any) -> dict[str, str]:
    error: dict[str, str] = answer.json()["error"]
    assert set(error) == {"type", "message", "hint"}
    assert "\n" not in error["message"]
    return error


def test_predict_equals_the_python_api(client: TestClient, ager: FaceAger, couple: Path) -> None:
    faces = post(client, "/predict", couple).json()["faces"]
    assert [face["face"] for face in faces] == [1, 2]
    for face, expected in zip(faces, ager.predict(couple), strict=True):
        assert face == expected.as_dict()
    (second,) = post(client, "/predict", couple, face="2").json()["faces"]
    assert second["face"] == 2


def test_the_photo_may_be_the_body_itself(client: TestClient, couple: Path) -> None:
    as_body = client.post("/predict", content=couple.read_bytes())
    assert as_body.json() == post(client, "/predict", couple).json()


def test_age_returns_the_photo_in_its_own_format(
    client: TestClient, ager: FaceAger, couple: Path, astronaut: Path, tmp_path: Path
) -> None:
    answer = post(client, "/age", couple, to=70, face="largest")
    assert answer.headers["content-type"] == "image/png"
    expected = ager.age(couple, to=70, faces="largest")[0].pixels
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)
    answer = post(client, "/age", astronaut, to=70)
    assert answer.headers["content-type"] == "image/jpeg"
    (tmp_path / "aged.jpg").write_bytes(answer.content)
    assert is_own_result(tmp_path / "aged.jpg")
    assert f"weights={ager.weights_sha[:16]}" in Image.open(tmp_path / "aged.jpg").getexif()[270]


def test_several_ages_return_a_zip(client: TestClient, astronaut: Path) -> None:
    answer = post(client, "/age", astronaut, to=["5,70", "20"], crop=True)
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["age05.png", "age70.png", "age20.png"]
        for name in archive.namelist():
            assert Image.open(io.BytesIO(archive.read(name))).size == (32, 32)


def test_errors_have_one_form(client: TestClient, astronaut: Path, tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "black.png")
    (tmp_path / "text.jpg").write_text("no photo")
    answer = post(client, "/predict", tmp_path / "black.png")
    assert (answer.status_code, error_of(answer)["type"]) == (422, "NoFaceError")
    answer = post(client, "/predict", tmp_path / "text.jpg")
    assert (answer.status_code, error_of(answer)["type"]) == (422, "PhotoError")
    answer = post(client, "/age", astronaut, to=200)
    assert (answer.status_code, error_of(answer)["type"]) == (400, "AgeError")
    answer = post(client, "/age", astronaut)
    assert answer.status_code == 422
    assert "to" in error_of(answer)["message"]
    answer = post(client, "/predict", astronaut, face="x")
    assert (answer.status_code, error_of(answer)["type"]) == (400, "ConfigError")
    for options in ({"content": b""}, {"files": {"other": b"x"}}):
        answer = client.post("/predict", **options)  # type: ignore[arg-type]
        assert answer.status_code == 400
        error_of(answer)
    answer = client.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert (answer.status_code, error_of(answer)["type"]) == (400, "BadForm")
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    error_of(answer)


def test_limits(ager: FaceAger, couple: Path) -> None:
    size = len(couple.read_bytes()) / 1e6
    with TestClient(make_app(ager, Limits(megabytes=size / 2))) as client:
        for answer in (
            post(client, "/predict", couple),
            client.post("/predict", content=iter([couple.read_bytes()])),  # of unknown length
        ):
            assert (answer.status_code, error_of(answer)["type"]) == (413, "TooLarge")
    with TestClient(make_app(ager, Limits(megapixels=0.01))) as client:
        answer = post(client, "/predict", couple)
        assert answer.status_code == 422
        assert "megapixels" in error_of(answer)["message"]
    with TestClient(make_app(ager, Limits(ages=1))) as client:
        assert post(client, "/age", couple, to="5,70").status_code == 400
    with TestClient(make_app(ager, Limits(seconds=0))) as client:
        answer = post(client, "/predict", couple)
        assert (answer.status_code, error_of(answer)["type"]) == (504, "Timeout")
    with TestClient(make_app(ager, Limits(requests=0))) as client:
        answer = post(client, "/predict", couple)
        assert (answer.status_code, error_of(answer)["type"]) == (503, "Busy")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200


SCOPE = {
    "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict",
    "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
    "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1),
}  # fmt: skip


def send_bodies(app: Any, *bodies: list[dict[str, Any]]) -> list[int | None]:
    """The statuses of requests at the same time, whose bodies come in the given messages.

    After its messages, a body does not end; requests that wait for it have None.
    """

    async def send_all() -> list[int | None]:
        statuses: list[int | None] = [None] * len(bodies)

        async def request(number: int) -> None:
            messages = iter(bodies[number])

            async def receive() -> dict[str, Any]:
                for message in messages:
                    return message
                await asyncio.sleep(60)
                raise AssertionError

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    statuses[number] = message["status"]

            await app(dict(SCOPE), receive, send)

        tasks = []
        for number in range(len(bodies)):
            tasks.append(asyncio.create_task(request(number)))
            await asyncio.sleep(0)
        await asyncio.wait(tasks, timeout=1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return statuses

    return asyncio.run(send_all())


PART = {"type": "http.request", "body": b"x", "more_body": True}


def test_a_request_too_many_is_refused_before_its_body_is_read(ager: FaceAger) -> None:
    app = make_app(ager, Limits(requests=2))
    assert send_bodies(app, [PART], [PART], []) == [None, None, 503]
    assert send_bodies(app, [PART], [], []) == [None, None, 503]  # the others have ended


def test_an_upload_that_ends_early_is_no_error_of_the_server(ager: FaceAger) -> None:
    assert send_bodies(make_app(ager), [PART, {"type": "http.disconnect"}]) == [400]


def test_a_slow_upload_times_out(ager: FaceAger) -> None:
    assert send_bodies(make_app(ager, Limits(seconds=0.2)), [PART]) == [504]


def test_photos_to_be_aged_wait_for_their_turn(ager: FaceAger, couple: Path) -> None:
    with TestClient(make_app(ager, Limits(photos=0, seconds=2))) as client:
        assert post(client, "/predict", couple).status_code == 200
        assert post(client, "/age", couple, to=70).status_code == 504


def test_the_position_of_the_camera_does_not_pass_into_results(
    client: TestClient, astronaut: Path, tmp_path: Path
) -> None:
    with Image.open(astronaut) as image:
        exif = image.getexif()
        exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (48.0, 8.0, 0.0)}
        image.save(tmp_path / "photo.jpg", exif=exif)
    answer = post(client, "/age", tmp_path / "photo.jpg", to=70)
    found = Image.open(io.BytesIO(answer.content)).getexif()
    assert not found.get_ifd(ExifTags.IFD.GPSInfo)
    assert "synthetic" in found[270].lower()


def test_large_uploads_stay_in_memory(
    client: TestClient, portrait: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    noise[: portrait.shape[0], : portrait.shape[1]] = portrait
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2**20
    rolled = []
    rollover = tempfile.SpooledTemporaryFile.rollover
    monkeypatch.setattr(
        tempfile.SpooledTemporaryFile,
        "rollover",
        lambda self: rolled.append(self) or rollover(self),
    )
    assert post(client, "/predict", tmp_path / "large.png").status_code == 200
    assert rolled == []


def test_health_and_documentation(client: TestClient, ager: FaceAger) -> None:
    assert client.get("/healthz").json()["weights"] == ager.weights_sha
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/healthz", "/predict", "/age"}
    assert "photo" in str(schema["paths"]["/age"]["post"]["requestBody"])
    page = client.get("/")  # leads to the documentation
    assert page.url.path == "/docs"
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(addresses) >= 2
    for address in addresses:
        assert address.startswith("/")  # on this server
        assert client.get(address).status_code == 200
