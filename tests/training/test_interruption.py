"""Ctrl-C and SIGTERM: the state is saved, and the same command resumes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from noise_dataset import TINY_TRAINING, write_noise

from faceage.checkpoints import load_state
from faceage.training.interruption import StopRequest

COMMAND = [sys.executable, "-m", "faceage", "train", "--device", "cpu"]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Trains a tiny model in `run`, with workers; saves for the first time after 0.6 seconds."""
    data = tmp_path / "data"
    data.mkdir()
    write_noise(data)
    options = [
        f"--set={setting}" for setting in (*TINY_TRAINING, "save_minutes=0.01", "memory_gb=0")
    ]
    return [*COMMAND, "--data", str(data), "--out", str(tmp_path / "run"), *options]


def _start(command: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state(
    command: list[str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    process = _start([*command, "--images", "1000000"])
    deadline = time.monotonic() + 120
    while not (run / "samples").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal or a batch system does
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (code, "")
    state = load_state(run / "state.pt")
    seen = state["images_seen"]
    assert err.splitlines()[-1] == (
        f"Interrupted; the state at {seen} images is saved in {run}. "
        "The same command resumes the training."
    )
    assert "Traceback" not in err
    assert (run / "weights.safetensors").stat().st_mode == (run / "state.pt").stat().st_mode

    process = _start([*command, "--images", str(seen + 16)])
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, f"{run / 'weights.safetensors'}\n")
    assert err.splitlines()[0] == f"resumed at {seen} images"
    assert load_state(run / "state.pt")["images_seen"] >= seen + 16


@pytest.fixture
def handlers() -> Iterator[None]:
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in previous.items():
        assert signal.getsignal(number) is handler
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_the_first_signal_counts() -> None:
    with StopRequest(insist=True) as stop:
        assert stop.signal_number == 0
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("handlers")
def test_processes_of_torchrun_ignore_a_second_ctrl_c() -> None:
    with StopRequest(insist=False) as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert stop.signal_number == signal.SIGINT


@pytest.mark.usefixtures("handlers")
def test_outside_the_main_thread_signals_are_not_touched() -> None:
    entered: list[int] = []

    def work() -> None:
        with StopRequest(insist=True) as stop:
            entered.append(stop.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [0]
