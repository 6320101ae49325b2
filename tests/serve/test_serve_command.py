"""The command faceage serve."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
PORT = 8769


@pytest.mark.slow
def test_serve_predict_and_stop(astronaut: Path) -> None:
    command = [sys.executable, "-m", "faceage", "serve", "--port", str(PORT)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr
    assert "http://127.0.0.1" in process.stderr.readline()
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/predict", data=astronaut.read_bytes()
    )
    for attempt in range(50):
        try:
            with urllib.request.urlopen(request) as answer:
                faces = json.load(answer)["faces"]
            break
        except OSError:
            assert attempt < 49
            time.sleep(0.2)
    assert 20 < faces[0]["age"] < 60
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM, 143)
    assert "Traceback" not in process.stderr.read()
