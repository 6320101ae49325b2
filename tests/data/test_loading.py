"""Loading pictures from memory or from disk."""

import os
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_python

from faceage.data import loading
from faceage.data.datasets import Dataset, DecodedDataset, decode, open_dataset
from faceage.data.loading import JoinedDatasets, StreamedDataset, decoded_bytes, free_memory, load
from faceage.errors import DataError

COUNT, SIZE = 30, 8


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Thirty pictures of noise in a zip."""
    random, rows = np.random.default_rng(0), ["file,age,set,zip"]
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for i in range(COUNT):
            file = BytesIO()
            Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(file, "PNG")
            archive.writestr(f"{i}.png", file.getvalue())
            rows.append(f"{i}.png,{i},train,faces.zip")
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    return open_dataset(tmp_path)


INDICES = [torch.tensor([3, 1, 3]), torch.arange(20), torch.tensor([29])]


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_pictures_equal_decoded_ones(dataset: Dataset, workers: int) -> None:
    streamed, decoded = StreamedDataset(dataset, SIZE, workers), decode(dataset, SIZE)
    assert len(streamed) == len(decoded) == COUNT
    assert torch.equal(streamed.labels.ages, decoded.labels.ages)
    for _ in range(2):
        pairs = zip(streamed.batches(INDICES), decoded.batches(INDICES), strict=True)
        for found, expected in pairs:
            assert torch.equal(found, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_joined_datasets_equal_their_parts(dataset: Dataset, workers: int) -> None:
    part = decode(dataset, SIZE)
    joined = JoinedDatasets([StreamedDataset(dataset, SIZE, workers), part])
    assert len(joined) == len(joined.labels) == 2 * COUNT
    assert torch.equal(joined.labels.ages, part.labels.ages.repeat(2))
    assert len(joined.labels.people.unique()) == 2 * COUNT
    assert len(joined.labels.strata.unique()) == 2 * len(part.labels.strata.unique())
    indices = [torch.tensor([3, COUNT + 1, 3, COUNT]), torch.tensor([2]), torch.tensor([COUNT])]
    found = list(joined.batches(indices))
    assert len(found) == 3
    for images, index in zip(found, indices, strict=True):
        assert torch.equal(images, part.images[index % COUNT])


def test_batches_come_from_several_processes_in_order(dataset: Dataset) -> None:
    endless = (torch.tensor([k % COUNT, 0]) for k in range(10**6))
    batches = StreamedDataset(dataset, SIZE, workers=2).batches(endless)
    expected = decode(dataset, SIZE).images
    for k, images in zip(range(40), batches, strict=False):
        assert torch.equal(images, expected[[k % COUNT, 0]])


def test_streaming_does_not_change_the_global_generator(dataset: Dataset) -> None:
    before = torch.get_rng_state()
    assert len(list(StreamedDataset(dataset, SIZE, 1).batches(INDICES))) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_every_worker_opens_a_zip_once(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where this process has the zip open: positions in a shared file would be mixed up."""
    log = tmp_path / "opened"

    class Recorder(zipfile.ZipFile):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")

    monkeypatch.setattr("faceage.data.datasets.zipfile.ZipFile", Recorder)
    dataset.read_crop(0, SIZE)
    indices = [torch.tensor([i]) for i in range(COUNT)]
    assert len(list(StreamedDataset(dataset, SIZE, 2).batches(indices))) == COUNT
    processes = log.read_text().split()
    assert len(processes) == len(set(processes)) > 1
    assert str(os.getpid()) in processes
    assert not dataset._archives


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_workers_are_one_line(dataset: Dataset, workers: int) -> None:
    with zipfile.ZipFile(dataset.root / "faces.zip", "w") as archive:
        archive.writestr("0.png", b"")
    with pytest.raises(DataError, match=r"3\.png is named in the csv but missing") as caught:
        list(StreamedDataset(dataset, SIZE, workers).batches(INDICES))
    assert "\n" not in str(caught.value)
    assert caught.value.hint == "Restore the picture or remove the row."


def test_a_program_can_end_while_workers_run(dataset: Dataset) -> None:
    program = (
        "import torch\n"
        "from faceage.data.datasets import open_dataset\n"
        "from faceage.data.loading import StreamedDataset\n"
        f"dataset = StreamedDataset(open_dataset({str(dataset.root)!r}), 8, workers=2)\n"
        "batches = dataset.batches(torch.tensor([k % 30]) for k in range(10**6))\n"
        "print(next(batches).shape)\n"
    )
    assert run_python("-c", program) == "torch.Size([1, 8, 8, 3])\n"


def test_pictures_that_fit_in_memory_are_decoded(dataset: Dataset) -> None:
    assert decoded_bytes(dataset, SIZE) == COUNT * SIZE * SIZE * 3
    done: list[int] = []
    assert isinstance(load(dataset, SIZE, COUNT * SIZE * SIZE * 3, 2, done.append), DecodedDataset)
    assert sum(done) == COUNT
    assert isinstance(load(dataset, SIZE, COUNT * SIZE * SIZE * 3 - 1, 2), StreamedDataset)


def test_free_memory() -> None:
    assert 1 << 20 < free_memory() < 1 << 50


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Replaces the root of the file system for reading the free memory."""
    monkeypatch.setattr(loading, "Path", lambda path: tmp_path / path.strip("/"))
    for folder in ("proc", "sys/fs/cgroup"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    return tmp_path


def test_free_memory_of_the_machine(files: Path) -> None:
    assert free_memory() == 5000 * 1024
    (files / "sys/fs/cgroup/memory.max").write_text("max\n")
    (files / "sys/fs/cgroup/memory.current").write_text("1000\n")
    (files / "sys/fs/cgroup/memory.stat").write_text("anon 900\ninactive_file 600\n")
    assert free_memory() == 5000 * 1024


def test_free_memory_of_a_control_group(files: Path) -> None:
    (files / "sys/fs/cgroup/memory.max").write_text("3000000\n")
    (files / "sys/fs/cgroup/memory.current").write_text("1000000\n")
    (files / "sys/fs/cgroup/memory.stat").write_text("anon 900\ninactive_file 600\n")
    assert free_memory() == 2_000_600


def test_there_are_no_more_workers_than_cpus(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_count_cpus", lambda: 1)
    started: list[int] = []
    loader = loading.DataLoader
    monkeypatch.setattr(
        loading, "DataLoader", lambda *a, **k: started.append(k["num_workers"]) or loader(*a, **k)
    )
    assert len(list(StreamedDataset(dataset, SIZE, 8).batches(INDICES))) == 3
    assert started == [1]
