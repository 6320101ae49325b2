"""The endpoints. Photos come in and go out in memory; nothing is written to a disk.

What a request may take is bounded: the number of requests before their bodies are read, the size of
a body, the pixels of a photo, the photos that are decoded for /age at the same time, and the time.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any
from zipfile import ZIP_STORED, ZipFile

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from faceage import __version__
from faceage.ages import format_age, parse_ages
from faceage.api import FaceAger, FaceCrops
from faceage.errors import FaceAgeError, PhotoError
from faceage.faces.selection import FaceChoice, choose_faces, parse_faces
from faceage.imaging.photos import encode_photo, media_type, read_photo
from faceage.serve.batching import ModelWorker

_SUFFIXES = {"JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif"}  # of other formats: ".png"
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The photo: the field `photo` of a form, or the body itself.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["photo"],
                    "properties": {"photo": {"type": "string", "format": "binary"}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
Face = Annotated[str, Query(description="all, largest, or numbers such as 2 or 1,3")]


@dataclass(frozen=True)
class Limits:
    """What the server accepts.

    Attributes:
        megabytes: of a request's body.
        megapixels: of a photo.
        seconds: that a request may take.
        requests: that are handled at the same time; further ones are refused.
        photos: that are held at the same time, decoded, to be aged; further ones wait.
        ages: target ages of one request.
    """

    megabytes: float = 25
    megapixels: float = 60
    seconds: float = 30
    requests: int = 64
    photos: int = 4
    ages: int = 12


class RequestError(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, kind: str, message: str, hint: str = "") -> None:
        self.status, self.kind, self.message, self.hint = status, kind, message, hint


def make_app(ager: FaceAger, limits: Limits | None = None, threads: int = 2) -> FastAPI:
    """The application.

    Args:
        limits: None takes the defaults.
        threads: that read photos and find faces.
    """
    limits = limits or Limits()
    worker = ModelWorker(ager)
    readers = ThreadPoolExecutor(threads, "reader")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.stop()
        readers.shutdown(cancel_futures=True)

    app = FastAPIOffline(  # FastAPI's own page of documentation loads scripts from another host
        title="faceage",
        version=__version__,
        description="Predict the age of faces, and show them at other ages. Results are synthetic.",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(RequestLimit, limit=limits.requests)
    _handle_errors(app)
    held = asyncio.Semaphore(limits.photos)

    async def in_reader(function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(readers, function, *arguments)

    async def render(
        data: bytes, ages: Sequence[float], faces: FaceChoice, crop: bool
    ) -> dict[str, bytes]:
        """The files of a photo at all ages, by their names."""
        photo = await in_reader(read_photo, data, round(limits.megapixels * 1e6))
        found = await in_reader(choose_faces, photo, ager.detector, faces)
        # In place, one age after the other: of each, only the file is kept.
        results = ager.iter_age(photo, ages, found, in_place=True)
        suffix = ".png" if crop else _SUFFIXES.get(photo.format, ".png")
        files: dict[str, bytes] = {}
        while aged := await asyncio.wrap_future(worker.run(lambda: next(results, None))):
            pixels = aged.crops[0] if crop else aged.pixels
            source = photo.derive(pixels) if crop else photo
            mark = {"age": format_age(aged.age), "weights": ager.weights_sha[:16]}
            files[f"age{format_age(aged.age)}{suffix}"] = await in_reader(
                partial(encode_photo, source, pixels, suffix, synthetic=mark)
            )
        return files

    @app.get("/", include_in_schema=False)
    async def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the server is ready, and which weights it uses."""
        return {"status": "ok", "version": __version__, "weights": ager.weights_sha}

    @app.post("/predict", openapi_extra=_BODY)
    async def predict(request: Request, face: Face = "all") -> dict[str, Any]:
        """The age of every face: years, 80 % interval, group, box; largest face first."""
        async with asyncio.timeout(limits.seconds):
            faces = parse_faces(face)
            data = await _read_body(request, limits.megabytes)
            crops = await in_reader(_crop_faces, ager, data, limits.megapixels, faces)
            predictions = await asyncio.wrap_future(worker.predict(crops))
        return {"faces": [prediction.as_dict() for prediction in predictions]}

    @app.post("/age", openapi_extra=_BODY, response_class=Response)
    async def age(
        request: Request,
        to: Annotated[list[str], Query(description="target ages: 5, or 5,70, or 10-80:10")],
        face: Face = "all",
        crop: Annotated[bool, Query(description="only the largest chosen face")] = False,
    ) -> Response:
        """The photo at one age, in its own format; at several ages, a zip of them."""
        async with asyncio.timeout(limits.seconds):
            ages, faces = parse_ages(to), parse_faces(face)
            if len(ages) > limits.ages:
                raise RequestError(
                    400, "TooManyAges", f"{len(ages)} ages; the limit is {limits.ages}."
                )
            data = await _read_body(request, limits.megabytes)
            async with held:
                files = await render(data, ages, faces, crop)
        if len(files) == 1:
            name, content = next(iter(files.items()))
            return Response(content, media_type=media_type(Path(name).suffix))
        return Response(_make_zip(files), media_type="application/zip")

    return app


class RequestLimit:
    """ASGI middleware that refuses a POST, before its body is read, while `limit` are handled."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        if self._active >= self._limit:
            answer = _error(503, "Busy", "Too many requests at once.", "Try again in a second.")
            answer.headers["Retry-After"] = "1"
            return await answer(scope, receive, send)
        self._active += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._active -= 1


def _crop_faces(ager: FaceAger, data: bytes, megapixels: float, faces: FaceChoice) -> FaceCrops:
    """The faces of a photo; the photo itself is not kept."""
    return ager.crop_faces(read_photo(data, round(megapixels * 1e6)), faces)


async def _read_body(request: Request, megabytes: float) -> bytes:
    """The photo's bytes, of a form or of the body itself; never spooled to a disk.

    Raises:
        RequestError: it is larger than `megabytes`, malformed or missing.
        ClientDisconnect: the client closed the connection.
    """
    limit = round(megabytes * 1e6)
    too_large = RequestError(
        413, "TooLarge", f"The request has more than {megabytes:g} MB.", "Make the photo smaller."
    )
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_large

    async def bounded() -> AsyncGenerator[bytes, None]:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large
            yield part

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        data = b"".join([part async for part in bounded()])
    else:
        parser = MultiPartParser(request.headers, bounded(), max_files=1, max_fields=8)
        parser.spool_max_size = limit + 1  # in memory, whatever its size
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError) as error:
            raise RequestError(400, "BadForm", f"The form is malformed: {error}.") from None
        photo = form.get("photo")
        if not isinstance(photo, UploadFile):
            raise RequestError(400, "NoPhoto", "The form has no file.", "Send it as -F photo=@FILE")
        data = await photo.read()
    if not data:
        raise RequestError(400, "NoPhoto", "The request has no photo.", "Send it as the body.")
    return data


def _make_zip(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _handle_errors(app: FastAPI) -> None:
    """Answer every error with {"error": {"type", "message", "hint"}}."""

    @app.exception_handler(FaceAgeError)
    async def on_own(_: Request, error: FaceAgeError) -> JSONResponse:
        status = 422 if isinstance(error, PhotoError) else 400
        return _error(status, type(error).__name__, error.message, error.hint)

    @app.exception_handler(RequestError)
    async def on_refused(_: Request, error: RequestError) -> JSONResponse:
        return _error(error.status, error.kind, error.message, error.hint)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(_: Request, __: ClientDisconnect) -> JSONResponse:
        return _error(400, "Incomplete", "The request ended early.", "Send it again.")

    @app.exception_handler(TimeoutError)
    async def on_timeout(_: Request, __: TimeoutError) -> JSONResponse:
        return _error(504, "Timeout", "The request took too long.", "Send a smaller photo.")

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(422, "BadOption", f"{first['loc'][-1]}: {first['msg']}.", "See /docs.")

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, "Http", str(error.detail), "See /docs.")

    @app.exception_handler(Exception)
    async def on_bug(_: Request, error: Exception) -> JSONResponse:
        return _error(500, "Internal", f"{type(error).__name__} in the server.", "Report it.")


def _error(status: int, kind: str, message: str, hint: str) -> JSONResponse:
    body = {"error": {"type": kind, "message": message, "hint": hint}}
    return JSONResponse(body, status_code=status)
