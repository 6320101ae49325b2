"""faceage web: a page in the browser with an age slider for each face."""

import signal
import sys
from typing import Annotated

import typer

from faceage import hub
from faceage.cli.batch import load_ager
from faceage.cli.common import (
    LOOPBACK,
    DetectorOption,
    DeviceOption,
    HostOption,
    MinScoreOption,
    WeightsOption,
    command,
    note,
    say,
)
from faceage.errors import ConfigError


@command
def web(
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 7860,
    detector: DetectorOption = "yunet",
    min_score: MinScoreOption = 0.6,
    weights: WeightsOption = hub.DEFAULT,
    device: DeviceOption = "auto",
) -> None:
    """Show a page in the browser: a photo, and a slider for the age of each face.

    Photos stay on this machine. Ctrl-C ends the page.
    """
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ConfigError(
            "The page needs Gradio.", "Install it: pip install 'faceage[web]'"
        ) from None
    from faceage.web.page import build_page, launch_page

    if host not in LOOPBACK:
        note(f"Anyone who reaches {host}:{port} can use the page: it asks for no password.")
    for name in ("SIGTERM", "SIGHUP"):  # exit, so that the temporary folder is removed
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), lambda number, frame: sys.exit(128 + number))
    page = build_page(load_ager(weights, device, detector, min_score))
    say(f"faceage web: http://{host}:{port}")
    try:
        launch_page(page, host, port)
    except OSError:
        raise ConfigError(
            f"The page cannot listen at {host}:{port}.",
            "The port may be in use: choose another with --port, or an address of this machine "
            "with --host.",
        ) from None
