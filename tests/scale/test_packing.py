"""Packing datasets into tars, and reading them as datasets."""

import csv
import hashlib
import json
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_dataset import write_noise
from PIL import Image

from faceage.balance.run import open_real
from faceage.data.datasets import Dataset, EmptySplitError, decode, make_labels, open_dataset
from faceage.data.loading import StreamedDataset
from faceage.errors import ConfigError, DataError, OutputError
from faceage.scale.packing import SPLITS, Packer, divide
from faceage.scale.tars import list_members


def pack(data: Path, out: Path, shard_bytes: int = 30_000, **options: object) -> Path:
    packer = Packer(str(data), out, shard_bytes, **options)  # type: ignore[arg-type]
    list(packer.write_shards(lambda: None))
    packer.write_table()
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("noise"))


@pytest.fixture
def packed(data: Path, tmp_path: Path) -> Path:
    return pack(data, tmp_path / "packed")


def encode(kind: str, colour: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(file, kind)
    return file.getvalue()


def read_bytes(dataset: Dataset) -> list[bytes]:
    return [dataset.read_file(sample)[0] for sample in dataset.samples]


def assert_same_datasets(one: Dataset, two: Dataset) -> None:
    """The same pictures with the same labels in the same order."""
    assert read_bytes(one) == read_bytes(two)
    for field, values in vars(make_labels(one.samples)).items():
        assert torch.equal(values, getattr(make_labels(two.samples), field)), field
    for a, b in zip(one.samples, two.samples, strict=True):
        names = ("file", "age", "group", "source", "landmarks", "estimated", "person", "sharp")
        assert [getattr(a, n) for n in names] == [getattr(b, n) for n in names]


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_packed_data_equals_its_source(data: Path, packed: Path, split: str) -> None:
    assert_same_datasets(open_dataset(data, split), open_dataset(packed, split))


def test_all_columns_and_formats_of_zips(tmp_path: Path) -> None:
    """Files of one name in two zips, two rows of one picture, names with commas and dots."""
    root = tmp_path / "data"
    root.mkdir()
    for name, kind in (("one.zip", "JPEG"), ("two.zip", "WEBP")):
        with zipfile.ZipFile(root / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("in/a.b, ü.png", encode(kind, 200))
    (root / "c.bmp").write_bytes(encode("BMP", 100))
    file = '"in/a.b, ü.png"'
    (root / "faces.csv").write_text(
        "file,zip,age,age_group,set,person,weight,valid,sharp,gender,source,landmarks,label,kept\n"
        f"{file},one.zip,33.3333333,,train,p1,0.1,0.1 0 255.7 256,1e-3,F,x,1 2 3 4 5 6 7 8 9 .1,,\n"
        f"{file},two.zip,,70+,train,p1,,,,,,,estimated,\n"
        f"{file},two.zip,,70+,train,,,,,,,,,\n"
        "c.bmp,,5,,train,,,,,,,,,\n"
        "gone.png,,5,,train,,,,,,,,,0\n",
        encoding="utf-8",
    )
    packed = pack(root, tmp_path / "packed", 10**6)
    assert_same_datasets(open_dataset(root), open_dataset(packed))
    (tar,) = packed.glob("train/*.tar")
    names = sorted(name for name in list_members(tar) if not name.endswith(".json"))
    assert names == ["00000000.jpg", "00000001.webp", "00000002.webp", "00000003.bmp"]


def test_a_jpeg_with_a_second_picture(tmp_path: Path) -> None:
    file = BytesIO()
    first, second = (Image.new("RGB", (8, 8), (value, 0, 0)) for value in (50, 200))
    first.save(file, "MPO", save_all=True, append_images=[second])
    (tmp_path / "20_0_.jpg").write_bytes(file.getvalue())
    packed = pack(tmp_path, tmp_path / "packed")
    (tar,) = packed.glob("*/*.tar")
    assert list(list_members(tar)) == ["00000000.jpg", "00000000.json"]
    assert abs(int(open_dataset(packed).read_crop(0, 8)[0, 0, 0]) - 50) < 5


def test_val_rows_without_test_rows_stay_in_val(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,30,{'val' if i else 'test'}\n" for i in range(20))
    (tmp_path / "faces.csv").write_text("file,age,set\n" + rows)
    for i in range(20):
        (tmp_path / f"{i}.png").write_bytes(encode("PNG", i))
    packed = pack(tmp_path, tmp_path / "packed", splits=("val",))
    assert len(open_dataset(packed, "val")) == 19
    for split in ("train", "test"):
        with pytest.raises(EmptySplitError):
            open_dataset(packed, split)
    with pytest.raises(EmptySplitError):
        Packer(str(tmp_path), tmp_path / "none", 1000, ("train",))


def test_a_packed_dataset_can_be_packed(packed: Path, tmp_path: Path) -> None:
    assert_same_datasets(
        open_dataset(packed), open_dataset(pack(packed, tmp_path / "again", 10**6))
    )


def test_tars_are_samples_for_webdataset(data: Path, packed: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    tars = [str(path) for path in sorted(packed.glob("train/*.tar"))]
    found = {}
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        labels = json.loads(sample["json"])
        assert sample["png"] == (data / labels["file"]).read_bytes()
        found[labels["file"]] = labels
    assert set(found) == {sample.file for sample in open_dataset(data).samples}
    assert found["2.png"]["age"] == 8.0
    assert found["2.png"]["valid"] == [30.0, 0.0, 256.0, 200.0]
    assert "age" not in found["1.png"]
    assert found["1.png"]["age_group"] == "30-39"


def test_checksums(packed: Path) -> None:
    lines = dict(
        line.split("  ")[::-1] for line in (packed / "SHA256SUMS").read_text().splitlines()
    )
    files = [path for path in packed.rglob("*") if path.suffix in (".tar", ".csv")]
    hashes = {p.relative_to(packed).as_posix(): hashlib.sha256(p.read_bytes()) for p in files}
    assert lines == {name: digest.hexdigest() for name, digest in hashes.items()}


def test_the_same_command_writes_the_same_files(
    data: Path, packed: Path, tmp_path: Path, snapshot
) -> None:
    other, seeded = pack(data, tmp_path / "other"), pack(data, tmp_path / "seeded", seed=1)
    hashes = [
        {Path(name).relative_to(folder): sha for name, sha in snapshot(folder).items()}
        for folder in (packed, other, seeded)
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]
    assert_same_datasets(open_dataset(data), open_dataset(seeded))


@pytest.mark.parametrize("limit", [1, 10, 35, 10**9])
def test_tars_hold_every_picture_once_in_random_order(limit: int) -> None:
    sizes = [1 + i % 20 for i in range(300)]
    parts = divide(sizes, limit, seed=0)
    order = [index for part in parts for index in part]
    assert sorted(order) == list(range(300))
    assert order != sorted(order)
    assert all(len(part) == 1 or sum(sizes[i] for i in part) <= limit for part in parts)
    assert parts == divide(sizes, limit, seed=0) != divide(sizes, limit, seed=1)
    if limit == 35:
        assert len(parts) < 1.5 * sum(sizes) / limit


# --- continuing, and refused input ----------------------------------------------------------------


def test_a_tar_that_is_missing_or_cut_short_is_written_again(
    run, data: Path, packed: Path, snapshot
) -> None:
    before = snapshot(packed)
    tars = sorted(packed.glob("train/*.tar"))
    tars[0].unlink()
    tars[1].write_bytes(tars[1].read_bytes()[:20_000])
    tars[2].write_bytes(tars[3].read_bytes())
    answer = run("pack", "--data", data, "--out", packed, "--shard-mb", 0.03)
    assert answer.code == 0
    assert answer.lines == [*map(str, tars[:3]), str(packed / "faces.csv")]
    assert answer.errors == [
        f"note: {len(list(packed.glob('*/*.tar'))) - 3} of 11 tars are complete already.",
        f"note: Not whole, and written again: {tars[1]}, {tars[2]}.",
    ]
    assert snapshot(packed) == before


def test_a_run_with_other_options_or_labels_is_refused(tmp_path: Path, snapshot) -> None:
    (tmp_path / "data").mkdir()
    data = write_noise(tmp_path / "data")
    packed = pack(data, tmp_path / "packed")
    before = snapshot(packed)
    with pytest.raises(
        OutputError, match=r"it differs in seed, shard_bytes\. Use another --out\.$"
    ):
        pack(data, packed, 40_000, seed=1)
    (data / "0.png").write_bytes(encode("PNG", 1))
    with pytest.raises(OutputError, match="it differs in labels_sha256"):
        pack(data, packed)
    assert snapshot(packed) == before


def test_changed_files_are_not_overwritten(data: Path, packed: Path) -> None:
    for name in ("faces.csv", "SHA256SUMS"):
        before = (packed / name).read_bytes()
        (packed / name).write_text("mine")
        with pytest.raises(OutputError, match=f"{name} was changed after it was written"):
            pack(data, packed)
        assert (packed / name).read_text() == "mine"
        (packed / name).write_bytes(before)
    tar = min(packed.glob("train/*.tar"))
    damaged = bytearray(tar.read_bytes())
    damaged[700] ^= 255
    tar.write_bytes(damaged)
    with pytest.raises(OutputError, match=rf"{tar.name} was changed .* Delete it and run"):
        pack(data, packed)
    tar.unlink()
    pack(data, packed)


def test_other_folders_are_refused(run, data: Path, tmp_path: Path, snapshot) -> None:
    before = snapshot(data)
    answer = run("pack", "--data", data, "--out", data)
    assert (answer.code, answer.out) == (1, "")
    assert answer.errors == [
        f"error: The folder {data} has files that faceage pack did not write. "
        "Use a new folder as --out."
    ]
    assert snapshot(data) == before
    (tmp_path / "file").write_text("")
    answer = run("pack", "--data", data, "--out", tmp_path / "file")
    assert answer.code == 1
    assert answer.errors[0].startswith("error: Cannot create the folder")
    answer = run("pack", "--data", tmp_path / "gone", "--out", tmp_path / "out")
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "named in the csv but missing"), (b"not a picture", r"Cannot read 4\.png")],
)
def test_bad_pictures_are_one_line(run, tmp_path: Path, content: bytes | None, says: str) -> None:
    (tmp_path / "data").mkdir()
    data = write_noise(tmp_path / "data")
    (data / "4.png").unlink()
    if content:
        (data / "4.png").write_bytes(content)
    answer = run("pack", "--data", data, "--out", tmp_path / "out")
    assert answer.code == 1
    assert len(answer.errors) == 1
    assert says.replace("\\", "") in answer.err
    with pytest.raises(DataError):
        open_dataset(tmp_path / "out")


def test_a_picture_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = write_noise(tmp_path / "data")
    packer = Packer(str(data), tmp_path / "out", 10**6)
    (data / "4.png").write_bytes(encode("PNG", 1))
    with pytest.raises(DataError, match=r"4\.png in .* changed while it was packed"):
        list(packer.write_shards(lambda: None))
    assert not list((tmp_path / "out").glob("*/*.tar"))


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "20_0_\udcff.png"
    try:
        path.write_bytes(encode("PNG", 1))
    except OSError:
        pytest.skip("the file system refuses such names")
    with pytest.raises(DataError, match=r"not UTF-8: '20_0_\\udcff\.png'\."):
        Packer(str(tmp_path), tmp_path / "out", 1000)


# --- reading --------------------------------------------------------------------------------------


def test_packing_that_has_not_ended_is_no_dataset(data: Path, tmp_path: Path) -> None:
    packer = Packer(str(data), tmp_path / "out", 30_000)
    next(iter(packer.write_shards(lambda: None)))
    with pytest.raises(DataError, match=r"has no faces\.csv: its packing has not ended"):
        open_dataset(tmp_path / "out")


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_pictures_equal_decoded_ones(packed: Path, workers: int) -> None:
    dataset = open_dataset(packed)
    indices = [torch.tensor([3, 0, 14]), torch.tensor([7]), torch.arange(15)]
    images = decode(dataset, 16).images
    for found, index in zip(
        StreamedDataset(dataset, 16, workers).batches(indices), indices, strict=True
    ):
        assert torch.equal(found, images[index])


def tar_of(packed: Path, index: int) -> Path:
    return packed / open_dataset(packed).samples[index].tar


def test_a_tar_that_is_cut_short_or_missing(packed: Path) -> None:
    dataset = open_dataset(packed)
    dataset.check_files()
    last = max(
        (s for s in dataset.samples), key=lambda s: (s.tar == dataset.samples[0].tar, s.offset)
    )
    tar = packed / last.tar
    whole = tar.read_bytes()
    tar.write_bytes(whole[: last.offset + last.size - 1])
    with pytest.raises(DataError, match=f"{tar.name} is cut short"):
        dataset.check_files()
    with pytest.raises(DataError, match=rf"{tar.name} is cut short\. Copy {last.tar} again"):
        dataset.read(last)
    dataset.close()
    tar.unlink()
    with pytest.raises(DataError, match=f"{tar.name} is missing"):
        dataset.check_files()
    with pytest.raises(DataError, match=f"missing from .*{tar.name}"):
        dataset.read(last)


def test_a_csv_that_does_not_match_the_tars(packed: Path) -> None:
    rows = list(csv.DictReader((packed / "faces.csv").open()))
    for changes, says in [
        ({"offset": "513"}, "the csv does not match"),
        ({"size": "99"}, "the csv does not match"),
        ({"offset": "100"}, "out of range"),
        ({"size": str(10**12)}, "out of range"),
        ({"offset": str(10**12)}, "is cut short"),
        ({"tar": "../train.tar"}, r"tar '\.\./train\.tar' is outside"),
        ({"offset": "-5"}, "line 2: offset '-5' is not a whole number"),
        ({"size": "1e3"}, "line 2: size '1e3' is not a whole number"),
    ]:
        with (packed / "faces.csv").open("w") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows([rows[0] | changes, *rows[1:]])
        with pytest.raises(DataError, match=says) as caught:
            open_dataset(packed).read_crop(0, 8)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no device files")
def test_a_device_in_place_of_a_tar(packed: Path) -> None:
    tar = tar_of(packed, 0)
    tar.unlink()
    tar.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        open_dataset(packed).read_crop(0, 8)


def test_balance_refuses_tars(packed: Path) -> None:
    with pytest.raises(ConfigError, match=r"are in tars\. Use the dataset it was packed from"):
        open_real(packed)


def test_members_of_other_programs_are_read(tmp_path: Path) -> None:
    """Long names have further headers before the last one."""
    name = "folder/" * 60 + "a.png"
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        data = encode("PNG", 77)
        member.size = len(data)
        archive.addfile(member, BytesIO(data))
    offset, size = list_members(tmp_path / "t.tar")[name]
    (tmp_path / "faces.csv").write_text(
        f"file,age,set,tar,offset,size\na.png,5,train,t.tar,{offset},{size}\n"
    )
    dataset = open_dataset(tmp_path)
    assert np.asarray(dataset.read(dataset.samples[0]))[0, 0].tolist() == [77, 0, 0]
