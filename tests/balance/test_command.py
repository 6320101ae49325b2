"""The command `faceage balance` with a tiny model: dry run, photos, errors."""

import csv
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from balance_stand_ins import LANDMARKS
from onnx_files import write_age_evaluator, write_embedder
from PIL import Image

from faceage.balance.run import FEW
from faceage.data.datasets import open_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_faces(tmp_path / "data", 12)


def write_faces(root: Path, older: int) -> Path:
    """So many people of 8 and 9, and one of 5, all of whom the age evaluator takes for 5."""
    root.mkdir()
    random = np.random.default_rng(0)
    lines = ["file,age,set,gender,landmarks"]
    for number in range(older + 1):
        pixels = random.integers(0, 37, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        age = 5 if number == older else 8 + number % 2
        lines.append(f"{number}.png,{age},train,{'FM'[number % 2]},{LANDMARKS}")
    (root / "faces.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def balance(run: Any, data: Path, tmp_path: Path, tiny_weights: Path) -> Any:
    evaluator = write_age_evaluator(tmp_path / "age-v1.onnx")
    embedder = write_embedder(tmp_path / "embedder.onnx")

    def call(*arguments: object, source: Path = data) -> Any:
        return run(
            *("balance", "--data", source, "--out", tmp_path / "out", "--weights", tiny_weights),
            *("--device", "cpu", "--age-evaluator", evaluator, "--identity-evaluator", embedder),
            *("--min-similarity", -1, *arguments),
        )

    return call


def test_a_dry_run_shows_the_plan_and_writes_nothing(balance: Any, tmp_path: Path) -> None:
    answer = balance("--to", "3-6=4", "--dry-run")
    assert answer.code == 0
    (row,) = [line for line in answer.lines if line.split()[:1] == ["3-6"]]
    assert row.split()[1:4] == ["1", "3", "4"]
    assert row.count("█") > 4
    assert "3 pictures of 3 people" in answer.out
    assert not (tmp_path / "out").exists()


def test_a_dataset_is_balanced_and_the_command_repeats(
    balance: Any, tmp_path: Path, snapshot: Any
) -> None:
    answer = balance("--to", "3-6=4")
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'out' / 'manifest.csv'}\n"), answer.err
    groups = [sample.group for sample in open_dataset(tmp_path / "out").samples]
    assert groups.count(1) == 4
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        kept = [r for r in csv.DictReader(file) if r["synthetic"] == r["kept"] == "1"]
    assert [row["gender"] for row in kept] == ["F"] * 3  # like the only real one
    assert all(-1 <= float(row["similarity"]) <= 1 for row in kept)
    before = snapshot(tmp_path / "out")
    assert balance("--to", "3-6=4").code == 0
    assert snapshot(tmp_path / "out") == before
    other = balance("--to", "3-6=5")
    assert other.code == 2
    assert "was begun with other values of: to" in other.err
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "auto"], "Add --engine ray"),
        (["--engine", "ray"], "pip install 'faceage[ray]'"),
    ],
)
def test_engines_that_cannot_be_used(
    balance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    answer = balance("--to", "3-6=4", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_makes_the_same_files_though_a_worker_is_killed(
    balance: Any, tmp_path: Path, snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    source = write_faces(tmp_path / "many", 100)
    arguments = ("--to", "3-6=41", "--quiet")
    assert balance(*arguments, source=source).code == 0
    here = snapshot(tmp_path / "out")
    assert len(here) > FEW
    (tmp_path / "out").rename(tmp_path / "here")
    # Every worker of Ray calls this at its start: the first result of all kills its worker.
    (tmp_path / "killer.py").write_text(
        "import os, signal\n"
        "from pathlib import Path\n"
        "from faceage.balance.rendering import ResultMaker\n"
        "def set_up():\n"
        "    make = ResultMaker.make_result\n"
        "    def kill_once(self, *arguments):\n"
        f"        flag = Path({str(tmp_path / 'killed')!r})\n"
        "        if not flag.exists():\n"
        "            flag.touch()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return make(self, *arguments)\n"
        "    ResultMaker.make_result = kill_once\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    environment = {"worker_process_setup_hook": "killer.set_up"}
    monkeypatch.setattr(ray, "init", partial(ray.init, runtime_env=environment))
    answer = balance(*arguments, "--engine", "ray", "--workers", 2, source=source)
    assert answer.code == 0, answer.err
    assert (tmp_path / "killed").exists()
    assert snapshot(tmp_path / "out") == here


def test_missing_evaluators_are_noted(balance: Any, run: Any, data: Path, tmp_path: Path) -> None:
    answer = run("balance", "--data", data, "--out", tmp_path / "out", "--to", "3-6=1")
    assert "judged by the model's own classifier" in answer.err
    assert "identity is not checked" in answer.err
    assert "every group has these counts already" in answer.err
    assert answer.code == 0


def test_a_plan_without_enough_sources_is_one_error(balance: Any, tmp_path: Path) -> None:
    answer = balance("--to", "70+=40", "--quiet")
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert "there are too few" in answer.err
    assert not (tmp_path / "out").exists()


def test_what_the_gate_leaves_missing_is_an_error(balance: Any, tmp_path: Path) -> None:
    answer = balance("--to", "70+=2")  # the evaluator finds five years
    assert answer.code == 1
    assert "2 of 2 pictures could not be made (70+ F 1 of 1, 70+ M 1 of 1)" in answer.err
    assert len(open_dataset(tmp_path / "out")) == 13


def test_photos_without_labels_are_balanced(
    balance: Any, tmp_path: Path, astronaut: Path, snapshot: Any
) -> None:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    (photos / "more" / "a.jpg").write_bytes(astronaut.read_bytes())
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(photos / "black.png")
    arguments = ("--to", "0-2=0", "--size", "48")
    dry = balance(*arguments, "--dry-run", source=photos)
    assert dry.code == 1
    assert "No face found" in dry.err
    answer = balance(*arguments, source=photos)
    assert answer.code == 1  # one photo has no face
    (sample,) = open_dataset(tmp_path / "out").samples
    assert sample.file == "real/more/a.jpg.face1.png"
    assert sample.estimated
    assert len(sample.landmarks) == 10
    assert Image.open(tmp_path / "out" / sample.file).size == (48, 48)
    before = snapshot(tmp_path / "out")
    (tmp_path / "out" / sample.file).unlink()  # is made again
    assert balance(*arguments, source=photos).errors[-1] == answer.errors[-1]
    assert snapshot(tmp_path / "out") == before


def test_a_folder_without_labels_and_photos_is_refused(balance: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answer = balance("--quiet", source=tmp_path / "empty")
    assert answer.code == 1
    assert answer.errors == [
        f"error: {tmp_path / 'empty'} has neither labels nor photos. Name a folder of photos."
    ]
