"""faceage serve: an HTTP server."""

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
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 64,
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
    say(f"faceage serve: http://{host}:{port} (documentation: /docs)")
    uvicorn.run(app, host=host, port=port, log_level="error", access_log=False)
