"""Pictures for training from a folder, a zip and packed tars: the time of reading and decoding.

python benchmarks/loading.py DIR [--limit N] [--size 128] [--repeat 3]

The pictures of DIR are read in random order and decoded as a training does that does not hold them
in memory. Reading alone is also measured, and packing. The files are in the system's cache as far
as they fit. CPU times do not depend on what else the machine does; the least of the repeats is
given, and the pictures/s that one core reaches with it.
"""

import argparse
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from faceage.data.datasets import Dataset, open_dataset
from faceage.data.layouts import IMAGE_SUFFIXES
from faceage.data.loading import StreamedDataset
from faceage.scale.packing import Packer

BATCH = 32


def write_datasets(pictures: list[Path], root: Path) -> dict[str, Dataset]:
    """The same pictures in a folder, a zip and tars; all have the age 30."""
    folder, zipped, packed = (root / name for name in ("folder", "zip", "tars"))
    for path in (folder, zipped):
        path.mkdir()
    rows = [f"{path.name},30,train" for path in pictures]
    (folder / "faces.csv").write_text("\n".join(["file,age,set", *rows]) + "\n")
    rows = [f"{row},faces.zip" for row in rows]
    (zipped / "faces.csv").write_text("\n".join(["file,age,set,zip", *rows]) + "\n")
    with zipfile.ZipFile(zipped / "faces.zip", "w") as archive:
        for path in pictures:
            shutil.copyfile(path, folder / path.name)
            archive.write(path, path.name)
    size = sum(path.stat().st_size for path in pictures)
    start, cpu = time.perf_counter(), time.process_time()
    packer = Packer(str(folder), packed, shard_bytes=-(-size // 4))
    list(packer.write_shards(lambda: None))
    packer.write_table()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"packing: {1000 * cpu / len(pictures):.2f} CPU ms a picture, {wall:.1f} s in all")
    return {path.name: open_dataset(path) for path in (folder, zipped, packed)}


def measure(work: Callable[[], object], pictures: int, repeat: int) -> float:
    """CPU milliseconds a picture, the least of several calls."""
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds) / pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=2000, help="pictures")
    parser.add_argument("--size", type=int, default=128, help="px")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = (p for p in sorted(given.folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES)
    pictures = list(islice(found, given.limit))
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    print(f"{len(pictures)} pictures, load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        datasets = write_datasets(pictures, Path(name))
        print("\n| from | read, CPU ms | read and decode, CPU ms | pictures/s of a core |")
        print("|---|---:|---:|---:|")
        for kind, dataset in datasets.items():
            streamed = StreamedDataset(dataset, given.size, workers=0)

            def read(dataset: Dataset = dataset) -> None:
                for index in order.tolist():
                    dataset.read_file(dataset.samples[index])

            def decode(streamed: StreamedDataset = streamed) -> None:
                for _ in streamed.batches(order.split(BATCH)):
                    pass

            alone, both = (measure(w, len(pictures), given.repeat) for w in (read, decode))
            dataset.close()
            print(f"| {kind} | {alone:.3f} | {both:.2f} | {1000 / both:.0f} |")


if __name__ == "__main__":
    main()
