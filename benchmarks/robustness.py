"""Measure how the tool copes with faults and unusual input; writes docs/robustness.md.

python benchmarks/robustness.py [--short] [--inputs N] [--faces DATASET] [--objects DIR]
    [--retinaface FILE]

Runs the fuzzers and the tests of faults, measures the memory of large photos, and the second
look of the face detectors on the val pictures of a dataset and on a folder of pictures without
faces. A part without its data is left out. Only POSIX systems report the memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from PIL import ExifTags, Image

import faceage
from faceage.data.datasets import Dataset, open_dataset
from faceage.faces import detection
from faceage.imaging.photos import open_photo

ROOT = Path(__file__).parent.parent
PORTRAIT = ROOT / "examples" / "astronaut.jpg"
# Width and height in px (12, 50 and 200 megapixels), and EXIF orientation.
PHOTOS = ((4000, 3000, 1), (8660, 5774, 1), (16000, 12500, 1), (16000, 12500, 6))
CROP_SIDE, CANVAS_SIDE = 220, 480  # px

CASES = (
    ("kill -9 during `age` or `align`", "files are whole; `--skip-existing` makes the others"),
    ("kill -9 during `train`", "the same command resumes; the weights are bit-identical"),
    ("full disk", "one line, exit code 1; no partial file, the earlier training state remains"),
    ("read-only folder", "one line, before the model is loaded"),
    ("two processes with one output folder", "every file is whole"),
    ("damaged, truncated or huge photo", "one line; the other photos are processed"),
    ("damaged csv, zip, weights or training state", "one line, before anything is computed"),
)


# --- fuzzing and faults ---------------------------------------------------------------------------


def run_python(*arguments: object) -> str:
    """The last line that Python prints in a separate process with this checkout."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout.strip().splitlines()[-1]


def report_fuzzing(inputs: int) -> Iterator[str]:
    yield "| fuzzer | result |"
    yield "|---|---|"
    for script in ("fuzz_data.py", "fuzz_weights.py"):
        yield f"| `tests/{script}` | {run_python(ROOT / 'tests' / script, inputs)} |"


def report_faults(short: bool) -> Iterator[str]:
    files = ("test_faults.py", "cli/test_bad_input.py", "cli/test_batch.py")
    tests = [ROOT / "tests" / name for name in files]
    summary = run_python("-m", "pytest", "-q", "-m", "not slow" if short else "", *tests)
    yield "| case | behaviour |"
    yield "|---|---|"
    for case, behaviour in CASES:
        yield f"| {case} | {behaviour} |"
    yield ""
    kills = 1 if short else 21
    yield f"The tests of these cases, with random kills ({kills} of each command): {summary}."


# --- memory ---------------------------------------------------------------------------------------


def report_memory() -> Iterator[str]:
    yield "| photo (JPEG) | command | memory, GB |"
    yield "|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        for width, height, orientation in PHOTOS:
            turned = "" if orientation == 1 else ", stored turned"
            path = Path(folder, f"{width * height / 1e6:.0f} megapixels{turned}.jpg")
            write_photo(path, width, height, orientation)
            for command in (("predict",), ("age", "--to", "70", "--force", "--out", folder)):
                gigabytes = measure_memory(command[0], path, *command[1:])
                yield f"| {path.stem} | `{command[0]}` | {gigabytes:.2f} |"


def write_photo(path: Path, width: int, height: int, orientation: int) -> None:
    """The example portrait, enlarged, on a plain ground; stored as the orientation says."""
    photo = Image.new("RGB", (width, height), (90, 110, 130))
    with Image.open(PORTRAIT) as portrait:
        photo.paste(portrait.resize((height, height)), ((width - height) // 2, 0))
    if orientation == 6:
        photo = photo.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photo.save(path, quality=90, exif=exif)


# A process between this one and the measured one: a process begins with the peak of its parent.
_MEASURE = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measure_memory(*arguments: object) -> float:
    """The peak memory of a faceage command, GB."""
    return int(run_python("-c", _MEASURE, sys.executable, "-m", "faceage", *arguments)) * 1024 / 1e9


# --- the second look ------------------------------------------------------------------------------


def degradations(rng: np.random.Generator) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Changes of a photo, uint8 (H,W,3), by name."""

    def add_noise(photo: np.ndarray, light: float, spread: float) -> np.ndarray:
        levels = photo * light + rng.normal(0, spread, photo.shape)
        return np.clip(levels, 0, 255).astype(np.uint8)

    def shrink(photo: np.ndarray, factor: float) -> np.ndarray:
        small = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        canvas = np.full_like(photo, 128)
        canvas[: len(small), : len(small)] = small
        return canvas

    return {
        "as it is": lambda photo: photo,
        "small (60 px)": lambda photo: shrink(photo, 60 / CROP_SIDE),
        "blurred (1.5-5 px)": lambda photo: cv2.GaussianBlur(photo, (0, 0), rng.uniform(1.5, 5)),
        "grey": lambda photo: np.repeat(photo.mean(2, keepdims=True).astype(np.uint8), 3, 2),
        "noisy (10-40 levels)": lambda photo: add_noise(photo, 1, rng.uniform(10, 40)),
        "dark (8-30 % of the light)": lambda photo: add_noise(photo, rng.uniform(0.08, 0.3), 3),
        "with a mask": cover_mouth,
        "on its side": lambda photo: np.rot90(photo).copy(),
    }


def cover_mouth(photo: np.ndarray) -> np.ndarray:
    """A medical mask, light blue, from the nose to the chin of the crop in the middle."""
    corners = [(0.27, 0.6), (0.5, 0.54), (0.73, 0.6), (0.7, 0.82), (0.5, 0.93), (0.3, 0.82)]
    place = (CANVAS_SIDE - CROP_SIDE) / 2 + CROP_SIDE * np.array(corners)
    covered = photo.copy()
    cv2.fillConvexPoly(covered, place.round().astype(np.int32), (150, 190, 210), cv2.LINE_AA)
    return covered


def count_faces(photo: np.ndarray, detector: detection.Detector) -> tuple[int, int]:
    """The faces found in a photo without the second look, and with it."""
    with mock.patch.multiple(detection, _MIN_LOOKS=0, _MIN_MEAN_SCORE=-1.0, _MIN_HEAD=0.0):
        without = len(detector.detect(photo))
    return without, len(detector.detect(photo)) if without else 0


def count_in_faces(dataset: Dataset, detector: detection.Detector) -> np.ndarray:
    """For each of the degradations, the faces found without the second look, and with it."""
    rng = np.random.default_rng(0)
    totals = np.zeros((len(degradations(rng)), 2), int)
    for sample in dataset.samples[::16]:
        canvas = np.full((CANVAS_SIDE, CANVAS_SIDE, 3), 128, np.uint8)
        crop = np.asarray(dataset.read(sample).resize((CROP_SIDE, CROP_SIDE)))
        start = (CANVAS_SIDE - CROP_SIDE) // 2
        canvas[start : start + CROP_SIDE, start : start + CROP_SIDE] = crop
        # At most one face of each: what else is found is no face.
        totals += [
            np.minimum(count_faces(change(canvas), detector), 1)
            for change in degradations(rng).values()
        ]
    return totals


def report_second_look(
    faces: str | None, objects: Path | None, detectors: dict[str, detection.Detector]
) -> Iterator[str]:
    yield "| pictures |" + "".join(f" {name}, detections | confirmed |" for name in detectors)
    yield "|---" + "|---|---" * len(detectors) + "|"

    def row(name: str, counts: Iterable[np.ndarray]) -> str:
        return f"| {name} |" + "".join(f" {a} | {b} |" for a, b in counts)

    if faces:
        dataset = open_dataset(faces, "val")
        totals = [count_in_faces(dataset, detector) for detector in detectors.values()]
        for i, name in enumerate(degradations(np.random.default_rng(0))):
            yield row(f"faces, {name}", (total[i] for total in totals))
        sums = [total.sum(0) for total in totals]
        yield row("all faces", sums)
        lost = (f" | {100 * (1 - b / a):.2f} % lost |" for a, b in sums)
        yield "| |" + "".join(lost)
    if objects:
        photos = [open_photo(path).pixels for path in sorted(objects.iterdir())]
        sums = [
            np.sum([count_faces(photo, detector) for photo in photos], 0)
            for detector in detectors.values()
        ]
        yield row(f"{len(photos)} without faces", sums)
        accepted = (f" | {100 * b / a:.1f} % accepted |" for a, b in sums)
        yield "| |" + "".join(accepted)


# --- grain ----------------------------------------------------------------------------------------


def report_grain() -> Iterator[str]:
    ages = (5, 20, 40, 60, 80)
    ager = faceage.load(device="cpu")
    with Image.open(PORTRAIT) as portrait:
        side = 2 * portrait.width
        photo = np.asarray(portrait.convert("RGB").resize((side, side)), np.float32)
    yield "| grain, levels | " + " | ".join(f"at {age}" for age in ages) + " |"
    yield "|---" * (len(ages) + 1) + "|"
    for spread in (8, 16):
        grain = np.random.default_rng(0).normal(0, spread, (side, side, 1))
        noisy = np.clip(photo + grain, 0, 255).astype(np.uint8)
        aged = ager.age(noisy, to=ages)
        eye, mouth = aged[0].faces[0].landmarks[[1, 4]]
        before = measure_grain(noisy, (eye + mouth) / 2)
        kept = [measure_grain(result.pixels, (eye + mouth) / 2) / before for result in aged]
        yield f"| {spread} | " + " | ".join(f"{100 * part:.0f} %" for part in kept) + " |"


def measure_grain(photo: np.ndarray, centre: np.ndarray) -> float:
    """Standard deviation of the fine structure around a point, levels."""
    x, y = centre.round().astype(int)
    grey = photo[y - 40 : y + 40, x - 40 : x + 40].astype(np.float32).mean(2)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 1.5)
    return float(fine[10:-10, 10:-10].std())


def write_report(path: Path, sections: Iterable[tuple[str, str, Iterator[str]]]) -> None:
    lines = [
        "# Robustness",
        "",
        f"Measured by `python benchmarks/robustness.py` with faceage {faceage.__version__} on "
        f"{os.cpu_count()} CPU cores.",
    ]
    for title, text, body in sections:
        lines += ["", f"## {title}", "", text, "", *body]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one random kill of each command")
    parser.add_argument("--inputs", type=int, default=50_000, help="for each fuzzer")
    parser.add_argument("--faces", help="a dataset whose val pictures are faces")
    parser.add_argument("--objects", type=Path, help="a folder of pictures without faces")
    parser.add_argument("--retinaface", type=Path, help="RetinaFace's weights, to measure it, too")
    arguments = parser.parse_args()
    sections = [
        (
            "Faults",
            "What the tool does. Messages go to stderr and say what to do next.",
            report_faults(arguments.short),
        ),
        (
            "Fuzzing",
            "Mutated photos of all formats, csv files, zips, values of options, weights and "
            "training states. Each is accepted or refused with one line.",
            report_fuzzing(arguments.inputs),
        ),
        (
            "Memory of large photos",
            "The largest amount of memory of the whole process, torch and model included. "
            "`benchmarks/photos.py` measures the time.",
            report_memory(),
        ),
        (
            "Grain",
            "Of grain that was added to the example portrait, what its cheek has after ageing. The "
            "change is added to the photo's own pixels, so their grain stays; where the face is "
            "displaced, interpolation smooths it.",
            report_grain(),
        ),
    ]
    if arguments.faces or arguments.objects:
        detectors = {"YuNet": detection.make_detector()}
        if path := arguments.retinaface:
            detectors["RetinaFace"] = detection.make_detector("retinaface", weights=path)
        second_look = report_second_look(arguments.faces, arguments.objects, detectors)
        text = (
            "A detector takes some objects for faces. What it finds is searched for again in its "
            f"upright crop at four sizes, and must be found in at least {detection._MIN_LOOKS} of "
            f"them with a mean score of at least {detection._MIN_MEAN_SCORE}. Below a score of "
            f"{detection._DOUBTFUL}, its eyes must also be head for the head segmenter. The "
            "pictures without faces were chosen because one of the detectors finds a face in them."
        )
        sections.insert(0, ("The second look at faces", text, second_look))
    write_report(ROOT / "docs" / "robustness.md", sections)


if __name__ == "__main__":
    main()
