"""Duration of each stage of `predict` and `age`: one 12-megapixel photo, and a folder of faces.

python benchmarks/photos.py [--faces DIR] [--threads N]

The large photo is made from the example portrait. Wall and CPU time differ on a busy machine.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

import faceage
from faceage.cli.inputs import Item, collect_items, open_item
from faceage.devices import map_ahead
from faceage.imaging.photos import open_photo, save_photo

PORTRAIT = Path(__file__).parent.parent / "examples" / "astronaut.jpg"
AGES = (5, 15, 30, 45, 60, 75)


def measure(name: str, work: Callable[[], object], repeats: int = 7) -> None:
    """Print the median and the least duration of a call, after one that is not counted."""
    work()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    print(f"{name:24}{wall:6.0f} ms wall (least {min(walls):.0f}), {cpu:5.0f} ms CPU")


def measure_large_photo(ager: faceage.FaceAger, folder: Path) -> None:
    """The stages of one photo of 4000x3000 px with a face of 1000 px."""
    path = folder / "large.jpg"
    canvas = Image.new("RGB", (4000, 3000), (90, 110, 130))
    with Image.open(PORTRAIT) as portrait:
        canvas.paste(portrait.resize((3000, 3000), Image.Resampling.BICUBIC), (500, 0))
    canvas.save(path, quality=92)
    photo = open_photo(path)
    crops = ager.crop_faces(photo)
    aged = ager.age(photo, to=70)[0]
    measure("open", lambda: open_photo(path))
    measure("detect and crop", lambda: ager.crop_faces(photo))
    measure("classify", lambda: ager.predict_crops(crops))
    measure("predict in all", lambda: ager.predict(path))
    measure("age at six ages", lambda: list(ager.iter_age(photo, AGES, crops.found)))
    measure("age in all", lambda: ager.age(path, to=AGES))
    measure("save one as JPEG", lambda: save_photo(photo, aged.pixels, path, force=True))


def measure_folder(ager: faceage.FaceAger, folder: Path) -> None:
    """Photos per second of `faceage predict` on a folder, without the start of the program."""
    items = [item for item in collect_items([str(folder)]) if not item.error]

    def prepare(item: Item) -> faceage.api.FaceCrops | None:
        try:
            return ager.crop_faces(open_item(item))
        except faceage.NoFaceError:
            return None

    start = time.perf_counter()
    for item in items:
        prepare(item)
    alone = time.perf_counter() - start
    start = time.perf_counter()
    for get in map_ahead(prepare, items):
        if (crops := get()) is not None:
            ager.predict_crops(crops)
    seconds = time.perf_counter() - start
    count = len(items)
    print(f"{count} photos: {count / seconds:.1f} a second; {1000 * seconds / count:.0f} ms each,")
    print(f"of which {1000 * alone / count:.0f} ms to open, detect and crop in the other thread")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, help="a folder of photos")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ager = faceage.load(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        measure_large_photo(ager, Path(folder))
    if arguments.faces:
        measure_folder(ager, arguments.faces)


if __name__ == "__main__":
    main()
