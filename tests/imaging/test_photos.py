"""Reading and writing photos."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageSequence, JpegImagePlugin

from faceage import files
from faceage.errors import OutputError, PhotoError
from faceage.imaging import decoding, photos
from faceage.imaging.padding import is_padded
from faceage.imaging.photos import (
    Photo,
    as_photo,
    encode_photo,
    open_photo,
    read_photo,
    result_suffix,
    save_photo,
)

TAG = ExifTags.Base


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# The transpose that undoes what each EXIF orientation asks for: applied to an upright picture it
# gives the pixels a camera would have stored.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture(width: int = 48, height: int = 32) -> np.ndarray:
    """Smooth and coloured; different from all its rotations and mirror images."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([255 * x, 255 * y, 255 * x * (1 - y)], 2).round().astype(np.uint8)


def saved(folder: Path, name: str, image: Image.Image | np.ndarray, **options: object) -> Path:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(folder / name, **options)
    return folder / name


def exif_with(**tags: object) -> Image.Exif:
    exif = Image.Exif()
    for name, value in tags.items():
        exif[TAG[name]] = value
    return exif


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_opens_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright, turn = Image.fromarray(picture()), STORED_AS[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    options = {"lossless": True} if suffix == ".webp" else {}
    options |= {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    exif = exif_with(Orientation=orientation, Make="Kamera")
    path = saved(tmp_path, "p" + suffix, stored, exif=exif, **options)

    photo = open_photo(path)
    assert photo.pixels.shape == (32, 48, 3)
    assert np.abs(photo.pixels.astype(int) - picture()).max() <= (6 if suffix == ".jpg" else 0)

    out = save_photo(photo, photo.pixels, tmp_path / ("out" + suffix))
    with Image.open(out) as again:
        assert again.size == (48, 32)
        assert again.getexif().get(TAG.Orientation, 1) == 1
        assert again.getexif()[TAG.Make] == "Kamera"


def test_alpha_is_bit_identical(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.arange(48 * 32, dtype=np.uint16).reshape(32, 48) % 256])
    path = saved(tmp_path, "p.png", rgba.astype(np.uint8))
    photo = open_photo(path)
    assert np.array_equal(photo.alpha, rgba[..., 3])
    for name in ("o.png", "o.tif"):
        out = save_photo(photo, photo.pixels, tmp_path / name)
        # Also the colours where nothing shows: they are "the rest of the photo" as well.
        assert np.array_equal(np.asarray(Image.open(out)), rgba)


def test_jpeg_drops_alpha(tmp_path: Path) -> None:
    photo = Photo(picture(), alpha=np.full((32, 48), 9, np.uint8))
    with Image.open(save_photo(photo, photo.pixels, tmp_path / "o.jpg")) as image:
        assert image.mode == "RGB"


def test_a_crop_does_not_take_the_photos_alpha(tmp_path: Path) -> None:
    photo = Photo(picture(), alpha=np.zeros((32, 48), np.uint8))
    with Image.open(save_photo(photo, picture(20, 20), tmp_path / "crop.png")) as image:
        assert (image.mode, image.size) == ("RGB", (20, 20))


@pytest.mark.parametrize("dtype", ["I;16", "I;16B"])
def test_16_bit_greyscale(tmp_path: Path, dtype: str) -> None:
    levels = np.tile(np.arange(0, 256, dtype=np.uint16), (20, 1))
    image = Image.fromarray(levels * 257)  # 65535 is white
    suffix = ".png" if dtype == "I;16" else ".tif"
    photo = open_photo(saved(tmp_path, "p" + suffix, image))
    assert photo.pixels.dtype == np.uint8
    assert np.array_equal(photo.pixels, np.repeat(levels[..., None], 3, 2))
    assert photo.grey


def test_16_bit_rgb_png(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "p.png"
    cv2.imwrite(str(path), picture()[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(open_photo(path).pixels, picture())


def test_floating_point_tiff(tmp_path: Path) -> None:
    values = np.tile(np.linspace(0, 1, 20, dtype=np.float32), (20, 1))
    photo = open_photo(saved(tmp_path, "p.tif", Image.fromarray(values)))
    assert np.array_equal(photo.pixels[0, :, 0], np.rint(values[0] * 255))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    flat = np.full((32, 32, 3), (200, 60, 20), np.uint8)
    options = {"quality": 100} if suffix == ".jpg" else {}
    path = saved(tmp_path, "p" + suffix, Image.fromarray(flat).convert("CMYK"), **options)
    photo = open_photo(path)
    assert np.abs(photo.pixels.astype(int) - flat).max() <= 3  # not inverted
    out = save_photo(photo, photo.pixels, tmp_path / ("o" + suffix))
    assert Image.open(out).mode == "RGB"


def test_a_cmyk_profile_is_dropped_with_the_cmyk(tmp_path: Path) -> None:
    profile = bytearray(SRGB)
    profile[16:20] = b"CMYK"  # enough to be taken for one; too broken to convert by
    image = Image.fromarray(picture()).convert("CMYK")
    photo = open_photo(saved(tmp_path, "p.jpg", image, icc_profile=bytes(profile), quality=100))
    assert photo.icc is None
    assert np.abs(photo.pixels.astype(int) - picture()).mean() < 4


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    flat = np.zeros((20, 20, 3), np.uint8)
    flat[:, 10:] = (250, 100, 0)
    palette = Image.fromarray(flat).quantize(4)
    photo = open_photo(saved(tmp_path, "a.png", palette))
    assert np.array_equal(photo.pixels, flat)
    assert photo.alpha is None
    clear = palette.getpixel((0, 0))
    photo = open_photo(saved(tmp_path, "b.png", palette, transparency=clear))
    assert np.array_equal(photo.alpha == 0, flat[..., 0] == 0)


def test_key_colour_becomes_alpha(tmp_path: Path) -> None:
    flat = np.zeros((20, 20, 3), np.uint8)
    flat[:, 10:] = (250, 100, 0)
    path = saved(tmp_path, "k.png", flat, transparency=(250, 100, 0))
    assert np.array_equal(open_photo(path).alpha == 0, flat[..., 0] == 250)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "YCbCr"])
def test_modes(tmp_path: Path, mode: str) -> None:
    source = Image.fromarray(picture()).convert(mode)
    path = saved(tmp_path, "p.tif" if mode == "YCbCr" else "p.png", source)
    photo = open_photo(path)
    assert photo.pixels.shape == (32, 48, 3)
    assert photo.grey == (mode in ("1", "L", "LA"))
    assert (photo.alpha is not None) == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.tif"])
def test_greyscale_stays_greyscale_until_coloured(tmp_path: Path, name: str) -> None:
    photo = open_photo(saved(tmp_path, name, Image.fromarray(picture()).convert("L")))
    out = save_photo(photo, photo.pixels, tmp_path / f"grey-{name}")
    assert Image.open(out).mode == "L"
    coloured = photo.pixels.copy()
    coloured[5, 5] = (200, 10, 10)
    out = save_photo(photo, coloured, tmp_path / f"red-{name}")
    assert Image.open(out).mode == "RGB"


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif", ".png"])
def test_first_frame_of_many(tmp_path: Path, suffix: str) -> None:
    first, second = np.full((20, 20, 3), 40, np.uint8), np.full((20, 20, 3), 200, np.uint8)
    path = tmp_path / ("p" + suffix)
    options = {"lossless": True} if suffix == ".webp" else {}
    frames = [Image.fromarray(second)]
    Image.fromarray(first).save(path, save_all=True, append_images=frames, **options)
    with Image.open(path) as image:
        assert sum(1 for _ in ImageSequence.Iterator(image)) == 2
    photo = open_photo(path)
    assert np.array_equal(photo.pixels, first)
    assert photo.several
    assert not open_photo(saved(tmp_path, "one" + suffix, first, **options)).several


def test_50_megapixels_open_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, "big.png", Image.new("L", (8660, 5774), 7), compress_level=1)
    limit = 1_000_000  # Pillow would refuse the photo by this limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = open_photo(path)
    assert photo.pixels.shape == (5774, 8660, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    "name", ["ein Bild.png", "Füße 写真 🙂.jpg", "[1] (copy).png", "-dash.png", "UPPER.JPG"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "мои фото"
    folder.mkdir()
    path = saved(folder, name, picture())
    photo = open_photo(str(path))
    out = save_photo(photo, photo.pixels, folder / ("neu " + name))
    assert out.name == "neu " + name
    assert open_photo(out).pixels.shape == photo.pixels.shape


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    whole = saved(tmp_path, "whole.jpg", picture(200, 200)).read_bytes()
    png = saved(tmp_path, "whole.png", picture(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "head.jpg").write_bytes(whole[:20])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "raw.dng").write_bytes(b"II*\0" + bytes(500))
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n")
    saved(tmp_path, "dot.png", picture(1, 1))
    saved(tmp_path, "thin.png", picture(400, 15))
    for name, said in {
        "missing.jpg": "No such photo",
        "": "is a folder",
        "cut.jpg": "is damaged",
        "cut.png": "is damaged",
        "head.jpg": "not an image",
        "empty.jpg": "0 bytes",
        "text.jpg": "not an image",
        "raw.dng": "in a format that cannot be read",
        "script.eps": "not an image",
        "dot.png": "only 1x1 px",
        "thin.png": "only 400x15 px",
        "text.jpg/x.jpg": "Cannot open",
        "x" * 300: "Cannot open",
    }.items():
        with pytest.raises(PhotoError, match=said) as caught:
            open_photo(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert caught.value.hint
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(photos.HAS_HEIF, reason="the extra heif is installed")
def test_heic_needs_an_extra(tmp_path: Path) -> None:
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))
    with pytest.raises(PhotoError, match=r"cannot be read\. Run pip install 'faceage\[heif\]'"):
        open_photo(path)


@pytest.mark.skipif(not photos.HAS_HEIF, reason="the extra heif is not installed")
def test_heic_is_read(tmp_path: Path) -> None:
    pixels = picture(64, 48)
    exif = exif_with(Make="Kamera")
    photo = open_photo(saved(tmp_path, "phone.HEIC", pixels, format="HEIF", exif=exif, quality=95))
    assert photo.format == "HEIF"
    assert np.abs(photo.pixels.astype(int) - pixels).mean() < 4
    result = save_photo(photo, photo.pixels, tmp_path / "aged.HEIC", synthetic={"age": 5})
    assert result.name == "aged.png"
    with Image.open(result) as image:
        assert image.getexif()[TAG.Make] == "Kamera"
    (tmp_path / "cut.heic").write_bytes((tmp_path / "phone.HEIC").read_bytes()[:300])
    with pytest.raises(PhotoError, match=r"cut\.heic is"):
        open_photo(tmp_path / "cut.heic")


def test_too_large_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "MAX_PIXELS", 1_000_000)
    with pytest.raises(PhotoError, match="2 megapixels; the limit is 1"):
        open_photo(saved(tmp_path, "p.png", Image.new("L", (2000, 1000))))


def test_broken_exif_is_no_reason_to_fail(tmp_path: Path) -> None:
    path = saved(tmp_path, "p.jpg", picture(), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff garbage")
    photo = open_photo(path)
    save_photo(photo, photo.pixels, tmp_path / "o.jpg", synthetic={"age": 5})


def test_as_photo_takes_what_people_have(tmp_path: Path) -> None:
    pixels = picture()
    assert np.array_equal(as_photo(pixels).pixels, pixels)
    assert np.array_equal(as_photo(Image.fromarray(pixels)).pixels, pixels)
    assert as_photo(pixels[..., 0]).grey
    assert as_photo(np.dstack([pixels, pixels[..., 0]])).alpha.shape == (32, 48)
    path = saved(tmp_path, "p.png", pixels)
    assert as_photo(path).path == as_photo(str(path)).path == path
    photo = Photo(pixels)
    assert as_photo(photo) is photo
    turned = Image.open(saved(tmp_path, "t.jpg", pixels, exif=exif_with(Orientation=6)))
    assert as_photo(turned).pixels.shape == (48, 32, 3)
    for wrong in (pixels / 255, pixels[..., :2], pixels[:0], np.zeros(5, np.uint8)):
        with pytest.raises(PhotoError, match="is no photo"):
            as_photo(wrong)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [31, 88])
def test_jpeg_tables_subsampling_and_profile_are_kept(
    tmp_path: Path, quality: int, subsampling: int
) -> None:
    source = saved(
        tmp_path,
        "p.jpg",
        picture(64, 64),
        quality=quality,
        subsampling=subsampling,
        icc_profile=SRGB,
        dpi=(300, 300),
        progressive=quality == 88,
    )
    photo = open_photo(source)
    out = save_photo(photo, photo.pixels, tmp_path / "o.jpg", synthetic={"age": 70})
    with Image.open(source) as before, Image.open(out) as after:
        assert after.quantization == before.quantization
        assert JpegImagePlugin.get_sampling(after) == subsampling
        assert after.info["icc_profile"] == SRGB
        assert after.info["dpi"] == (300, 300)
        assert bool(after.info.get("progressive")) == (quality == 88)


def test_jpeg_with_a_table_per_component(tmp_path: Path) -> None:
    tables = [[k + i for i in range(64)] for k in (1, 2, 3)]
    photo = open_photo(saved(tmp_path, "p.jpg", picture(), qtables=tables, subsampling=0))
    with Image.open(save_photo(photo, photo.pixels, tmp_path / "o.jpg")) as after:
        assert [list(after.quantization[i]) for i in range(3)] == tables


def test_lossless_formats_are_bit_identical(tmp_path: Path) -> None:
    for name in ("p.png", "p.tif", "p.webp"):
        options = {"lossless": True} if name == "p.webp" else {}
        options |= {"compression": "tiff_lzw"} if name == "p.tif" else {}
        photo = open_photo(saved(tmp_path, name, picture(), icc_profile=SRGB, **options))
        changed = photo.pixels.copy()
        changed[3, 4] = (1, 2, 3)
        out = save_photo(photo, changed, tmp_path / f"o-{name}", synthetic={"age": 70})
        again = open_photo(out)
        assert np.array_equal(again.pixels, changed)
        assert again.icc == SRGB
        assert again.compression == photo.compression


def test_webp_stays_lossy_or_lossless(tmp_path: Path) -> None:
    for lossless in (True, False):
        for icc in (None, SRGB):  # with a profile the file has another layout
            path = saved(tmp_path, "p.webp", picture(), lossless=lossless, icc_profile=icc)
            photo = open_photo(path)
            assert photo.lossless == lossless == read_photo(path.read_bytes()).lossless
            out = save_photo(photo, photo.pixels, tmp_path / "o.webp", force=True)
            assert open_photo(out).lossless == lossless


@pytest.mark.parametrize("name", ["o.jpg", "o.png", "o.webp", "o.tif"])
def test_results_say_that_they_are_synthetic(tmp_path: Path, name: str) -> None:
    out = save_photo(
        Photo(picture()), picture(), tmp_path / name, synthetic={"age": 70, "weights": "0a1b"}
    )
    with Image.open(out) as image:
        exif = image.getexif()
        assert exif[TAG.Software].startswith("faceage ")
        description = exif[TAG.ImageDescription]
        assert description.startswith("Synthetic")
        assert "age=70" in description
        assert "weights=0a1b" in description
        if name == "o.png":
            assert image.text["Software"] == exif[TAG.Software]
            assert image.text["Description"] == description


def test_no_mark_on_what_is_not_synthetic(tmp_path: Path) -> None:
    with Image.open(save_photo(Photo(picture()), picture(), tmp_path / "o.png")) as image:
        assert TAG.Software not in image.getexif()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_camera_and_date_are_kept(tmp_path: Path, suffix: str) -> None:
    exif = exif_with(Make="Kamera", Model="X1", DateTime="2020:01:02 03:04:05")
    exif[TAG.ImageDescription] = "Grandma"
    exif[TAG.XResolution] = 72.0
    exif[ExifTags.IFD.Exif] = {
        TAG.DateTimeOriginal: "2019:01:02 03:04:05",
        TAG.MakerNote: b"a preview of the old face",
        TAG.ExifImageWidth: 999,
    }
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (48.0, 8.0, 0.0)}
    path = saved(tmp_path, "p" + suffix, picture(), exif=exif.tobytes())
    photo = open_photo(path)
    out = save_photo(photo, photo.pixels, tmp_path / ("o" + suffix), synthetic={"age": 5})
    with Image.open(out) as image:
        after = image.getexif()
        inner = after.get_ifd(ExifTags.IFD.Exif)
        assert after[TAG.Make] == "Kamera"
        assert after[TAG.DateTime] == "2020:01:02 03:04:05"
        assert after[TAG.ImageDescription].endswith("| Grandma")
        assert inner[TAG.DateTimeOriginal] == "2019:01:02 03:04:05"
        assert TAG.MakerNote not in inner
        assert TAG.ExifImageWidth not in inner
        assert not after.get_ifd(ExifTags.IFD.IFD1)
    again = open_photo(out)
    twice = save_photo(again, again.pixels, tmp_path / ("t" + suffix), synthetic={"age": 6})
    with Image.open(twice) as image:
        assert image.getexif()[TAG.ImageDescription].count("Synthetic") == 1


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_private_metadata_do_not_pass_into_synthetic_pictures(tmp_path: Path, suffix: str) -> None:
    exif = exif_with(Make="Kamera", HostComputer="Anna's telephone", Artist="Anna")
    exif[ExifTags.IFD.Exif] = {
        TAG.BodySerialNumber: "1234",
        TAG.LensSerialNumber: "5678",
        TAG.CameraOwnerName: "Anna",
        TAG.FNumber: 2.0,
    }
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (48.0, 8.0, 0.0)}
    photo = open_photo(saved(tmp_path, "p" + suffix, picture(), exif=exif.tobytes()))

    def read_back(name: str, **options: object) -> tuple[Image.Exif, dict, dict]:
        out = save_photo(photo, photo.pixels, tmp_path / (name + suffix), **options)
        with Image.open(out) as image:
            after = image.getexif()
            ifds = [dict(after.get_ifd(ifd)) for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)]
        return after, *ifds

    after, camera, position = read_back("synthetic", synthetic={"age": 5})
    assert (after[TAG.Make], after[TAG.Artist]) == ("Kamera", "Anna")
    assert camera[TAG.FNumber] == 2
    assert TAG.HostComputer not in after
    assert position == {}
    assert not {TAG.BodySerialNumber, TAG.LensSerialNumber, TAG.CameraOwnerName} & set(camera)
    for name, options in (("kept", {"synthetic": {}, "keep_private": True}), ("photo", {})):
        after, camera, position = read_back(name, **options)
        assert after[TAG.HostComputer] == "Anna's telephone"
        assert camera[TAG.BodySerialNumber] == "1234"
        assert position[1] == "N"


def test_a_thumbnail_is_not_copied(tmp_path: Path) -> None:
    # A second image directory with a JPEG thumbnail, as cameras write it.
    thumbnail = saved(tmp_path, "t.jpg", picture(16, 16)).read_bytes()
    u16, u32 = (lambda v: v.to_bytes(2, "little")), (lambda v: v.to_bytes(4, "little"))

    def directory(entries: list[tuple[int, int, int]], following: int) -> bytes:
        rows = (u16(tag) + u16(kind) + u32(1) + u32(v) for tag, kind, v in entries)
        return u16(len(entries)) + b"".join(rows) + u32(following)

    first = directory([(0x0112, 3, 1)], following=8 + 18)
    start = 8 + 18 + 30
    second = directory([(0x0201, 4, start), (0x0202, 4, len(thumbnail))], following=0)
    exif = b"Exif\0\0II*\0" + u32(8) + first + second + thumbnail
    path = saved(tmp_path, "p.jpg", picture(), exif=exif)
    with Image.open(path) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(thumbnail)
    photo = open_photo(path)
    out = save_photo(photo, photo.pixels, tmp_path / "o.jpg")
    assert out.read_bytes().count(b"\xff\xd8\xff") == 1


def test_exif_too_long_for_a_jpeg_is_left_out(tmp_path: Path) -> None:
    exif = exif_with(Artist="x" * 70_000)
    photo = open_photo(saved(tmp_path, "p.png", picture(), exif=exif))
    out = save_photo(photo, photo.pixels, tmp_path / "o.jpg", synthetic={"age": 5})
    with Image.open(out) as image:
        assert TAG.Artist not in image.getexif()
        assert "age=5" in image.getexif()[TAG.ImageDescription]


def test_formats_that_cannot_hold_a_result_become_png(tmp_path: Path) -> None:
    assert [result_suffix(n) for n in ("a.gif", "a.bmp", "a", "a.JPG")] == [".png"] * 3 + [".JPG"]
    photo = open_photo(saved(tmp_path, "p.gif", picture()))
    out = save_photo(photo, photo.pixels, tmp_path / "o.gif", synthetic={"age": 5})
    assert out == tmp_path / "o.png"
    assert np.array_equal(open_photo(out).pixels, photo.pixels)


def test_existing_output_is_refused_without_force(tmp_path: Path) -> None:
    target = tmp_path / "o.png"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"o\.png exists already.*--force"):
        save_photo(Photo(picture()), picture(), target)
    assert target.read_bytes() == b"precious"
    save_photo(Photo(picture()), picture(), target, force=True)
    assert open_photo(target).pixels.shape == (32, 48, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.png"]


def test_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    for target, said in {
        "file/o.png": "Cannot write",
        "missing/o.png": "No such file or directory",
        "folder.png": "it is a folder",
        "x" * 300 + ".png": "Cannot write",
    }.items():
        for force in (False, True):
            with pytest.raises(OutputError, match=said) as caught:
                save_photo(Photo(picture()), picture(), tmp_path / target, force=force)
            assert "--out" in caught.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_left_of_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", disk_full)
    monkeypatch.setattr(files, "_rename_without_overwriting", disk_full)
    with pytest.raises(OutputError, match="No space left"):
        save_photo(Photo(picture()), picture(), tmp_path / "o.png", force=force)
    assert list(tmp_path.iterdir()) == []


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    out = save_photo(Photo(picture()), picture(), tmp_path / "o.png")
    assert out.stat().st_mode == usual.stat().st_mode


# --- large photos ---------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_large_jpegs_are_decoded_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int, subsampling: int
) -> None:
    exif = exif_with(Orientation=orientation)
    coding = dict(subsampling=subsampling, progressive=bool(orientation % 2), icc_profile=SRGB)
    path = saved(tmp_path, "large.jpg", picture(), exif=exif, **coding)
    expected = open_photo(path)
    monkeypatch.setattr(decoding, "_LARGE_JPEG", 0)
    monkeypatch.setattr(decoding, "_to_array", None)  # Pillow's pixels are not used
    found = open_photo(path)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert is_padded(found.pixels)
    assert found.icc == expected.icc == SRGB
    assert (found.qtables, found.subsampling) == (expected.qtables, subsampling)


def _memory_growth(setup: str, measured: str) -> float:
    """Growth of a process's peak memory by the statements `measured`, in sizes of `photo`'s pixels.

    Args:
        setup: statements that come first; one of both sets `photo`.
    """
    script = f"""
import cv2
from faceage.imaging.photos import open_photo, save_photo
def peak():
    status = open("/proc/self/status").read()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
{setup}
before = peak()
{measured}
print((peak() - before) / photo.pixels.nbytes)
"""
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return float(output.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_held_once(tmp_path: Path, orientation: int) -> None:
    path, copy = str(tmp_path / "large.jpg"), str(tmp_path / "copy.jpg")
    exif = exif_with(Orientation=orientation)
    Image.new("RGB", (8200, 8200), (90, 110, 130)).save(path, exif=exif)
    read, write = f"photo = open_photo({path!r})", f"save_photo(photo, photo.pixels, {copy!r})"
    assert 1.2 < _memory_growth("", read) < 1.6, "4 bytes a pixel beside the 3 that are counted"
    assert _memory_growth(read, write) < 0.3


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_large_jpeg_is_written_as_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int
) -> None:
    exif = exif_with(Orientation=orientation)
    path = saved(tmp_path, "large.jpg", picture(), exif=exif, icc_profile=SRGB)
    usual = open_photo(path)
    monkeypatch.setattr(decoding, "_LARGE_JPEG", 0)
    photo = open_photo(path)
    assert is_padded(photo.pixels)
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        expected = encode_photo(usual, usual.pixels, suffix)
        assert encode_photo(photo, photo.pixels, suffix) == expected


def test_a_large_truncated_jpeg_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_LARGE_JPEG", 0)
    path = saved(tmp_path, "cut.jpg", picture())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PhotoError, match="damaged"):
        open_photo(path)
