"""Photos of 16 bits a channel stay as they are."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from faceage.errors import PhotoError
from faceage.imaging.decoding import to_8_bit
from faceage.imaging.encoding import _encode_16_bit_tiff
from faceage.imaging.photos import Photo, as_photo, open_photo, read_photo, save_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LEVELS = np.random.default_rng(0).integers(0, 65536, (24, 30, 4), np.uint16)
LEVELS[..., :3] = np.sort(LEVELS[..., :3], axis=1)


def write(path: Path, levels: np.ndarray) -> Path:
    """Written by OpenCV: RGB, RGBA or grey."""
    order = {2: slice(None), 3: [2, 1, 0], 4: [2, 1, 0, 3]}
    channels = levels.shape[2] if levels.ndim == 3 else 2
    stored = levels if levels.ndim == 2 else levels[..., order[channels]]
    assert cv2.imwrite(str(path), stored)
    return path


def read(path: Path) -> np.ndarray:
    """Read by OpenCV: RGB, RGBA or grey."""
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored.ndim == 2:
        return stored
    return stored[..., [2, 1, 0, 3][: stored.shape[2]]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_and_alpha_are_bit_identical(tmp_path: Path, suffix: str, channels: int) -> None:
    levels = LEVELS[..., :channels]
    photo = open_photo(write(tmp_path / f"p{suffix}", levels))
    np.testing.assert_array_equal(photo.deep, levels[..., :3])
    np.testing.assert_array_equal(photo.pixels, np.rint(levels[..., :3] / 257))
    assert (photo.alpha is None) == (channels == 3)
    out = save_photo(photo, photo.full, tmp_path / f"o{suffix}", synthetic={"age": 70})
    result = read(out)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, levels)
    with Image.open(out) as image:  # a second reader agrees: it takes the high bytes
        np.testing.assert_array_equal(np.asarray(image), levels >> 8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_bytes_are_read_like_files(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"p{suffix}", LEVELS)
    photo, expected = read_photo(path.read_bytes()), open_photo(path)
    np.testing.assert_array_equal(photo.deep, expected.deep)
    np.testing.assert_array_equal(photo.alpha, expected.alpha)
    assert photo.alpha.dtype == np.uint16


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_greyscale_is_bit_identical(tmp_path: Path, suffix: str) -> None:
    photo = open_photo(write(tmp_path / f"p{suffix}", LEVELS[..., 0]))
    assert photo.grey
    out = save_photo(photo, photo.full, tmp_path / f"o{suffix}", synthetic={"age": 70})
    np.testing.assert_array_equal(read(out), LEVELS[..., 0])
    coloured = photo.full.copy()
    coloured[3, 4] = (1, 2, 3)
    out = save_photo(photo, coloured, tmp_path / f"c{suffix}")
    np.testing.assert_array_equal(read(out), coloured)


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_compressions(tmp_path: Path, compression: str) -> None:
    photo = Photo(to_8_bit(LEVELS[..., :3]), deep=LEVELS[..., :3], compression=compression)
    again = open_photo(save_photo(photo, photo.full, tmp_path / "o.tif"))
    assert again.compression == compression
    np.testing.assert_array_equal(again.deep, LEVELS[..., :3])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_metadata_are_written(tmp_path: Path, suffix: str) -> None:
    photo = Photo(to_8_bit(LEVELS[..., :3]), deep=LEVELS[..., :3], icc=SRGB, dpi=(300, 300))
    out = save_photo(photo, photo.full, tmp_path / f"o{suffix}", synthetic={"age": 70})
    with Image.open(out) as image:
        assert image.info["icc_profile"] == SRGB
        assert [round(v) for v in image.info["dpi"]] == [300, 300]
        assert "age=70" in image.getexif()[0x010E]
        if suffix == ".png":
            assert "age=70" in image.text["Description"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_orientation_opens_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    """As the same picture of 8 bits does."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    high = LEVELS[..., :3] >> 8
    Image.fromarray(high.astype(np.uint8)).save(tmp_path / f"8{suffix}", exif=exif)
    path = tmp_path / f"16{suffix}"
    if suffix == ".tif":
        path.write_bytes(_encode_16_bit_tiff(LEVELS[..., :3], {"exif": exif}))
    else:
        data = write(path, LEVELS[..., :3]).read_bytes()
        body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        from zlib import crc32

        chunk = (len(body) - 4).to_bytes(4) + body + crc32(body).to_bytes(4)
        path.write_bytes(data[:33] + chunk + data[33:])
    photo = open_photo(path)
    assert photo.deep is not None
    np.testing.assert_array_equal(photo.deep >> 8, open_photo(tmp_path / f"8{suffix}").pixels)


def test_formats_without_16_bits_get_8(tmp_path: Path) -> None:
    photo = Photo(to_8_bit(LEVELS[..., :3]), deep=LEVELS[..., :3])
    out = save_photo(photo, photo.full, tmp_path / "o.webp")
    np.testing.assert_array_equal(open_photo(out).pixels, photo.pixels)


def test_arrays_of_16_bits() -> None:
    photo = as_photo(LEVELS)
    np.testing.assert_array_equal(photo.deep, LEVELS[..., :3])
    np.testing.assert_array_equal(photo.alpha, LEVELS[..., 3])
    assert photo.pixels.dtype == np.uint8
    assert as_photo(LEVELS[..., 0]).grey
    with pytest.raises(PhotoError, match="only 30x8 px"):
        as_photo(LEVELS[:8])


def test_8_bit_photos_have_no_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(to_8_bit(LEVELS)).save(path)
    photo = open_photo(path)
    assert photo.deep is None
    assert photo.full is photo.pixels


def test_every_level_is_rounded_to_the_nearest() -> None:
    levels = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_8_bit(levels), np.rint(levels / 257))


def test_rounding_needs_little_memory() -> None:
    levels = np.zeros((2000, 500, 3), np.uint16)
    tracemalloc.start()
    to_8_bit(levels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.8 * levels.nbytes  # the result has 0.5


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.png", LEVELS)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(PhotoError, match="damaged"):
        open_photo(path)
