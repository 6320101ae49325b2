"""Load test of `faceage serve`: many clients that send one photo again and again.

    python benchmarks/serve_load.py --photo photo.jpg [--clients 32] [--requests 640] [--url URL]

starts a server, or uses the one at the URL, sends the requests, first to /predict and then to /age
at one age, and prints the errors, the requests per second, and the median and 99th percentile of
the answer times.
"""

import argparse
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--url", help="of a running server")
    options = parser.parse_args()
    with nullcontext(options.url.rstrip("/")) if options.url else started_server() as url:
        data = options.photo.read_bytes()
        for path in ("/predict", "/age?to=70"):
            measure(url + path, data, options.clients, options.requests)


@contextmanager
def started_server() -> Iterator[str]:
    """A server on a free port; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "faceage", "serve", "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/healthz")
        yield url
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str) -> None:
    """Wait until the server answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The server did not start.")


def measure(url: str, data: bytes, clients: int, requests: int) -> None:
    """Send all requests to one endpoint, and print the figures."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = list(pool.map(partial(send, data=data), [url] * requests))
    seconds = time.perf_counter() - start
    answered = [value for value in times if value is not None]
    p50, p99 = np.percentile(answered, [50, 99])
    path, errors = urlsplit(url).path, requests - len(answered)
    print(
        f"{path}: {clients} clients, {requests} requests, {errors} errors, "
        f"{requests / seconds:.1f} requests/s, p50 {p50:.2f} s, p99 {p99:.2f} s"
    )


def send(url: str, data: bytes) -> float | None:
    """The seconds until the answer; None after an error."""
    start = time.perf_counter()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data)) as answer:
            answer.read()
    except OSError:
        return None
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
