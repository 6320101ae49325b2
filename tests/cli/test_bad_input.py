"""Bad and unusual photos on the command line.

Each gives one line that names the file and what to do, the right exit code and no partial file;
the other photos of a batch are done.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)


def _noise(path: Path) -> None:
    Image.fromarray(NOISE).save(path)


def _half_a_face(path: Path) -> None:
    astronaut = Path(__file__).parents[2] / "examples" / "astronaut.jpg"
    with Image.open(astronaut) as image:
        image.crop((image.width * 228 // 512, 0, image.width, image.height)).save(path)


def _truncated(path: Path) -> None:
    _noise(path)
    path.write_bytes(path.read_bytes()[:-20000])


def _huge(path: Path) -> None:
    """A PNG that claims 20000x20000 px in its header, and holds nothing."""
    from zlib import crc32

    header = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such photo"),
    "folder": (Path.mkdir, "has no photos"),
    "text": (lambda path: path.write_text("hello"), "not an image"),
    "empty": (Path.touch, "0 bytes"),
    "truncated": (_truncated, "damaged"),
    "pixel": (lambda path: Image.new("RGB", (1, 1)).save(path), "1x1 px"),
    "huge": (_huge, "400 megapixels"),
    "noise": (_noise, "No face found"),
    "half": (_half_a_face, "face"),
}


@pytest.mark.parametrize("command", ["predict", "age", "align"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_photo(
    run, snapshot, tiny_weights: Path, tmp_path: Path, command: str, kind: str
) -> None:
    make, says = BAD[kind]
    path = tmp_path / "bad photö.png"
    make(path)
    before = snapshot(tmp_path)
    out = tmp_path / "out"
    options = {
        "predict": ["--weights", tiny_weights],
        "age": ["--weights", tiny_weights, "--to", 5, "--out", out],
        "align": ["--out", out],
    }[command]
    answer = run(command, path, *options)
    assert answer.code == 1
    assert answer.out == ""
    assert len(answer.errors) == 1
    assert answer.err.startswith("error: ")
    assert says in answer.err
    assert str(path) in answer.err
    assert answer.err.rstrip().endswith((".", "0.5", "0.4", "0.3", "0.2", "0.1"))
    assert snapshot(tmp_path) == before


def test_a_batch_goes_on_past_bad_photos(
    run, tiny_weights: Path, astronaut: Path, tmp_path: Path
) -> None:
    bad = []
    for kind, (make, _) in BAD.items():
        bad.append(tmp_path / f"{kind}.png")
        make(bad[-1])
    out = tmp_path / "out"
    arguments = ("--weights", tiny_weights, "--to", 5, "--out", out)
    answer = run("age", *bad, tmp_path / "no*.gif", astronaut, *arguments)
    assert answer.code == 1
    assert answer.lines == [str(out / "astronaut.age05.jpg")]
    assert sorted(path.name for path in out.iterdir()) == ["astronaut.age05.jpg", "failures.csv"]
    assert answer.errors[0] == "10 of 11 failed:"
    assert len(answer.errors) == 11
    for path in bad:
        assert path.name in answer.err

    rows = json.loads(run("predict", *bad, astronaut, "--weights", tiny_weights, "--json").out)
    assert len([row for row in rows if "error" in row]) == 9
    assert [row["face"] for row in rows if "error" not in row] == [1]


# --- unusual photos that are processed -----------------------------------------------------------


def _odd(kind: str, pixels: np.ndarray, folder: Path) -> Path:
    image = Image.fromarray(pixels)
    path = folder / f"{kind}.png"
    match kind:
        case "16-bit":
            wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
            Image.fromarray(wide).save(path)
        case "cmyk":
            image.convert("CMYK").save(path := path.with_suffix(".jpg"), quality=95)
        case "palette":
            image.quantize(256).save(path)
        case "greyscale":
            image.convert("L").save(path)
        case "alpha":
            image.putalpha(Image.linear_gradient("L").resize(image.size))
            image.save(path)
        case "unicode":
            (folder / "été  à 東京").mkdir()
            image.save(path := folder / "été  à 東京" / "it's [bold] me ☺.png")
        case "webp":
            image.save(path := path.with_suffix(".webp"), lossless=True)
        case "gif":
            image.quantize(256).save(path := path.with_suffix(".gif"))
    return path


ODD = ["16-bit", "cmyk", "palette", "greyscale", "alpha", "unicode", "webp", "gif"]


@pytest.mark.parametrize("kind", ODD)
def test_odd_photo(run, tiny_weights: Path, portrait, tmp_path: Path, kind: str) -> None:
    path = _odd(kind, portrait, tmp_path)
    answer = run("age", path, "--weights", tiny_weights, "--to", 70)
    assert (answer.code, answer.err) == (0, "")
    result = Path(answer.lines[0])
    assert result.parent == path.parent
    assert result.stem == f"{path.stem}.age70"
    with Image.open(path) as before, Image.open(result) as after:
        assert after.size == before.size
        assert ("A" in after.mode) == (kind == "alpha")
        assert (after.mode == "L") == (kind == "greyscale")
        assert (after.mode == "I;16") == (kind == "16-bit")
        if kind == "alpha":
            np.testing.assert_array_equal(after.getchannel("A"), before.getchannel("A"))
    rows = json.loads(run("predict", path, "--weights", tiny_weights, "--json").out)
    assert [row["file"] for row in rows] == [str(path)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(run, tiny_weights: Path, portrait, tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(portrait)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "me.png", exif=exif)
    assert run("age", tmp_path / "me.png", "--weights", tiny_weights, "--to", 70).code == 0
    with Image.open(tmp_path / "me.age70.png") as after:
        assert after.getexif().get(0x0112, 1) == 1
        assert after.size == upright.size
        pixels = np.asarray(after.convert("RGB"))
    bottom = portrait.shape[0] * 3 // 4  # far from the face
    np.testing.assert_array_equal(pixels[bottom:], portrait[bottom:])


def test_50_megapixels(run, tiny_weights: Path, portrait, tmp_path: Path) -> None:
    large = Image.fromarray(portrait).resize((7072, 7072))
    large.save(tmp_path / "large.jpg", quality=80)
    answer = run("age", tmp_path / "large.jpg", "--weights", tiny_weights, "--to", 70)
    assert (answer.code, answer.err) == (0, "")
    with Image.open(tmp_path / "large.age70.jpg") as after:
        assert after.size == (7072, 7072)


def test_face_at_the_border(run, tiny_weights: Path, portrait, tmp_path: Path) -> None:
    """The crop reaches far beyond the photo, the face does not."""
    from faceage.faces.detection import make_detector

    x0, y0, x1, y1 = (int(v) for v in make_detector().detect(portrait)[0].box)
    close = np.ascontiguousarray(portrait[y0:y1, x0:x1])
    Image.fromarray(close).save(tmp_path / "close.png")
    answer = run("age", tmp_path / "close.png", "--weights", tiny_weights, "--to", 70)
    assert (answer.code, answer.err) == (0, "")
    with Image.open(tmp_path / "close.age70.png") as after:
        assert after.size == (x1 - x0, y1 - y0)
