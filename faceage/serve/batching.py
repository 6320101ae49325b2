"""One thread that runs the model for all requests; predictions that wait are computed together."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from faceage.api import FaceAger, FaceCrops, Prediction

MAX_BATCH = 32  # faces


class ModelWorker:
    """Runs jobs in order of arrival, in a thread of its own.

    Args:
        ager: used by this thread only.
    """

    def __init__(self, ager: FaceAger) -> None:
        self._ager = ager
        self._jobs: deque[tuple[FaceCrops | Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def predict(self, crops: FaceCrops) -> "Future[list[Prediction]]":
        """Predict the ages of faces, together with those of other requests."""
        return self._submit(crops)

    def run(self, job: Callable[[], Any]) -> "Future[Any]":
        """Run any other job that uses the model."""
        return self._submit(job)

    def stop(self) -> None:
        """Finish the job that runs, drop those that wait, and end the thread."""
        with self._changed:
            self._stopped = True
            for _, future in self._jobs:
                future.cancel()
            self._jobs.clear()
            self._changed.notify()
        self._thread.join()

    def _submit(self, job: FaceCrops | Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._changed:
            if self._stopped:
                future.cancel()
                return future
            self._jobs.append((job, future))
            self._changed.notify()
        return future

    def _run(self) -> None:
        while batch := self._next_batch():
            crops = [(job, future) for job, future in batch if isinstance(job, FaceCrops)]
            if crops:
                self._predict(*zip(*crops, strict=True))
                continue
            for job, future in batch:
                if callable(job):
                    _complete(future, job)

    def _next_batch(self) -> list[tuple[FaceCrops | Callable[[], Any], "Future[Any]"]]:
        """The next job, or the next predictions up to `MAX_BATCH` faces; empty when stopped."""
        with self._changed:
            batch: list[tuple[FaceCrops | Callable[[], Any], Future[Any]]] = []
            while not batch and not self._stopped:
                self._changed.wait_for(lambda: self._jobs or self._stopped)
                faces = 0
                while self._jobs:
                    job = self._jobs[0][0]
                    predictions = isinstance(job, FaceCrops)
                    count = len(job.found) if isinstance(job, FaceCrops) else 0
                    if batch and (not predictions or faces + count > MAX_BATCH):
                        break
                    job, future = self._jobs.popleft()
                    if future.set_running_or_notify_cancel():  # not given up meanwhile
                        batch.append((job, future))
                        faces += count
                        if not predictions:
                            break
            return batch

    def _predict(self, crops: tuple[FaceCrops, ...], futures: tuple["Future[Any]", ...]) -> None:
        joined = FaceCrops(
            [face for part in crops for face in part.found],
            np.concatenate([part.pixels for part in crops]),
        )
        try:
            predictions = iter(self._ager.predict_crops(joined))
        except Exception as error:
            for future in futures:
                future.set_exception(error)
            return
        for part, future in zip(crops, futures, strict=True):
            future.set_result([next(predictions) for _ in part.found])


def _complete(future: "Future[Any]", job: Callable[[], Any]) -> None:
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)
