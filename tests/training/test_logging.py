"""Progress of a training run: stats.jsonl, TensorBoard and the terminal."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from faceage.training.logging import Progress


class _Board:
    """A replacement for TensorBoard's SummaryWriter."""

    made: list["_Board"] = []  # noqa: RUF012

    def __init__(self, out: Path) -> None:
        self.out, self.scalars, self.closed = out, {}, False
        _Board.made.append(self)

    def add_scalar(self, name: str, value: float, images_seen: int) -> None:
        self.scalars[name, images_seen] = value

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("installed", [True, False])
def test_tensorboard_if_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    _Board.made.clear()
    module = types.SimpleNamespace(SummaryWriter=_Board) if installed else None
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    out = tmp_path / "run"
    with Progress(100, out) as progress:
        assert not out.exists()  # no files before the first record
        progress.update(8, {"G/age": torch.tensor(2.0), "D/real": torch.tensor(1.0)})
        progress.update(16, {"G/age": torch.tensor(4.0)})
        progress.record(16, {"val/mae": 5.0})
    lines = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]
    assert [line["images_seen"] for line in lines] == [16, 16]
    assert lines[0]["val/mae"] == 5
    assert lines[1]["loss/G/age"] == 3  # the mean of the steps
    assert lines[1]["loss/D/real"] == 1
    assert len(_Board.made) == installed
    if installed:
        (board,) = _Board.made
        assert board.out == out
        assert board.closed
        assert board.scalars["val/mae", 16] == 5
        assert board.scalars["loss/G/age", 16] == 3


def test_losses_are_recorded_every_twenty_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("faceage.training.logging.time.monotonic", lambda: clock[0])
    with Progress(100, tmp_path) as progress:
        for images_seen in (8, 16, 24, 32):
            progress.update(images_seen, {"G/age": torch.tensor(float(images_seen))})
            clock[0] += 10
    first, second = (json.loads(s) for s in (tmp_path / "stats.jsonl").read_text().splitlines())
    assert (first["images_seen"], first["loss/G/age"]) == (24, 16.0)
    assert first["images_per_second"] == pytest.approx(16 / 20)
    assert (second["images_seen"], second["loss/G/age"]) == (32, 32.0)


def test_only_the_first_process_records(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with Progress(100, None) as progress:
        progress.update(8, {"G/age": torch.tensor(2.0)})
        progress.record(8, {"val/mae": 5.0})
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")
