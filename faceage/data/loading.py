"""Loading pictures for training: from memory if they fit, else from disk while training."""

import atexit
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, tee
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from faceage.data.datasets import Dataset, DecodedDataset, Labels, decode, join_labels, make_labels
from faceage.errors import DataError


class StreamedDataset:
    """A dataset whose pictures are read and decoded when they are needed.

    Args:
        size: side R of the pictures, px.
        workers: processes that decode ahead, at most one for each CPU; 0 decodes in this process.
    """

    def __init__(self, dataset: Dataset, size: int, workers: int) -> None:
        self.labels = make_labels(dataset.samples)
        self._reader = _CropReader(dataset, size)
        self._workers = min(workers, _count_cpus())

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pictures of each batch of indices (M,), M,R,R,3 uint8, in the order of the batches.

        With workers, `indices` is consumed a few batches ahead.

        Raises:
            DataError: a picture is missing or damaged.
        """
        batches = self._decode(indices)
        _running.add(batches)
        return batches

    def _decode(self, indices: Iterable[Tensor]) -> Generator[Tensor]:
        loader: DataLoader[Any] = DataLoader(
            self._reader,  # type: ignore[arg-type]  # has no length: the sampler is endless
            sampler=(index.tolist() for index in indices),
            batch_size=None,  # an element of the sampler is a batch
            num_workers=self._workers,
            collate_fn=_return_unchanged,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # the global one belongs to the training step
        )
        try:
            for images in loader:
                if isinstance(images, DataError):
                    raise images
                yield torch.from_numpy(images)
        finally:
            self._reader.dataset.close()


class JoinedDatasets:
    """Several datasets as one, with the indices of each after those of the one before."""

    def __init__(self, parts: "Sequence[Pictures]") -> None:
        self._parts = parts
        self.labels: Labels = join_labels([part.labels for part in parts])
        self._starts = [0, *accumulate(len(part) for part in parts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pictures of each batch of indices (M,), M,R,R,3 uint8, in the batches' order."""
        requests, *copies = tee(indices, 1 + len(self._parts))
        streams = [
            part.batches(map(partial(self._own, number), copy))
            for number, (part, copy) in enumerate(zip(self._parts, copies, strict=True))
        ]
        for index, *found in zip(requests, *streams, strict=False):
            images = torch.empty(len(index), *found[0].shape[1:], dtype=torch.uint8)
            for number, part in enumerate(found):
                images[self._belongs(number, index)] = part
            yield images

    def _belongs(self, number: int, index: Tensor) -> Tensor:
        return (index >= self._starts[number]) & (index < self._starts[number + 1])

    def _own(self, number: int, index: Tensor) -> Tensor:
        return index[self._belongs(number, index)] - self._starts[number]


Pictures = DecodedDataset | StreamedDataset | JoinedDatasets

_running: WeakSet[Generator[Tensor]] = WeakSet()


@atexit.register
def _stop_workers() -> None:
    """End the workers before the program, which would wait for them: they ignore SIGTERM."""
    for batches in list(_running):
        batches.close()


def load(
    dataset: Dataset,
    size: int,
    memory: float,
    workers: int,
    on_progress: Callable[[int], None] | None = None,
) -> DecodedDataset | StreamedDataset:
    """A dataset for training, decoded at once if it fits in `memory`.

    Args:
        size: side of the pictures, px.
        memory: in bytes.
        workers, on_progress: as for `StreamedDataset` and `decode`.
    """
    if decoded_bytes(dataset, size) <= memory:
        return decode(dataset, size, on_progress)
    return StreamedDataset(dataset, size, workers)


def decoded_bytes(dataset: Dataset, size: int) -> int:
    """The memory that a dataset's pictures take."""
    return len(dataset) * size * size * 3


def free_memory() -> int:
    """Bytes of memory that are free on this machine and in this process's control group."""
    free = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * next(int(v.split()[1]) for v in lines if v.startswith("MemAvailable")))
    with suppress(OSError, ValueError, StopIteration):
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        cached = next(int(v.split()[1]) for v in lines if v.startswith("inactive_file"))
        free.append(int((group / "memory.max").read_text()) - used + cached)
    with suppress(AttributeError, OSError, ValueError):  # elsewhere than on Linux
        if not free:
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(free, default=4 << 30))


def _count_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # CPUs of this process, not of the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _CropReader:
    """Reads whole batches. Errors are returned: a worker can raise them only with its traceback."""

    def __init__(self, dataset: Dataset, size: int) -> None:
        self.dataset, self._size = dataset, size

    def __getitem__(self, index: list[int]) -> NDArray[np.uint8] | DataError:
        try:
            crops = [self.dataset.read_crop(i, self._size) for i in index]
            return np.stack(crops) if crops else np.empty((0, self._size, self._size, 3), np.uint8)
        except DataError as error:
            return error


def _return_unchanged(images: object) -> object:
    """Workers pass on arrays: tensors would need shared memory, of which containers have little."""
    return images


def _ignore_signals(worker: int) -> None:
    """Signals to all processes shall not end workers: the training still finishes its step."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
