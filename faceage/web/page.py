"""The page itself: Gradio's components, and the functions that connect them to a `Session`."""

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faceage.api import FaceAger
from faceage.errors import FaceAgeError
from faceage.web.session import MAX_FACES, Session

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr

MAX_UPLOAD = "50mb"
KEPT_SECONDS = 1800  # files, after they are written; the photo in memory, after its last use
SWEEP_SECONDS = 60
SHEET_AGES = (3, 10, 20, 30, 40, 50, 60, 70, 80)
ANIMATION_AGES = tuple(range(5, 86, 4))
# Browsers then load nothing from, and send nothing to, any other host.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' data: blob:; form-action 'self'; frame-ancestors 'self'"
)
NOTICE = """
The photo is processed on the machine that runs faceage and nowhere else. It is kept in a temporary
folder for half an hour at most and removed when faceage ends. **Results are synthetic**: the files
say so, and you should say so too. Change only faces of people who have agreed to it. The model is
for non-commercial research.
"""


def build_page(ager: FaceAger) -> gr.Blocks:
    """The page; `launch_page` starts it."""
    folder = _make_private_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # where Gradio keeps uploads
    with gr.Blocks(title="faceage", analytics_enabled=False) as page:
        session = gr.State(None, time_to_live=KEPT_SECONDS)
        gr.Markdown("# faceage\nShow the people in a photo at other ages.")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                upload = gr.File(label="Photo", file_types=["image"], height=140)
                another = gr.UploadButton(
                    "Open another photo", file_types=["image"], size="sm", visible=False
                )
                with gr.Accordion("Take a photo", open=False):
                    camera = gr.Image(sources=["webcam"], type="numpy", show_label=False)
                faces = gr.Image(
                    label="Faces",
                    visible=False,
                    interactive=False,
                    format="jpeg",
                    buttons=["fullscreen"],
                )
            with gr.Column(scale=2, min_width=360):
                wipe = gr.ImageSlider(
                    label="Before and after",
                    format="jpeg",
                    interactive=False,
                    slider_position=50,
                    max_height=640,
                    buttons=["fullscreen"],  # a download of the preview would lack the mark
                )
                sliders = [
                    gr.Slider(0, 95, step=1, label=f"Face {n + 1}", visible=False)
                    for n in range(MAX_FACES)
                ]
                with gr.Row():
                    save = gr.Button("Make the file", variant="primary", interactive=False)
                    choice = gr.Dropdown(label="Face", choices=[], visible=False)
                    sheet = gr.Button("All ages on one sheet", interactive=False)
                    animate = gr.Button("Animate from 5 to 85", interactive=False)
                file = gr.File(label="Download", visible=False)
                picture = gr.Image(
                    visible=False, interactive=False, show_label=False, buttons=["fullscreen"]
                )
        gr.Markdown(NOTICE)
        buttons = [save, sheet, animate]
        opened = [session, faces, wipe, *sliders, choice, *buttons, file, picture, another]

        @_report_errors
        def open_photo(source: Any) -> list[Any]:
            if source is None:
                return _close(opened)
            given = Path(source) if isinstance(source, str) else source
            current = Session.open(ager, given)
            shown = [
                gr.Slider(value=age, visible=True, label=f"Face {n + 1}: predicted age {age}")
                for n, age in enumerate(current.current_ages)
            ]
            hidden = [gr.Slider(visible=False)] * (MAX_FACES - len(shown))
            numbers = [(f"Face {n + 1}", n) for n in range(len(shown))]
            return [
                current,
                gr.update(value=current.draw_faces(), visible=True),
                gr.update(
                    value=(current.before, current.before),
                    slider_position=100 * current.centre,
                ),
                *shown,
                *hidden,
                gr.Dropdown(choices=numbers, value=0, visible=len(shown) > 1),
                *(gr.Button(interactive=True) for _ in buttons),
                gr.update(value=None, visible=False),
                gr.update(value=None, visible=False),
                gr.update(visible=True),
            ]

        @_report_errors
        def render(current: Session | None, *ages: float) -> Any:
            return (current.before, current.render(ages)) if current else None

        @_report_errors
        def make_file(current: Session, *ages: float) -> Any:
            return gr.update(value=str(current.save(ages, _new_folder(folder))), visible=True)

        def make_picture(method: Callable[..., Path], ages: tuple[int, ...]) -> Callable[..., Any]:
            @_report_errors
            def make(current: Session, index: int) -> Any:
                path = str(method(current, index or 0, ages, _new_folder(folder)))
                return gr.update(value=path, visible=True), gr.update(value=path, visible=True)

            return make

        another.upload(lambda path: path, another, upload, show_progress="hidden")
        upload.change(open_photo, upload, opened, show_progress="minimal")
        camera.change(open_photo, camera, opened, show_progress="minimal")
        for slider in sliders:
            slider.input(
                render,
                [session, *sliders],
                wipe,
                trigger_mode="always_last",
                show_progress="hidden",
                api_visibility="private",
            )
        save.click(make_file, [session, *sliders], file)
        sheet.click(
            make_picture(Session.save_sheet, SHEET_AGES), [session, choice], [file, picture]
        )
        animate.click(
            make_picture(Session.save_animation, ANIMATION_AGES), [session, choice], [file, picture]
        )
    return page


def launch_page(page: gr.Blocks, host: str, port: int) -> None:
    """Serve the page until the program is interrupted.

    There is no account, no share link and no request to other hosts.

    Raises:
        OSError: the address cannot be used, or the port is in use.
    """
    theme = gr.themes.Default(  # without fonts from other hosts
        font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    page.queue(max_size=32).launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        ssr_mode=False,
        theme=theme,
        app_kwargs={"middleware": [Middleware(_SecurityHeaders)]},
    )
    while True:
        time.sleep(SWEEP_SECONDS)
        _remove_old_files(Path(os.environ["GRADIO_TEMP_DIR"]), KEPT_SECONDS)


class _SecurityHeaders:
    """Adds `POLICY` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _report_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show the package's errors on the page."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except FaceAgeError as error:
            raise gr.Error(_describe(error), duration=8, print_exception=False) from None

    return run


def _describe(error: FaceAgeError) -> str:
    """The error without the folder of the upload."""
    text = str(error)
    for word in text.split():
        if os.sep in word:
            text = text.replace(word, Path(word).name)
    return text


def _close(outputs: list[Any]) -> list[Any]:
    """The page without a photo."""
    updates: list[Any] = []
    for output in outputs:
        if isinstance(output, gr.State):
            updates.append(None)
        elif isinstance(output, gr.Button):
            updates.append(gr.update(interactive=False))
        elif isinstance(output, gr.ImageSlider):
            updates.append(None)
        else:
            updates.append(gr.update(visible=False))
    return updates


def _make_private_folder() -> Path:
    """A temporary folder that only this user can read, removed when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix="faceage-web-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _new_folder(parent: Path) -> Path:
    """A folder of its own for a result, so that its file can have a plain name."""
    return Path(tempfile.mkdtemp(dir=parent))


def _remove_old_files(folder: Path, seconds: float) -> None:
    """Remove the files written more than `seconds` ago.

    Gradio's `delete_cache` would keep rejected uploads.
    """
    for path in folder.rglob("*"):
        with suppress(OSError):  # Gradio may move or remove it at the same time
            if path.is_file() and time.time() - path.stat().st_mtime > seconds:
                path.unlink()
