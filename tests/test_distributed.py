"""One process or several: mean gradients, shared decisions, the same results."""

import json
from pathlib import Path

import numpy as np
import pytest
import stand_ins
import torch
from processes import TWO, run_python
from stand_ins import LANDMARKS, make_dataset
from torch import Tensor, nn

from faceage import distributed
from faceage.distributed import OtherProcessError, Processes
from faceage.errors import ConfigError, DataError

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
    return values  # the second has no gradient


def test_alone(monkeypatch: pytest.MonkeyPatch, parameters: list[nn.Parameter]) -> None:
    def never(*_: object) -> None:
        raise AssertionError("one process does not communicate")

    for name in ("all_reduce", "all_gather_object", "barrier"):
        monkeypatch.setattr(distributed.dist, name, never)
    alone = Processes(0, 1, CPU)
    before = [None if p.grad is None else p.grad.clone() for p in parameters]
    alone.average_gradients(parameters)
    alone.wait()
    assert alone.max(3, 0) == [3, 0]
    with alone.share_errors():
        pass
    with pytest.raises(DataError, match="gone"), alone.share_errors():
        raise DataError("gone")
    assert alone.is_first
    assert alone.gather("ours") == ["ours"]
    for value, grad in zip(parameters, before, strict=True):
        assert (value.grad is None) if grad is None else torch.equal(value.grad, grad)


def test_gradients_are_averaged(
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


def test_max(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_other(tensor: Tensor, operation: object) -> None:
        assert operation == distributed.dist.ReduceOp.MAX
        tensor.copy_(torch.maximum(tensor, torch.tensor([1, 2])))

    monkeypatch.setattr(distributed.dist, "all_reduce", with_other)
    assert Processes(1, 2, CPU).max(0, 15) == [1, 15]


@pytest.mark.parametrize(
    ("rank", "failed", "expected"),
    [
        (0, [True, True], DataError),
        (1, [True, True], OtherProcessError),
        (1, [False, True], DataError),
        (0, [False, True], OtherProcessError),
    ],
)
def test_one_process_reports_a_shared_error(
    monkeypatch: pytest.MonkeyPatch, rank: int, failed: list[bool], expected: type[Exception]
) -> None:
    monkeypatch.setattr(Processes, "gather", lambda self, own: failed)

    def work() -> None:
        with Processes(rank, 2, CPU).share_errors():
            if failed[rank]:
                raise DataError("gone")

    with pytest.raises(expected):
        work()


def test_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_all(parts: list, own: object) -> None:
        parts[:] = ["first", own]

    monkeypatch.setattr(distributed.dist, "all_gather_object", from_all)
    assert Processes(1, 2, CPU).gather("second") == ["first", "second"]


def test_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.is_first()
    monkeypatch.setenv("RANK", "1")
    assert not distributed.is_first()


def test_start_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.start("cpu") == Processes(0, 1, CPU)
    assert not torch.distributed.is_initialized()
    distributed.stop()


def test_start_joins_torchruns_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    backends: list[str] = []
    monkeypatch.setattr(distributed.dist, "init_process_group", backends.append)
    processes = distributed.start("cpu")
    assert (processes.rank, processes.count, processes.is_first) == (3, 4, False)
    assert backends == ["gloo"]


def test_start_outside_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of torchrun without a running torchrun: an error in one line."""
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="Start them with torchrun") as caught:
        distributed.start("cpu")
    assert "\n" not in str(caught.value)


def test_start_on_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="abacus"):
        distributed.start("abacus")


# --- two real processes ---------------------------------------------------------------------------

EVALUATION = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = {folders!r}
from faceage.distributed import is_first
from faceage.evaluation import measure
from faceage.evaluation.evaluators import Evaluators
from faceage.evaluation.run import Options, evaluate
from stand_ins import AngleEvaluator, BrightnessEvaluator, LevelEvaluator
measure.BATCH = 2
evaluators = Evaluators(
    age=BrightnessEvaluator(), identity=AngleEvaluator(), perceptual=LevelEvaluator()
)
options = Options(
    {data!r}, [{weights!r}], targets=[5, 70], limit=5, people=2, out=Path({out!r}), force=True,
    device="cpu",
)
report = evaluate(options, evaluators)
name = "first" if is_first() else "second"
figures = replace(report.methods[0], sheets={{}})  # only the first process draws
Path({out!r}, name).write_text(repr(figures))
"""


def test_two_processes_measure_what_one_does(tmp_path: Path, tiny_weights: Path) -> None:
    shades = np.random.default_rng(0).integers(0, 250, (7, 256, 256, 3)).astype(np.uint8)
    ages = [3, 9, 17, 25, 45, 60, 75]
    data = make_dataset(tmp_path / "data", list(shades), ages, landmarks=LANDMARKS)
    folders = [str(Path(__file__).parent), str(Path(stand_ins.__file__).parent)]
    for name, how in (("alone", ()), ("both", TWO)):
        script, out = tmp_path / f"{name}.py", tmp_path / name
        script.write_text(
            EVALUATION.format(
                folders=folders, data=str(data), weights=str(tiny_weights), out=str(out)
            )
        )
        run_python(*how, script)
    alone, both = (tmp_path / name for name in ("alone", "both"))
    for name in ("report.json", "report.md", "report.html", "sheet-tiny-random.jpg"):
        assert (both / name).read_bytes() == (alone / name).read_bytes()
    assert json.loads((both / "report.json").read_text())["faces"] == 7
    assert (both / "first").read_text() == (both / "second").read_text()
