"""Faults: kill -9 at any moment, a full disk, a read-only folder, two processes at once."""

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from noise_dataset import TINY_TRAINING, write_noise
from PIL import Image

from faceage import files
from faceage.checkpoints import load_state, read_tensors

KILLS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 21))]


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "faceage", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def kill_at_random(process: subprocess.Popen[str], out: Path, name: str, seed: int) -> None:
    """Kill a process up to 0.3 seconds after the first file called like `name` is in `out`."""
    deadline = time.monotonic() + 120
    while not list(out.glob(name)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.3 * random.Random(seed).random())
    process.kill()
    process.communicate(timeout=60)


def read_results(folder: Path) -> dict[str, bytes]:
    """The files of a folder; a killed process may leave hidden temporary ones."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


@pytest.fixture
def album(tmp_path: Path, astronaut: Path) -> Path:
    """A folder of eight portraits."""
    folder = tmp_path / "album"
    folder.mkdir()
    with Image.open(astronaut) as portrait:
        for number in range(8):
            portrait.save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("seed", KILLS)
@pytest.mark.parametrize("command", ["age", "align"])
def test_a_killed_batch_is_completed(
    run, tiny_weights: Path, album: Path, tmp_path: Path, command: str, seed: int
) -> None:
    options = {"age": ("--weights", tiny_weights, "--to", "5,70"), "align": ()}[command]
    expected, out = tmp_path / "expected", tmp_path / "out"
    out.mkdir()
    assert run(command, album, *options, "--out", expected).code == 0
    kill_at_random(start(command, album, *options, "--out", out), out, "*.png", seed)
    before = read_results(out)
    whole = read_results(expected)
    assert all(whole[name] == content for name, content in before.items())
    answer = run(command, album, *options, "--out", out, "--skip-existing")
    assert answer.code == 0, answer.err
    assert read_results(out) == whole


def train_options(data: Path, out: Path, images: int) -> tuple[object, ...]:
    """A tiny training in this process, which saves at every step."""
    settings = [f"--set={s}" for s in (*TINY_TRAINING, "save_minutes=0.0001", "workers=0")]
    return ("train", "--device", "cpu", "--data", data, "--out", out, "--images", images, *settings)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write_noise(tmp_path / "data")


@pytest.mark.parametrize("seed", KILLS)
def test_a_killed_training_resumes_exactly(run, noise: Path, tmp_path: Path, seed: int) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_at_random(start(*train_options(noise, killed, 1_000_000)), killed, "state.pt", seed)
    seen = load_state(killed / "state.pt")["images_seen"]
    assert run(*train_options(noise, whole, seen + 16)).code == 0
    assert run(*train_options(noise, killed, seen + 16)).code == 0
    resumed, expected = (read_tensors(f / "weights.safetensors") for f in (killed, whole))
    assert all(resumed[name].equal(expected[name]) for name in expected)


def read_tree(folder: Path) -> dict[str, bytes]:
    """The files of a folder and its sub-folders; killed processes may leave hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if "/." not in f"/{name}"}


@pytest.fixture
def crops(tmp_path: Path, noise: Path) -> Path:
    """A dataset of a hundred crops."""
    rows = ["file,age,person"]
    for i in range(100):
        (noise / f"crop{i}.png").hardlink_to(noise / f"{i % 20}.png")
        rows.append(f"crop{i}.png,{i % 90},{i // 2}")
    (noise / "faces.csv").write_text("\n".join(rows) + "\n")
    return noise


@pytest.mark.parametrize("seed", KILLS)
def test_a_killed_packing_is_completed(run, crops: Path, tmp_path: Path, seed: int) -> None:
    options = ("--data", crops, "--shard-mb", 0.025)
    expected, out = tmp_path / "expected", tmp_path / "out"
    assert run("pack", *options, "--out", expected).code == 0
    whole = read_tree(expected)
    assert len(whole) > 50
    kill_at_random(start("pack", *options, "--out", out), out, "*/*.tar", seed)
    before = read_tree(out)
    assert all(whole[name] == content for name, content in before.items())
    assert "faces.csv" not in before or before == whole
    answer = run("pack", *options, "--out", out)
    assert answer.code == 0, answer.err
    assert read_tree(out) == whole


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes, as on a disk without more space."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("command", ["age", "align"])
def test_a_full_disk_leaves_no_partial_file(
    run, tiny_weights: Path, portrait_png: Path, tmp_path: Path, command: str
) -> None:
    options = {"age": ("--weights", tiny_weights, "--to", 5), "align": ("--size", 512)}[command]
    out = tmp_path / "out"
    with full_disk(10_000):
        answer = run(command, portrait_png, *options, "--out", out)
    assert answer.code == 1
    assert len(answer.errors) == 1
    assert f"Cannot write {out}" in answer.err
    assert list(out.iterdir()) == []


def test_a_full_disk_leaves_no_partial_tar(run, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("pack", "--data", noise, "--out", out, "--shard-mb", 0.03)
    with full_disk(20_000):
        answer = run(*options)
    assert answer.code == 1
    assert answer.errors == [
        f"error: Cannot write {out / 'train' / '00001-of-00008.tar'}: File too large. "
        "Run the command again later."
    ]
    assert list(read_tree(out)) == ["shards.json"]
    assert run(*options).code == 0
    assert len(read_tree(out)) == 14


def test_a_full_disk_leaves_the_state_of_the_training(run, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(*train_options(noise, out, 8)).code == 0
    before = (out / "state.pt").read_bytes()
    with full_disk(10_000):
        answer = run(*train_options(noise, out, 16))
    assert answer.code == 1
    assert "Cannot write" in answer.errors[-1]
    assert (out / "state.pt").read_bytes() == before
    assert not list(out.glob(".*.tmp"))
    assert run(*train_options(noise, out, 16)).code == 0
    assert load_state(out / "state.pt")["images_seen"] == 16


@pytest.mark.parametrize("command", ["age", "align", "predict"])
def test_a_read_only_folder_is_refused(
    run,
    tiny_weights: Path,
    portrait_png: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    # As root every folder is writable: the system's answer is replaced instead.
    monkeypatch.setattr(files.os, "access", lambda path, mode: mode != os.W_OK)
    options = {
        "age": ("--weights", tiny_weights, "--to", 5, "--out", tmp_path),
        "align": ("--out", tmp_path),
        "predict": ("--weights", tiny_weights, "--draw", tmp_path),
    }[command]
    answer = run(command, portrait_png, *options)
    assert answer.code == 1
    assert answer.errors == [f"error: Cannot write into the folder {tmp_path}. Use another folder."]
    assert list(tmp_path.iterdir()) == [portrait_png]


@pytest.mark.slow
def test_two_processes_write_whole_files(
    run, tiny_weights: Path, album: Path, tmp_path: Path
) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    options = ("age", album, "--weights", tiny_weights, "--to", "5,70")
    assert run(*options, "--out", expected).code == 0
    for process in [start(*options, "--out", out, "--force") for _ in range(2)]:
        _, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
    assert read_results(out) == read_results(expected)
