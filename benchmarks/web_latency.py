"""The time that one step of a slider of `faceage web` takes, without the browser.

    python benchmarks/web_latency.py --photo photo.jpg [--weights NAME|FILE] [--steps 60]

For each step, the face is decoded at the new age and pasted into the copy that is shown, and the
copy is encoded as JPEG, as Gradio does for the browser.
"""

import argparse
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from faceage.cli.batch import load_ager
from faceage.hub import DEFAULT
from faceage.web.session import Session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--weights", default=DEFAULT)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    ager = load_ager(options.weights, "cpu", "yunet", 0.6)
    start = time.perf_counter()
    session = Session.open(ager, options.photo)
    session.draw_faces()
    height, width = session.photo.pixels.shape[:2]
    print(f"{width}x{height} px, {len(session.predictions)} faces")
    print(f"open and predict: {time.perf_counter() - start:.2f} s")
    seconds = []
    for step in range(options.steps):
        ages = list(session.current_ages)
        ages[0] = (ages[0] + 1 + step) % 96
        start = time.perf_counter()
        Image.fromarray(session.render(ages)).save(BytesIO(), "JPEG")
        seconds.append(time.perf_counter() - start)
    first, *others = seconds
    print(f"first step, which encodes the faces: {first:.2f} s")
    p50, p95 = np.percentile(others, [50, 95])
    print(f"further steps: p50 {p50:.3f} s, p95 {p95:.3f} s")


if __name__ == "__main__":
    main()
