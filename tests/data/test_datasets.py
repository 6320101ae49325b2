"""The layouts of datasets, and refused input."""

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faceage.data import datasets, layouts
from faceage.data.datasets import decode, make_labels, open_dataset
from faceage.data.layouts import _hashed_set
from faceage.errors import DataError


def _png(colour: tuple[int, int, int] = (10, 20, 30), size: int = 8, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).convert(mode).save(file, "PNG")
    return file.getvalue()


def _folder(root: Path, table: str, **pictures: bytes) -> Path:
    root.mkdir(exist_ok=True)
    (root / "faces.csv").write_text(table, encoding="utf-8")
    for name, data in pictures.items():
        (root / f"{name}.png").write_bytes(data)
    return root


def _zip(path: Path, **pictures: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in pictures.items():
            archive.writestr(f"in/{name}.png", data)


# --- a folder with a csv --------------------------------------------------------------------------


def test_folder_with_csv(tmp_path: Path) -> None:
    root = _folder(
        tmp_path / "some",
        "file,age,age_group,set,weight,valid,sharp,gender\n"
        "a.png,34.5,,train,2,64 0 256 128,80,F\n"
        "b.png,,70-120,train,,,,\n"
        "c.png,2.9,3-6,val,,,,M\n",  # the age takes precedence over the group
        a=_png(),
        b=_png(),
    )
    train = open_dataset(root)
    assert train.name == "some"
    a, b = train.samples
    assert (a.file, a.age, a.group, a.weight, a.sharp, a.gender) == ("a.png", 34.5, 6, 2, 80, "F")
    assert a.valid == (0.25, 0.0, 1.0, 0.5)
    assert (b.age, b.group, b.weight, b.sharp, b.gender) == (None, 9, 1, None, "")
    assert b.valid == (0.0, 0.0, 1.0, 1.0)
    (c,) = open_dataset(root, "val").samples
    assert (c.group, c.age) == (0, 2.9)


def test_rows_that_are_not_kept_are_skipped(tmp_path: Path) -> None:
    table = "file,age,set,kept\na.png,3,train,1\nb.png,4,train,0\nc.png,5,train,\nd.png,6,val,0\n"
    root = _folder(tmp_path, table)
    assert [s.file for s in open_dataset(root).samples] == ["a.png", "c.png"]
    assert _samples(root, "val") == []


def test_decode(tmp_path: Path) -> None:
    large = np.zeros((16, 16, 3), np.uint8)
    large[:, 8:] = (200, 100, 0)
    file = io.BytesIO()
    Image.fromarray(large).save(file, "PNG")
    root = _folder(
        tmp_path / "some",
        "file,age,age_group,set,valid,sharp\n"
        "a.png,34.5,,train,,50\n"
        "b.png,,3-6,train,0 0 128 256,100\n"
        "c.png,,70+,train,,\n"
        "d.png,60,,train,,200\n",
        a=_png((1, 2, 3)),
        b=file.getvalue(),
        c=_png((7, 7, 7), mode="L"),
        d=_png((4, 5, 6), size=3),
    )
    progress: list[int] = []
    faces = decode(open_dataset(root), 8, progress.append)
    assert len(faces) == sum(progress) == 4
    assert faces.images.dtype == torch.uint8
    assert faces.images.shape == (4, 8, 8, 3)
    assert faces.images[0].unique(dim=0).reshape(-1, 3)[0].tolist() == [1, 2, 3]
    assert faces.images[1, :, 3].unique().tolist() == [0]  # shrunk by area: edges stay put
    assert faces.images[1, 0, 4].tolist() == [200, 100, 0]
    assert faces.images[2].unique().tolist() == [7]  # grey becomes RGB
    assert faces.images[3, 4, 4].tolist() == [4, 5, 6]  # enlarged
    assert faces.labels.ages.tolist() == [34.5, 4.5, 85.0, 60.0]  # the middle of a group
    assert faces.labels.exact.tolist() == [True, False, False, True]
    assert faces.labels.groups.tolist() == [6, 1, 9, 8]
    assert faces.labels.valid[1].tolist() == [0, 0, 0.5, 1]
    assert faces.labels.sharp.tolist() == [
        0.5,
        1,
        1,
        2,
    ]  # relative to the median; unknown is typical


def test_progress_is_reported_in_chunks(tmp_path: Path) -> None:
    rows = "".join(f"a.png,{i % 90},train\n" for i in range(130))
    root = _folder(tmp_path / "some", "file,age,set\n" + rows, a=_png())
    progress: list[int] = []
    decode(open_dataset(root), 4, progress.append)
    assert progress == [64, 64, 2]


def test_zips(tmp_path: Path) -> None:
    root = _folder(
        tmp_path / "some",
        "file,age,set,zip\nin/a.png,5,train,one.zip\nin/b.png,6,train,two.zip\n",
    )
    _zip(root / "one.zip", a=_png((1, 1, 1)))
    _zip(root / "two.zip", b=_png((2, 2, 2)))
    faces = decode(open_dataset(root), 4)
    assert faces.images[:, 0, 0, 0].tolist() == [1, 2]


def test_csv_with_byte_order_mark(tmp_path: Path) -> None:
    root = tmp_path / "some"
    root.mkdir()
    (root / "faces.csv").write_bytes("\ufefffile,age,set\na.png,5,train\n".encode())
    assert open_dataset(root).samples[0].age == 5


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_split_by_hash_where_none_is_named(tmp_path: Path, split: str) -> None:
    names = [f"{i:05d}.png" for i in range(2000)]
    root = _folder(tmp_path / "some", "file,age\n" + "".join(f"{n},30\n" for n in names))
    files = {sample.file for sample in open_dataset(root, split).samples}
    assert files == {n for n in names if _hashed_set(n) == split}
    assert len(files) == pytest.approx({"train": 1800, "val": 100, "test": 100}[split], abs=40)


def test_the_hash_split_is_frozen() -> None:
    splits = [_hashed_set(f"{i}.png") for i in range(100)]
    assert [i for i, split in enumerate(splits) if split == "val"] == [0, 6, 61, 65, 68, 69]
    assert [i for i, split in enumerate(splits) if split == "test"] == [8, 33, 40, 42]


def test_held_out_people_are_in_val_or_test_with_all_their_pictures(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,30,val,{i // 3}\n" for i in range(300))
    root = _folder(tmp_path / "some", "file,age,set,person\n" + rows)
    found = {
        split: {int(s.file[:-4]) // 3 for s in open_dataset(root, split).samples}
        for split in ("val", "test")
    }
    assert found["val"] | found["test"] == set(range(100))
    assert not found["val"] & found["test"]
    assert 35 <= len(found["val"]) <= 65


def test_a_set_column_with_test_rows_is_used_unchanged(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,30,{'test' if i == 9 else 'val'}\n" for i in range(10))
    root = _folder(tmp_path / "some", "file,age,set\n" + rows)
    assert len(open_dataset(root, "val")) == 9
    assert [s.file for s in open_dataset(root, "test").samples] == ["9.png"]


# --- errors in a csv ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("name,age\na.png,30\n", "has no column 'file'"),
        ("", "has no column 'file'"),
        ("file,sex\na.png,F\n", "neither a column 'age' nor 'age_group'"),
        ("file,age,set\na.png,old,train\n", "line 2: could not convert string to float: 'old'"),
        ("file,age,set\na.png,30,train\na.png,-3,train\n", "line 3: age -3 is out of range"),
        ("file,age,set\na.png,500,train\n", "line 2: age 500 is out of range"),
        ("file,age,set\na.png,nan,train\n", "line 2: age nan is out of range"),
        ("file,age,set\na.png,,train\n", "line 2: Unknown age group ''"),
        ("file,set,age\na.png,train\n", "line 2: Unknown age group ''"),
        ("file,age_group,set\na.png,20-30,train\n", "line 2: Unknown age group '20-30'"),
        ("file,age_group,set\na.png,,train\n", "line 2: Unknown age group ''"),
        ("file,age,set,weight\na.png,5,train,-1\n", "line 2: weight -1 is out of range"),
        ("file,age,set,weight\na.png,5,train,inf\n", "line 2: weight inf is out of range"),
        ("file,age,set,valid\na.png,5,train,0 0 9\n", "line 2: valid '0 0 9'"),
        ("file,age,set,valid\na.png,5,train,9 0 8 256\n", "line 2: valid '9 0 8 256'"),
        ("file,age,set,valid\na.png,5,train,0 0 512 512\n", "inside 256 px"),
        ("file,age,set\n,5,train\n", "line 2: the column file is empty"),
        ("file,age,set\na.png,5,val\n", "No labelled pictures"),
    ],
)
def test_bad_csv(tmp_path: Path, table: str, says: str) -> None:
    root = _folder(tmp_path / "some", table, a=_png())
    with pytest.raises(DataError) as caught:
        open_dataset(root)
    assert says in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    root = tmp_path / "some"
    root.mkdir()
    (root / "faces.csv").write_bytes("file,age\nAndré.png,5\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        open_dataset(root)


def test_no_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png())
    with pytest.raises(DataError, match="Put a csv"):
        open_dataset(tmp_path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        open_dataset(tmp_path / "gone")


# --- missing and damaged pictures -----------------------------------------------------------------


def test_missing_picture(tmp_path: Path) -> None:
    root = _folder(tmp_path / "some", "file,age,set\na.png,5,train\n")
    with pytest.raises(DataError, match=r"a\.png is named in the csv but missing from .*some"):
        decode(open_dataset(root), 8)


@pytest.mark.parametrize("archive", ["one.zip", "gone.zip"])
def test_missing_picture_in_a_zip(tmp_path: Path, archive: str) -> None:
    root = _folder(tmp_path / "some", f"file,age,set,zip\nin/b.png,5,train,{archive}\n")
    _zip(root / "one.zip", a=_png())
    with pytest.raises(DataError, match=rf"in/b\.png is named .* missing from .*{archive}"):
        decode(open_dataset(root), 8)


@pytest.mark.parametrize(
    "damaged", [b"", b"not a picture", _png(size=64)[:100], _png()[:8] + b"x" * 60]
)
def test_damaged_picture(tmp_path: Path, damaged: bytes) -> None:
    root = _folder(tmp_path / "some", "file,age,set\na.png,5,train\n", a=damaged)
    with pytest.raises(DataError, match=r"Cannot read a\.png"):
        decode(open_dataset(root), 8)


def test_damaged_zip(tmp_path: Path) -> None:
    table = "file,age,set,zip\na.png,5,train,a.zip\n"
    root = _folder(tmp_path / "some", table)
    (root / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"Cannot read a\.png"):
        decode(open_dataset(root), 8)
    with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", _png(size=64))
    whole = bytearray((root / "a.zip").read_bytes())
    whole[40:50] = b"\xff" * 10  # inside the compressed picture
    (root / "a.zip").write_bytes(whole)
    with pytest.raises(DataError, match=r"Cannot read a\.png"):
        decode(open_dataset(root), 8)


# --- files that are not trusted -------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../a.png", "in/../../a.png", "C:\\a.png", "..\\a.png", "\\\\host\\a.png"],
)
@pytest.mark.parametrize("column", ["file", "zip"])
def test_paths_outside_the_folder(tmp_path: Path, path: str, column: str) -> None:
    row = f"{path},5,train," if column == "file" else f"a.png,5,train,{path}"
    root = _folder(tmp_path / "some", f"file,age,set,zip\n{row}\n")
    (tmp_path / "a.png").write_bytes(_png())
    with pytest.raises(DataError, match=f"line 2: {column} .* is outside the dataset's folder"):
        open_dataset(root)


def test_names_with_dots_are_inside_the_folder(tmp_path: Path) -> None:
    root = _folder(tmp_path / "some", "file,age,set\na..b.png,5,train\n./c.png,6,train\n")
    for name in ("a..b.png", "c.png"):
        (root / name).write_bytes(_png())
    assert len(decode(open_dataset(root), 4)) == 2


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no device files")
@pytest.mark.parametrize("kind", ["picture", "zip", "pipe"])
def test_a_device_in_place_of_a_file(tmp_path: Path, kind: str) -> None:
    table = "file,age,set,zip\na.png,5,train," + ("a.zip" if kind == "zip" else "") + "\n"
    root = _folder(tmp_path / "some", table)
    if kind == "pipe":
        os.mkfifo(root / "a.png")
    else:
        (root / ("a.zip" if kind == "zip" else "a.png")).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"Cannot read a\.png .*not a regular file"):
        decode(open_dataset(root), 4)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no device files")
def test_a_device_in_place_of_the_csv(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"faces\.csv is not a file of at most"):
        open_dataset(tmp_path)


def test_a_large_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "MAX_TABLE_BYTES", 10)
    with pytest.raises(DataError, match="is not a file of at most"):
        open_dataset(_folder(tmp_path / "some", "file,age\na.png,30\n"))


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A zip of 80 KB whose member has 80 MB."""
    root = _folder(tmp_path / "some", "file,age,set,zip\na.png,5,train,a.zip\n")
    with (
        zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.png", "w", force_zip64=True) as member,
    ):
        for _ in range(80):
            member.write(bytes(1 << 20))
    data = (root / "a.zip").read_bytes()
    assert len(data) < 1 << 20
    tracemalloc.start()
    with pytest.raises(DataError, match=r"Cannot read a\.png .*more than 64 MiB"):
        decode(open_dataset(root), 4)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_member_with_a_false_size_is_bounded(tmp_path: Path) -> None:
    """The headers state a small size for a large member: no more than that is unpacked."""
    root = _folder(tmp_path / "some", "file,age,set,zip\na.png,5,train,a.zip\n")
    with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(80 << 20))
    data = (root / "a.zip").read_bytes()
    (root / "a.zip").write_bytes(data.replace((80 << 20).to_bytes(4, "little"), b"\x10\0\0\0"))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"Cannot read a\.png"):
        decode(open_dataset(root), 4)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_whose_output_cannot_be_bounded(tmp_path: Path, method: int) -> None:
    root = _folder(tmp_path / "some", "file,age,set,zip\na.png,5,train,a.zip\n")
    with zipfile.ZipFile(root / "a.zip", "w", method) as archive:
        archive.writestr("a.png", _png())
    with pytest.raises(DataError, match=r"Cannot read a\.png .*another compression"):
        decode(open_dataset(root), 4)


def test_a_large_file(tmp_path: Path) -> None:
    root = _folder(tmp_path / "some", "file,age,set\na.png,5,train\n")
    with (root / "a.png").open("wb") as file:
        file.truncate(datasets.MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"Cannot read a\.png .*more than 64 MiB"):
        decode(open_dataset(root), 4)


def test_a_picture_of_too_many_pixels(tmp_path: Path) -> None:
    """A PNG of some kilobytes that would take 200 MB."""
    file = io.BytesIO()
    Image.new("1", (8193, 8193)).save(file, "PNG")
    assert len(file.getvalue()) < 20_000
    root = _folder(tmp_path / "some", "file,age,set\na.png,5,train\n", a=file.getvalue())
    with pytest.raises(DataError, match=r"Cannot read a\.png .*more than 67108864 pixels"):
        decode(open_dataset(root), 4)


def test_formats_that_run_other_programs_are_not_read(tmp_path: Path) -> None:
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    root = _folder(tmp_path / "some", "file,age,set\na.png,5,train\n", a=data)
    with pytest.raises(DataError, match="cannot identify image file"):
        decode(open_dataset(root), 4)


def test_zips_are_opened_once_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"in/a.png,{i},train,one.zip\n" for i in range(20))
    root = _folder(tmp_path / "some", "file,age,set,zip\n" + rows)
    _zip(root / "one.zip", a=_png())
    opened: list[zipfile.ZipFile] = []

    class Recorder(zipfile.ZipFile):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            opened.append(self)

    monkeypatch.setattr(datasets.zipfile, "ZipFile", Recorder)
    dataset = open_dataset(root)
    for _ in range(20):
        dataset.read_crop(3, 4)
    assert len(opened) == 1
    assert opened[0].fp is not None
    dataset.close()
    assert opened[0].fp is None
    decode(dataset, 4)
    assert all(archive.fp is None for archive in opened)


# --- FFHQ-Aging -----------------------------------------------------------------------------------

FFHQ_HEADER = (
    "image_number,age_group,age_group_confidence,gender,gender_confidence,head_pitch,head_roll,"
    "head_yaw,left_eye_occluded,right_eye_occluded,glasses\n"
)
GOOD = dict(
    number=5,
    group="70-120",
    confidence=0.9,
    gender="female",
    gender_confidence=0.9,
    pitch=-29.9,
    roll=80,
    yaw=39.9,
    left=49,
    right=89,
    glasses="Normal",
)


def _ffhq(root: Path, *rows: dict) -> Path:
    lines = [",".join(str(v) for v in (GOOD | row).values()) for row in rows]
    root.mkdir(exist_ok=True)
    (root / "ffhq_aging_labels.csv").write_text(FFHQ_HEADER + "\n".join(lines) + "\n")
    return root


def test_ffhq_aging(tmp_path: Path) -> None:
    root = _ffhq(
        tmp_path,
        {},
        dict(number=1234, group="0-2", gender="male"),
        dict(number=68999),
        dict(number=69000, group="20-29"),
    )
    for name in ("00005.png", "01000/01234.png", "images/68000/68999.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_png())
    train = open_dataset(root)
    assert train.name == "ffhq-aging"
    assert [(s.file, s.group, s.age, s.gender) for s in train.samples] == [
        ("00005.png", 9, None, "F"),
        ("01000/01234.png", 0, None, "M"),
        ("images/68000/68999.png", 9, None, "F"),
    ]
    assert len(decode(train, 4)) == 3
    (held,) = _samples(root, "val") + _samples(root, "test")
    assert (held.file, held.group) == ("69000/69000.png", 5)
    with pytest.raises(DataError, match=r"69000/69000\.png"):
        decode(open_dataset(root, "test"), 4)


@pytest.mark.parametrize(
    "flaw",
    [
        dict(confidence=0.6),
        dict(gender_confidence=0.66),
        dict(pitch=30),
        dict(pitch=-30),
        dict(yaw=40),
        dict(yaw=-40),
        dict(left=90, right=0),
        dict(left=0, right=90),
        dict(left=50, right=50),
        dict(left=-1),
        dict(right=-1),
        dict(glasses="Dark"),
        dict(glasses=-1),
        dict(confidence=-1),
    ],
)
def test_ffhq_aging_filter(tmp_path: Path, flaw: dict) -> None:
    root = _ffhq(tmp_path, {}, dict(number=6) | flaw)
    assert [s.file for s in open_dataset(root).samples] == ["00000/00005.png"]


@pytest.mark.parametrize("flaw", [dict(group="20-30"), dict(number="x"), dict(yaw="left")])
def test_ffhq_aging_with_unreadable_values(tmp_path: Path, flaw: dict) -> None:
    with pytest.raises(DataError, match="line 3"):
        open_dataset(_ffhq(tmp_path, {}, flaw))


def test_ffhq_aging_with_a_missing_column(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_number,age_group\n5,20-29\n")
    with pytest.raises(DataError, match="line 2: cannot read 'age_group_confidence'"):
        open_dataset(tmp_path)


def test_ffhq_aging_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEAGE_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError) as caught:
        open_dataset("ffhq-aging")
    assert str(tmp_path / "data" / "ffhq-aging") in caught.value.message
    (tmp_path / "data").mkdir()
    _ffhq(tmp_path / "data" / "ffhq-aging", {})
    assert len(open_dataset("ffhq-aging")) == 1


def test_ffhq_aging_without_faceage_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FACEAGE_DATA", raising=False)
    with pytest.raises(DataError) as caught:
        open_dataset("ffhq-aging")
    for word in ("ffhq-dataset", "FFHQ-Aging-Dataset", "FACEAGE_DATA"):
        assert word in caught.value.hint


# --- UTKFace --------------------------------------------------------------------------------------


def test_utkface(tmp_path: Path) -> None:
    names = ("1_0_2_201.jpg.chip.jpg", "part2/116_1_0_202.jpg", "61_1_201701.jpg")
    for name in (*names, "notes.txt", "portrait.jpg", "abc_1_2.jpg", "5_7_1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(_png())
    found = [s for split in ("train", "val", "test") for s in _samples(tmp_path, split)]
    assert {(s.file, s.age, s.group, s.gender) for s in found} == {
        (names[0], 1.0, 0, "M"),
        (names[1], 116.0, 9, "F"),
        (names[2], 61.0, 8, "F"),
    }


def _samples(root: Path, split: str) -> list:
    try:
        return open_dataset(root, split).samples
    except DataError:
        return []


def test_all_tensors_move_to_a_device(tmp_path: Path) -> None:
    labels = make_labels(open_dataset(_folder(tmp_path, "file,age\na.png,3\n")).samples)
    moved = labels.to("meta")
    assert all(getattr(moved, n).device.type == "meta" for n in moved.__dataclass_fields__)


def test_labels_are_selected_together(tmp_path: Path) -> None:
    table = "file,age,set,gender,weight\na.png,3,train,F,1\nb.png,70,train,M,2\nc.png,5,train,F,3\n"
    labels = make_labels(open_dataset(_folder(tmp_path, table)).samples)
    some = labels[torch.tensor([2, 0, 2])]
    assert len(some) == 3
    assert some.ages.tolist() == [5, 3, 5]
    assert some.groups.tolist() == [1, 1, 1]
    assert some.weights.tolist() == [3, 1, 3]
    assert some.strata.tolist() == [0, 0, 0]
    assert labels[1:].strata.tolist() == [1, 0]
