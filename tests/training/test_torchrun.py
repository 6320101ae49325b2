"""Training in two processes that torchrun starts."""

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from noise_dataset import write_noise
from processes import TWO, run_process, run_python

from faceage.checkpoints import load_state, load_weights
from faceage.training.config import TrainConfig
from faceage.training.losses import LossWeights
from faceage.training.trainer import Trainer

RUNS = (("whole", 40), ("parts", 24), ("parts", 40), ("interrupted", 40))

WORKER = """
import sys
from pathlib import Path
import torch
sys.path[:0] = {folders!r}
from faceage import distributed
from faceage.training import trainer as training
from test_torchrun import interrupt_second, make_config, summarise
torch.set_num_threads(1)
training.CALIBRATION_BATCHES = 1
processes = distributed.start("cpu")
for out, images in {runs!r}:
    config = make_config({data!r}, out, images)
    trainer = training.make_trainer(config, processes)
    if out.endswith("interrupted"):
        interrupt_second(trainer)
    try:
        trainer.run()
    except training.TrainingInterrupted as interrupted:
        images = f"exit{{interrupted.exit_code}}"
    Path(f"{{out}}-{{images}}-{{processes.rank}}.txt").write_text(summarise(trainer))
distributed.stop()
"""


def make_config(data: str, out: str, images: int) -> TrainConfig:
    """Saves about every step, at times that the first process decides."""
    return TrainConfig(
        data=data,
        out=Path(out),
        model=TINY,
        losses=LossWeights(perceptual=0, target_age=0.5, change=1),
        images=images,
        warmup_images=8,
        warmup_batch=8,
        batch_size=8,
        discriminator_updates=2,
        r1_interval=2,
        diff_augment=True,
        save_minutes=0.01,
    )


def interrupt_second(trainer: Trainer) -> None:
    """Send SIGTERM to the second process alone, after the second step."""
    update = trainer.progress.update

    def interrupt(images_seen: int, *rest: Any) -> None:
        update(images_seen, *rest)
        if trainer.processes.rank == 1 and images_seen == 16:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.progress.update = interrupt  # type: ignore[method-assign]


def summarise(trainer: Trainer) -> str:
    """A hash of what all processes must agree on: parameters and the EMA model's statistics."""
    networks = trainer.networks
    trained = (networks.model, networks.ema, networks.discriminator)
    parts = [p for net in trained for p in net.parameters()] + list(networks.ema.buffers())
    data = b"".join(part.detach().contiguous().numpy().tobytes() for part in parts)
    return f"{trainer.state.images_seen} {hashlib.sha256(data).hexdigest()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directories: `whole` is one run of 40 images, `parts` was resumed at 24."""
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "data").mkdir()
    write_noise(folder / "data")
    runs = [(str(folder / name), n) for name, n in RUNS]
    script = folder / "worker.py"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script.write_text(WORKER.format(folders=folders, runs=runs, data=str(folder / "data")))
    run_python(*TWO, script)
    return folder


@pytest.mark.parametrize("run", ["whole-40", "parts-24", "parts-40", "interrupted-exit143"])
def test_the_processes_agree(folder: Path, run: str) -> None:
    first, second = ((folder / f"{run}-{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith("16 " if "interrupted" in run else run.partition("-")[2])


def test_a_signal_to_one_process_saves_the_state_of_all(folder: Path) -> None:
    assert load_state(folder / "interrupted" / "state.pt")["images_seen"] == 16
    assert (folder / "interrupted" / "replay-1-000000000016.pt").is_file()


def test_an_error_of_all_processes_is_one_line(tmp_path: Path) -> None:
    command = ["-m", "faceage", "train", "--data", tmp_path / "gone", "--device", "cpu"]
    code, out, err = run_process(*TWO, *command, "--set", "projected=false")
    assert code != 0
    assert out == ""
    lines = [line for line in err.splitlines() if "gone" in line]
    assert lines == [
        f"error: No dataset folder {str(tmp_path / 'gone')!r}. Give a folder, or ffhq-aging."
    ]


def test_the_first_process_exports_the_weights(folder: Path) -> None:
    model, metadata = load_weights(folder / "whole" / "weights.safetensors")
    assert metadata["images_seen"] == "40"
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_resumed_run_equals_an_uninterrupted_one(folder: Path) -> None:
    whole, parts = ((folder / f"{run}-40-0.txt").read_text() for run in ("whole", "parts"))
    assert whole == parts


def test_every_process_keeps_its_own_replay_buffer(folder: Path) -> None:
    """Four steps after the warm-up; each process has half of every batch."""
    for name in ("whole", "parts"):
        first = load_state(folder / name / "state.pt")
        (path,) = (folder / name).glob("replay-*.pt")
        assert path.name == "replay-1-000000000040.pt"
        second = load_state(path)
        assert len(first["replay_buffer"]) == len(second["replay_buffer"]) == 4
        for one, other in zip(first["replay_buffer"], second["replay_buffer"], strict=True):
            assert len(one["group"]) == len(other["group"]) == 4
            assert not torch.equal(one["real"][0], other["real"][0])
