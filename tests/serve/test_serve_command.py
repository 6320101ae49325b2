"""The command faceage serve."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "faceage", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        assert f"http://127.0.0.1:{port}" in process.stderr.readline()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz").close()
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_one_line(run: Any, tiny_weights: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        answer = run("serve", "--port", port, "--weights", tiny_weights)
    assert answer.code == 2
    assert answer.errors == [
        f"error: Cannot listen at 127.0.0.1:{port}: Address already in use. "
        "Choose another --port, or an address of this machine with --host."
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGINT, {130}), (signal.SIGTERM, {143, -signal.SIGTERM})]
)
def test_serve_predict_and_stop(astronaut: Path, number: signal.Signals, codes: set[int]) -> None:
    port = free_port()
    with running(port) as process:
        data = astronaut.read_bytes()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", data=data)
        with urllib.request.urlopen(request) as answer:
            faces = json.load(answer)["faces"]
        assert 20 < faces[0]["age"] < 60
        with socket.create_connection(("127.0.0.1", port)) as connection:  # an upload that ends
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx")
            time.sleep(0.5)
        time.sleep(0.5)
        process.send_signal(number)
        assert process.wait(20) in codes
        assert process.stderr
        assert process.stderr.read().lower() in ("", "interrupted.\n", "interrupted\n")
