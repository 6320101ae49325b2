"""The thread that runs the model for all requests."""

import threading
from pathlib import Path
from typing import Any

import pytest

import faceage
from faceage.api import FaceAger, FaceCrops
from faceage.imaging.photos import as_photo
from faceage.serve.batching import ModelWorker


@pytest.fixture(scope="module")
def ager(tiny_weights: Path) -> FaceAger:
    return faceage.load(tiny_weights, device="cpu")


@pytest.fixture
def crops(ager: FaceAger, couple: Path) -> FaceCrops:
    return ager.crop_faces(as_photo(couple))


class BlockedWorker:
    """A worker whose thread waits inside its first job until it is let go."""

    def __init__(self, ager: FaceAger) -> None:
        self.worker, self.go = ModelWorker(ager), threading.Event()
        entered = threading.Event()
        self.first = self.worker.run(lambda: entered.set() or self.go.wait(20))
        entered.wait(20)


def test_waiting_predictions_are_computed_together(
    ager: FaceAger, crops: FaceCrops, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    predict = ager.predict_crops

    def count(crops: FaceCrops) -> Any:
        sizes.append(len(crops.found))
        return predict(crops)

    monkeypatch.setattr(ager, "predict_crops", count)
    blocked = BlockedWorker(ager)
    waiting = [blocked.worker.predict(crops) for _ in range(3)]
    blocked.go.set()
    ages = [[p.age for p in future.result(20)] for future in waiting]
    assert sizes == [6]
    expected = pytest.approx([p.age for p in predict(crops)], abs=1e-3)
    assert ages == [expected] * 3
    blocked.worker.stop()


def test_batches_are_bounded_and_jobs_keep_their_order(
    ager: FaceAger, crops: FaceCrops, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faceage.serve import batching

    monkeypatch.setattr(batching, "MAX_BATCH", 4)
    order: list[object] = []
    monkeypatch.setattr(ager, "predict_crops", lambda c: order.append(len(c.found)) or [0] * 9)
    blocked = BlockedWorker(ager)
    for _ in range(3):
        blocked.worker.predict(crops)
    last = blocked.worker.run(lambda: order.append("other"))
    blocked.go.set()
    last.result(20)
    assert order == [4, 2, "other"]
    blocked.worker.stop()


def test_errors_reach_their_request_and_the_worker_goes_on(
    ager: FaceAger, crops: FaceCrops
) -> None:
    worker = ModelWorker(ager)

    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        worker.run(fail).result(20)
    assert len(worker.predict(crops).result(20)) == 2
    worker.stop()


def test_cancelled_jobs_are_skipped_and_stop_ends_the_rest(
    ager: FaceAger, crops: FaceCrops
) -> None:
    blocked = BlockedWorker(ager)
    given_up, waiting = (blocked.worker.predict(crops) for _ in range(2))
    assert given_up.cancel()
    blocked.go.set()
    assert len(waiting.result(20)) == 2
    blocked = BlockedWorker(ager)
    waiting = blocked.worker.predict(crops)
    blocked.go.set()
    blocked.worker.stop()
    assert waiting.cancelled() or waiting.done()
    assert blocked.worker.predict(crops).cancelled()
