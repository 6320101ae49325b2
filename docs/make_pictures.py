"""Make the pictures of the documentation from the example portrait: `python docs/make_pictures.py`.

All of them depend on the default weights: run it after the weights have changed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from faceage.imaging.animations import read_animation
from faceage.imaging.drawing import strip
from faceage.imaging.photos import Photo, open_photo, save_photo

ROOT = Path(__file__).parent.parent
PORTRAIT = ROOT / "examples" / "astronaut.jpg"
GUIDE = ROOT / "docs" / "guide"
VIDEO = ROOT / "docs" / "video.jpg"
HEAD = (100, 0, 350, 250)  # px of the portrait: x0, y0, x1, y1


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_sheet(folder)
        make_drawn(folder)
        make_aged(folder)
        make_numbered(folder)
        make_animated(folder)


def make_sheet(folder: Path) -> None:
    """The portrait at seven ages, for the README and the home page."""
    run("age", PORTRAIT, "--to", "3,10,20,35,50,65,80", "--sheet", "--crop", "--out", folder)
    write(ROOT / "examples" / "astronaut-ages.jpg", (folder / "astronaut.sheet.jpg").read_bytes())


def make_drawn(folder: Path) -> None:
    """The portrait with its predicted age."""
    run("predict", PORTRAIT, "--draw", folder)
    write(GUIDE / "predicted.jpg", (folder / "astronaut.faces.jpg").read_bytes())


def make_aged(folder: Path) -> None:
    """The head of the portrait, at 5 and at 70 years, side by side."""
    run("age", PORTRAIT, "--to", "5,70", "--out", folder)
    files = [PORTRAIT, folder / "astronaut.age05.jpg", folder / "astronaut.age70.jpg"]
    photos = [open_photo(file) for file in files]
    x0, y0, x1, y1 = HEAD
    pixels = np.concatenate([photo.pixels[y0:y1, x0:x1] for photo in photos], axis=1)
    mark = {"what": "the example portrait at 5 and at 70 years"}
    save_photo(photos[0].derive(pixels), pixels, GUIDE / "aged.jpg", force=True, synthetic=mark)
    report(GUIDE / "aged.jpg")


def make_numbered(folder: Path) -> None:
    """The head and the whole portrait in one photo, with the numbers of both faces."""
    portrait = Image.fromarray(open_photo(PORTRAIT).pixels)
    head = portrait.crop(HEAD)
    pixels = np.concatenate([np.asarray(head), np.asarray(portrait.resize(head.size))], axis=1)
    save_photo(Photo(pixels), pixels, folder / "party.jpg")
    run("predict", folder / "party.jpg", "--draw", folder)
    write(GUIDE / "numbered.jpg", (folder / "party.faces.jpg").read_bytes())


def make_animated(folder: Path) -> None:
    """Six frames of an animation of the portrait, from 5 to 85 years."""
    file = folder / "moving.webp"
    ages = [5, 21, 37, 53, 69, 85]
    run("age", PORTRAIT, "--animate", "5-85:16", "--out", file)
    frames = list(read_animation(file))
    assert len(frames) == len(ages)  # WebP stores the frames of a held age as one
    x0, y0, x1, y1 = HEAD
    heads = [frame.pixels[y0:y1, x0:x1] for frame in frames]
    pixels = np.asarray(strip(heads, [str(age) for age in ages], tile=160))
    mark = {"what": "frames of an animation of the example portrait"}
    save_photo(Photo(pixels, lossless=False), pixels, VIDEO, force=True, synthetic=mark)
    report(VIDEO)


def run(*arguments: str | Path) -> None:
    """Run a command of faceage."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "faceage", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    report(path)


def report(path: Path) -> None:
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
