"""faceage serve: an HTTP server."""

import os
import socket
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
def serve(
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 8000,
    max_mb: Annotated[float, typer.Option(min=0, help="Largest request, MB.")] = 25,
    max_megapixels: Annotated[float, typer.Option(min=0, help="Largest photo.")] = 60,
    timeout: Annotated[float, typer.Option(min=0, help="Longest request, seconds.")] = 30,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that are handled at the same time.")
    ] = 64,
    detector: DetectorOption = "yunet",
    min_score: MinScoreOption = 0.6,
    weights: WeightsOption = hub.DEFAULT,
    device: DeviceOption = "auto",
) -> None:
    """Serve age prediction and ageing over HTTP: POST /predict and POST /age."""
    try:
        import uvicorn

        from faceage.serve.app import Limits, make_app
    except ImportError:
        raise ConfigError(
            "The server needs FastAPI.", "Install it: pip install 'faceage[serve]'"
        ) from None

    if host not in LOOPBACK:
        note(f"Anyone who reaches {host}:{port} can use the server: it asks for no password.")
    ager = load_ager(weights, device, detector, min_score)
    app = make_app(ager, Limits(max_mb, max_megapixels, timeout, queue))
    with open_socket(host, port) as listener:
        say(f"faceage serve: http://{host}:{port} (documentation: /docs)")
        config = uvicorn.Config(app, log_level="error", access_log=False)
        # Not uvicorn.run, after which Ctrl-C would be a success.
        uvicorn.Server(config).run(sockets=[listener])


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        ConfigError: the port is in use, or it is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # Python adds the address to the system's text; an unknown host is no error of the system.
        unknown = isinstance(error, socket.gaierror)
        reason = error.strerror if unknown else os.strerror(error.errno or 0)
        raise ConfigError(
            f"Cannot listen at {host}:{port}: {reason}.",
            "Choose another --port, or an address of this machine with --host.",
        ) from None
