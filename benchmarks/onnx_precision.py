"""What an exported model loses and gains: file sizes, speed and error of each precision.

    python benchmarks/onnx_precision.py --data DIR [--weights NAME|FILE] [--faces 200]

Ages of held-out faces (split val) are predicted, and 24 of them aged to 5, 40 and 75, by torch and
by the exported models. Speeds are with one thread.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from faceage import hub
from faceage.data.datasets import open_dataset
from faceage.distributions import summarize_distribution
from faceage.imaging.conversion import resize_images
from faceage.inference.backend import Backend
from faceage.inference.export import PRECISIONS, export_model
from faceage.inference.onnx_backend import OnnxBackend
from faceage.inference.torch_backend import TorchBackend

AGES = (5.0, 40.0, 75.0)
AGED_FACES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", default=hub.DEFAULT)
    parser.add_argument("--faces", type=int, default=200)
    options = parser.parse_args()
    dataset = open_dataset(options.data, "val")
    chosen = np.random.default_rng(0).permutation(len(dataset))[: options.faces]
    crops = np.stack([dataset.read_crop(int(index), 256) for index in chosen])
    labels = np.array([dataset.samples[index].age for index in chosen], float)
    path = hub.find(options.weights)
    reference = TorchBackend.load(path, "cpu")
    expected = measure(reference, crops)
    report("torch", path.stat().st_size, expected, expected, labels)
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            files = export_model(options.weights, Path(folder), precision)
            size = sum(file.stat().st_size for file in files)
            report(precision, size, measure(OnnxBackend(Path(folder)), crops), expected, labels)


def measure(backend: Backend, crops: np.ndarray) -> dict[str, np.ndarray | float]:
    """Ages (N,), aged faces (24,3,S,S,3) in levels, and milliseconds a face."""
    inputs = resize_images(crops, backend.classifier_crop)
    backend.predict(inputs[:4])
    start = time.perf_counter()
    ages = [summarize_distribution(row)[0] for row in backend.predict(inputs)]
    predicted = time.perf_counter()
    small = resize_images(crops[:AGED_FACES], backend.size)
    encoded = backend.encode(small)
    changes = [backend.decode(encoded, index, AGES) for index in range(len(small))]
    decoded = time.perf_counter()
    aged = [
        [(backend.apply(crop, change) + 1) * 127.5 for change in row]
        for crop, row in zip(small, changes, strict=True)
    ]
    return {
        "ages": np.array(ages),
        "aged": np.array(aged),
        "predict_ms": 1000 * (predicted - start) / len(crops),
        "age_ms": 1000 * (decoded - predicted) / AGED_FACES,
    }


def report(
    name: str, size: int, found: dict[str, np.ndarray | float], expected: dict, labels: np.ndarray
) -> None:
    """Print one row."""
    mae = np.nanmean(np.abs(found["ages"] - labels))
    years = np.abs(found["ages"] - expected["ages"]).mean()
    levels = np.abs(found["aged"] - expected["aged"]).mean()
    print(
        f"{name}: {size / 1e6:.0f} MB, MAE {mae:.2f} years (differs from torch by {years:.3f}), "
        f"aged faces differ by {levels:.3f} of 255 levels, predict {found['predict_ms']:.1f} ms, "
        f"three ages {found['age_ms']:.1f} ms a face"
    )


if __name__ == "__main__":
    main()
