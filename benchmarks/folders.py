"""`predict` and `age` on a folder of photos: the share of each stage, and a loop against shards.

python benchmarks/folders.py DIR [--limit N] [--to 5,70] [--workers 1,2]

CPU times do not depend on what else the machine does; wall times do. The loop and the stages run
in one thread. The start of the program is not counted for the loop, but for the shards.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

import faceage
from faceage.ages import parse_ages
from faceage.faces.alignment import crop_face
from faceage.faces.paste import paste_change
from faceage.faces.selection import choose_faces
from faceage.imaging.conversion import to_tensor
from faceage.imaging.photos import SUFFIXES, Photo, open_photo, save_photo
from faceage.models.tta import predict_distributions


class Stages:
    """CPU time of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start

    def show(self, title: str, photos: int) -> None:
        """Print a Markdown table: CPU ms per photo, and the share of the sum."""
        total = sum(self.seconds.values())
        print(f"\n| {title} | CPU ms a photo | share |\n|---|---:|---:|")
        for name, seconds in [*self.seconds.items(), ("all", total)]:
            print(f"| {name} | {1000 * seconds / photos:.1f} | {seconds / total:.0%} |")


def measure_predict(ager: faceage.FaceAger, paths: list[Path], batch: int) -> None:
    """The stages of `predict`, and the model's time for the faces of several photos together."""
    stages, side = Stages(), ager.model.config.classifier_crop
    crops: list[np.ndarray] = []
    for path in paths:
        with stages("decode"):
            photo = open_photo(path)
        with stages("detect"):
            found = find(photo, ager)
        with stages("crop"):
            own = [crop_face(photo.pixels, face, side) for _, face in found]
        with stages("model"):
            if own:
                predict_distributions(ager.model, to_tensor(np.stack(own), ager.device))
        crops += own
    stages.show("predict", len(paths))
    start = time.process_time()
    for i in range(0, len(crops), batch):
        predict_distributions(ager.model, to_tensor(np.stack(crops[i : i + batch]), ager.device))
    seconds = time.process_time() - start
    print(f"\nmodel, {batch} faces at once: {1000 * seconds / len(paths):.1f} CPU ms a photo")


def measure_age(ager: faceage.FaceAger, paths: list[Path], ages: list[float], out: Path) -> None:
    """The stages of `age`; "paste" is also part of "model, warp and paste"."""
    stages = Stages()
    for path in paths:
        with stages("decode"):
            photo = open_photo(path)
        with stages("detect"):
            found = find(photo, ager)
        if not found:
            continue
        with stages("model, warp and paste"):
            results = list(ager.iter_age(photo, ages, found))
        with stages("encode"):
            for aged in results:
                save_photo(photo, aged.pixels, out / path.name, force=True, synthetic={})
    stages.show(f"age to {len(ages)} ages", len(paths))
    start, change = time.process_time(), np.zeros((256, 256, 3), np.float32)
    mask = np.ones((128, 128), np.float32)
    for _, face in found:
        for _ in range(20):
            paste_change(photo.pixels, face, change, mask)
    print(f"\npaste: {50 * (time.process_time() - start):.1f} CPU ms a picture (the last photo's)")


def find(photo: Photo, ager: faceage.FaceAger) -> list[tuple[int, faceage.api.Face]]:
    """The faces of a photo; none if there are none."""
    try:
        return choose_faces(photo, ager.detector)
    except faceage.NoFaceError:
        return []


def measure_loop(name: str, work: Callable[[Path], object], paths: list[Path]) -> None:
    """A loop over single photos."""
    wall, cpu = time.perf_counter(), time.process_time()
    for path in paths:
        try:
            work(path)
        except faceage.PhotoError:
            continue
    show_rate(name, len(paths), time.perf_counter() - wall, time.process_time() - cpu)


def measure_command(name: str, arguments: list[object], photos: int) -> None:
    """A `faceage` command in its own process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "faceage", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    show_rate(name, photos, wall, cpu)
    print(f"    largest process: {after.ru_maxrss / 1024:.0f} MiB")


def show_rate(name: str, photos: int, wall: float, cpu: float) -> None:
    rate = photos / wall
    print(f"{name:32}{rate:6.1f} photos/s wall, {1000 * cpu / photos:6.1f} CPU ms a photo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=100, help="photos")
    parser.add_argument("--to", default="5,70")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--stages-only", action="store_true")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    photos = (p for p in sorted(given.folder.iterdir()) if p.suffix.lower() in SUFFIXES)
    paths, ages = list(islice(photos, given.limit)), parse_ages([given.to])
    ager = faceage.load(device="cpu")
    ager.age(paths[0], ages)  # the first call is slower
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_predict(ager, paths, batch=16)
        measure_age(ager, paths, ages, folder)
        if given.stages_only:
            return
        photos_folder = folder / "photos"
        photos_folder.mkdir()
        for path in paths:
            shutil.copy(path, photos_folder)
        print()
        measure_loop("predict, loop", ager.predict, paths)
        measure_loop("age, loop (not written)", lambda path: ager.age(path, ages), paths)
        for command in (["predict", photos_folder], ["age", photos_folder, "--to", given.to]):
            for workers in given.workers.split(","):
                out = folder / f"{command[0]}{workers}"
                shards = ["--out", out, "--shards", min(8, len(paths)), "--workers", workers]
                label = f"{command[0]}, shards, {workers} workers"
                measure_command(label, [*command, *shards], len(paths))


if __name__ == "__main__":
    main()
