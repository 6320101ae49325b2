"""Fuzzing of what reads photos, datasets and values of options, with mutated inputs.

    python tests/fuzz_data.py COUNT [FIRST]

gives the inputs number FIRST (default 0) to FIRST + COUNT - 1, the same in every run, to their
readers; see `fuzzing`.
"""

import io
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import ANY, Reader, fuzz
from noise_dataset import write_noise
from PIL import Image

from faceage.ages import parse_ages
from faceage.data.datasets import open_dataset
from faceage.faces.selection import parse_faces
from faceage.imaging.photos import open_photo
from faceage.scale.packing import Packer

MAX_SECONDS = 10.0  # a small file may hold 200 megapixels
MAX_MEGABYTES = 3000.0  # 200 megapixels of 16 bits

CHARACTERS = "0123456789,-:. allrgest+e\n\u0664\u00b2"


def make_pictures() -> dict[str, bytes]:
    """A small picture in every format, by suffix."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (40, 50)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("jpg", colour, {"exif": exif}),
        ("progressive.jpg", colour, {"progressive": True}),
        ("cmyk.jpg", colour.convert("CMYK"), {}),
        ("png", colour, {"exif": exif}),
        ("deep.png", deep, {}),
        ("palette.png", colour.convert("P"), {"transparency": 3}),
        ("tif", colour, {"compression": "tiff_lzw"}),
        ("deep.tif", deep, {}),
        ("webp", colour, {"exif": exif}),
        ("lossless.webp", colour, {"lossless": True}),
        *((suffix, colour, {}) for suffix in ("bmp", "gif", "ppm", "jp2", "avif")),
    ]
    pictures = {}
    for suffix, image, options in kinds:
        file = io.BytesIO()
        format_name = Image.registered_extensions()[f".{suffix.split('.')[-1]}"]
        image.save(file, format_name, **options)
        pictures[suffix] = file.getvalue()
    return pictures


def read_dataset(folder: Path) -> None:
    """All labels and pictures of the train set."""
    dataset = open_dataset(folder)
    try:
        dataset.check_files()
        for sample in dataset.samples:
            dataset.read(sample)
    finally:
        dataset.close()


def main(count: int, first: int = 0) -> int:
    pictures = make_pictures()
    suffixes = list(pictures)
    with tempfile.TemporaryDirectory() as name:
        photos, plain, zipped = (Path(name, folder) for folder in ("photos", "plain", "zipped"))
        for folder in (photos, plain, zipped):
            folder.mkdir()
        write_noise(plain)
        table = (plain / "faces.csv").read_bytes()
        with zipfile.ZipFile(zipped / "faces.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain / "0.png", "0.png")
        (zipped / "faces.csv").write_text("file,age,set,zip\n0.png,30,train,faces.zip\n")
        archived = (zipped / "faces.zip").read_bytes()
        packer = Packer(str(plain), Path(name, "packed"), 10**6)
        list(packer.write_shards(lambda: None))
        tars = Path(name, "packed").glob("train/*.tar")
        packed = {path: path.read_bytes() for path in (packer.write_table(), *tars)}

        def make(number: int, rng: np.random.Generator) -> tuple[str, Any, tuple[Reader, ...]]:
            mutate = ANY[rng.integers(len(ANY))]

            def write(path: Path, data: bytes) -> str:
                end = min(len(data), 200) if rng.random() < 0.5 else len(data)
                path.write_bytes(mutate(rng, data, end))
                return f"{mutate.__name__} {path.name}"

            kind = number % 8
            if kind == 0:
                return write(plain / "faces.csv", table), plain, (read_dataset,)
            if kind == 1:
                return write(zipped / "faces.zip", archived), zipped, (read_dataset,)
            if kind == 2:
                text = "".join(rng.choice(list(CHARACTERS), rng.integers(0, 12)))
                return repr(text), text, (lambda text: parse_ages([text]), parse_faces)
            if kind == 3:
                for path, data in packed.items():
                    path.write_bytes(data)
                path = list(packed)[rng.integers(len(packed))]
                return write(path, packed[path]), Path(name, "packed"), (read_dataset,)
            suffix = suffixes[rng.integers(len(suffixes))]
            path = photos / f"photo.{suffix}"
            return write(path, pictures[suffix]), path, (open_photo,)

        return fuzz(make, count, first, MAX_SECONDS, MAX_MEGABYTES)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
