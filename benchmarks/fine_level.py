"""What the fine level adds: aged faces of 512 px with and without it, beside the true pictures.

    python benchmarks/fine_level.py --data PAIRS --perceptual-evaluator alexnet.safetensors
        [--weights NAME|FILE]

PAIRS is a folder of `faceage pairs --size 512`. The picture nearest to 30 years of each person of
its split val is aged to the ages of the person's other pictures. Printed for the inner face, at 512
px a crop: the sharpness relative to that of the true picture (median), the LPIPS to it (mean), and
the kernel distance of parts of 128 px to those of the true pictures (AlexNet features).
"""

import argparse

import numpy as np

from faceage import hub
from faceage.data.datasets import open_dataset
from faceage.evaluation.evaluators import PerceptualEvaluator
from faceage.evaluation.metrics import kernel_distance, laplacian_variance
from faceage.imaging.conversion import resize_images
from faceage.inference.torch_backend import TorchBackend
from faceage.models.windows import INNER_LEFT, INNER_SIDE, INNER_TOP

SIZE, PART = 512, 128
SOURCE_AGE = 30
RANGES = ((0, 15), (15, 40), (40, 65), (65, 101))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--perceptual-evaluator", required=True)
    parser.add_argument("--weights", default=hub.DEFAULT)
    options = parser.parse_args()
    backend = TorchBackend.load(hub.find(options.weights), "cpu")
    evaluator = PerceptualEvaluator(options.perceptual_evaluator)
    ages, true, without, refined = age_faces(backend, options.data)
    print("| ages | faces | | sharpness | LPIPS | kernel distance |\n|---|---|---|---|---|---|")
    for low, high in (*RANGES, (0, 101)):
        chosen = (ages >= low) & (ages < high)
        for name, results in (("without", without), ("with", refined)):
            a, b = results[chosen], true[chosen]
            sharpness = np.median(laplacian_variance(a) / laplacian_variance(b)) ** 0.5
            lpips = evaluator.distances(a, b).mean()
            features = [evaluator.crop_features(split(pictures)) for pictures in (a, b)]
            print(
                f"| {low}-{high - 1} | {chosen.sum()} | {name} | {sharpness:.2f} | {lpips:.3f} "
                f"| {kernel_distance(*features):.4f} |",
                flush=True,
            )


def age_faces(
    backend: TorchBackend, data: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The target ages, and the inner faces: true, aged without and with the fine level."""
    dataset = open_dataset(data, "val")
    people: dict[str, list[int]] = {}
    for index, sample in enumerate(dataset.samples):
        people.setdefault(sample.person, []).append(index)
    rows: list[tuple[float, np.ndarray, np.ndarray, np.ndarray]] = []
    for own in (indices for indices in people.values() if len(indices) > 1):
        known = {index: float(dataset.samples[index].age or 0) for index in own}
        source = min(own, key=lambda index: abs(known[index] - SOURCE_AGE))
        crop = dataset.read_crop(source, SIZE)
        encoded = backend.encode(resize_images(crop[None], backend.size))
        others = [index for index in own if index != source]
        changes = backend.decode(encoded, 0, [known[index] for index in others])
        for index, change in zip(others, changes, strict=True):
            results = [backend.apply(crop, c) for c in (change, backend.refine(crop, change))]
            levels = [((r + 1) * 127.5).round().astype(np.uint8) for r in results]
            pictures = (dataset.read_crop(index, SIZE), *levels)
            rows.append((known[index], *map(inner, pictures)))
    ages, *pictures = zip(*rows, strict=True)
    true, without, refined = (np.stack(part) for part in pictures)
    return np.array(ages), true, without, refined


def inner(crop: np.ndarray) -> np.ndarray:
    """The inner face at its own scale."""
    top, left, side = (round(v * SIZE) for v in (INNER_TOP, INNER_LEFT, INNER_SIDE))
    return crop[top : top + side, left : left + side]


def split(pictures: np.ndarray) -> np.ndarray:
    """Parts of `PART` px."""
    count, side = len(pictures), pictures.shape[1] // PART
    parts = pictures.reshape(count, side, PART, side, PART, 3).swapaxes(2, 3)
    return parts.reshape(-1, PART, PART, 3)


if __name__ == "__main__":
    main()
