"""Processes: alone nothing happens; together gradients become means and the first decides."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from stand_ins import LANDMARKS, make_dataset
from test_train import write_noise
from torch import Tensor, nn

from faceage import distributed
from faceage.checkpoints import load_weights
from faceage.distributed import Processes
from faceage.training import trainer as training
from faceage.training.config import TrainConfig
from faceage.training.losses import LossWeights
from faceage.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def parameters() -> list[nn.Parameter]:
    values = [
        nn.Parameter(torch.zeros(2, 3)),
        nn.Parameter(torch.zeros(4)),
        nn.Parameter(torch.zeros(1)),
    ]
    values[0].grad = torch.arange(6.0).view(2, 3)
    values[2].grad = torch.tensor([10.0])
    return values  # the second had no part in the loss


def test_alone(monkeypatch: pytest.MonkeyPatch, parameters: list[nn.Parameter]) -> None:
    def never(*_: object) -> None:
        raise AssertionError("one process has nobody to talk to")

    for name in ("all_reduce", "all_gather_object", "broadcast", "barrier"):
        monkeypatch.setattr(distributed.dist, name, never)
    alone = Processes(0, 1, CPU)
    before = [None if p.grad is None else p.grad.clone() for p in parameters]
    alone.average_gradients(parameters)
    alone.wait()
    assert alone.decide(True)
    assert not alone.decide(False)
    assert alone.is_first
    assert alone.gather("ours") == ["ours"]
    for value, grad in zip(parameters, before, strict=True):
        assert (value.grad is None) if grad is None else torch.equal(value.grad, grad)


def test_gradients_become_means(
    monkeypatch: pytest.MonkeyPatch, parameters: list[nn.Parameter]
) -> None:
    """The other process has three times our gradients: the mean is twice ours."""

    def sum_of_both(flat: Tensor) -> None:
        flat.add_(3 * flat)

    monkeypatch.setattr(distributed.dist, "all_reduce", sum_of_both)
    Processes(1, 2, CPU).average_gradients(parameters)
    assert parameters[0].grad.tolist() == [[0, 2, 4], [6, 8, 10]]
    assert parameters[1].grad is None
    assert parameters[2].grad.tolist() == [20]


@pytest.mark.parametrize("choice", [True, False])
def test_the_first_process_decides(monkeypatch: pytest.MonkeyPatch, choice: bool) -> None:
    def from_first(tensor: Tensor, source: int) -> None:
        assert source == 0
        tensor.fill_(int(choice))

    monkeypatch.setattr(distributed.dist, "broadcast", from_first)
    assert Processes(1, 2, CPU).decide(not choice) is choice


def test_what_each_process_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_all(parts: list, own: object) -> None:
        parts[:] = ["first", own]

    monkeypatch.setattr(distributed.dist, "all_gather_object", from_all)
    assert Processes(1, 2, CPU).gather("second") == ["first", "second"]


def test_which_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.is_first()
    monkeypatch.setenv("RANK", "1")
    assert not distributed.is_first()


def test_start_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.start("cpu") == Processes(0, 1, CPU)
    assert not torch.distributed.is_initialized()
    distributed.stop()  # nothing to leave: no error


def test_start_joins_what_torchrun_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    backends: list[str] = []
    monkeypatch.setattr(distributed.dist, "init_process_group", backends.append)
    processes = distributed.start("cpu")
    assert (processes.rank, processes.count, processes.is_first) == (3, 4, False)
    assert backends == ["gloo"]


# --- two real processes ---------------------------------------------------------------------------

WORKER = """
import hashlib, sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from faceage import distributed
from faceage.training import trainer as training
from test_distributed import digest, worker_config
torch.set_num_threads(1)
training.CALIBRATION_BATCHES = 1
processes = distributed.start("cpu")
config = worker_config({data!r}, {out!r})
config.check(processes.count)
trainer = training.Trainer(config, processes)
trainer.run()
Path({out!r} + f"-{{processes.rank}}.txt").write_text(digest(trainer))
distributed.stop()
"""


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def run_python(*arguments: object) -> str:
    """What Python, in a process of its own with one thread, prints."""
    root = str(Path(training.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def worker_config(data: str, out: str) -> TrainConfig:
    """Saves about every step, by the first process's clock: both must meet there."""
    losses = LossWeights(perceptual=0, target_age=0.5, change=1)
    return TrainConfig(
        data=data,
        out=Path(out),
        model=TINY,
        losses=losses,
        images=24,
        warmup_images=8,
        warmup_batch=8,
        batch_size=8,
        r1_interval=2,
        diff_augment=True,
        save_minutes=0.01,
    )


def digest(trainer: Trainer) -> str:
    """What all processes must agree on: all parameters, and the averaged model's statistics."""
    nets = (trainer.model, trainer.averaged, trainer.discriminator)
    parts = [p for net in nets for p in net.parameters()] + list(trainer.averaged.buffers())
    data = b"".join(part.detach().contiguous().numpy().tobytes() for part in parts)
    return f"{trainer.images_seen} {hashlib.sha256(data).hexdigest()}"


def test_two_processes_agree(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_noise(data)
    script, out = tmp_path / "worker.py", tmp_path / "run"
    tests = str(Path(__file__).parent)
    script.write_text(WORKER.format(tests=tests, data=str(data), out=str(out)))
    run_python(*TWO, script)
    first, second = (Path(f"{out}-{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith("24 ")
    model, told = load_weights(out / "weights.safetensors")
    assert told["images_seen"] == "24"
    assert all(torch.isfinite(p).all() for p in model.parameters())


EVALUATION = """
import json, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + "/evaluation"]
from faceage.evaluation import measure
from faceage.distributed import is_first
from faceage.evaluation.evaluators import Evaluators
from faceage.evaluation.run import Options, evaluate
from stand_ins import AngleEvaluator, BrightnessEvaluator, LevelEvaluator
measure.BATCH = 2
evaluators = Evaluators(BrightnessEvaluator(), AngleEvaluator(), LevelEvaluator())
out = Path({out!r})
options = Options(
    {data!r}, [{weights!r}], targets=[5, 70], limit=5, people=2, out=out, force=True, device="cpu"
)
report = evaluate(options, evaluators)
name = "first" if is_first() else "second"
(out / name).write_text(str(report.methods[0].ranges))
"""


def test_two_processes_measure_what_one_does(tmp_path: Path, tiny_weights: Path) -> None:
    shades = np.random.default_rng(0).integers(0, 250, (7, 256, 256, 3)).astype(np.uint8)
    ages = [3, 9, 17, 25, 45, 60, 75]
    data = make_dataset(tmp_path / "data", list(shades), ages, landmarks=LANDMARKS)
    for name, how in (("alone", ()), ("both", TWO)):
        script, out = tmp_path / f"{name}.py", tmp_path / name
        script.write_text(
            EVALUATION.format(
                tests=str(Path(__file__).parent),
                data=str(data),
                weights=str(tiny_weights),
                out=str(out),
            )
        )
        run_python(*how, script)
    alone, both = (tmp_path / name for name in ("alone", "both"))
    for name in ("report.json", "report.md", "report.html", "sheet-tiny-random.jpg"):
        assert (both / name).read_bytes() == (alone / name).read_bytes()
    report = json.loads((both / "report.json").read_text())
    assert report["methods"][0]["scores"]["cycle_l1"]["count"] == 5
    assert (both / "first").read_text() == (both / "second").read_text()
