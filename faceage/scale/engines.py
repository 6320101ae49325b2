"""Processing shards: in this process, in several processes of this machine, or with Ray.

All engines call the same function for each shard, so their results are the same.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from typing import Any, Protocol

from faceage.errors import FaceAgeError
from faceage.scale.shards import Shard

Count = Callable[[], object]  # called for each photo done


@dataclass(frozen=True)
class ShardTask:
    """One shard to make.

    Attributes:
        shard: its number.
        contents: the photos, or whatever else the maker takes.
    """

    shard: Shard
    contents: Sequence[Any]


@dataclass(frozen=True)
class ShardResult:
    """What became of one shard.

    Attributes:
        shard: its number.
        photos: how many photos it has.
        error: why the shard was not made; "" if it was.
        results: what the maker returns to the calling process; nothing if it writes files.
    """

    shard: Shard
    photos: int = 0
    error: str = ""
    results: Sequence[Any] = ()


class Maker(Protocol):
    """Makes shards. It is sent to other processes before its first call, which loads the model."""

    def make(self, task: ShardTask, count: Count) -> ShardResult:
        """Make one shard, calling `count` after each photo."""


def make_shard(maker: Maker, task: ShardTask, count: Count) -> ShardResult:
    """Make one shard; an error becomes part of the result."""
    try:
        return maker.make(task, count)
    except FaceAgeError as error:
        return ShardResult(task.shard, error=str(error))


def run_here(maker: Maker, tasks: Sequence[ShardTask], count: Count) -> Iterator[ShardResult]:
    """Make the shards in this process, one after the other."""
    for task in tasks:
        yield make_shard(maker, task, count)


def run_in_processes(
    maker: Maker, tasks: Sequence[ShardTask], count: Callable[[int], object], workers: int
) -> Iterator[ShardResult]:
    """Make the shards in several processes of this machine, each with its own model.

    Args:
        count: called with the number of photos that all processes have done so far.

    Raises:
        FaceAgeError: a process ended, for example because memory ran out.
    """
    context = get_context("spawn")  # a forked process could not use CUDA
    done = context.Value("q", 0)
    # A process that is started reads OMP_NUM_THREADS; two with several threads each are slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pool = ProcessPoolExecutor(workers, context, _start, (maker, done))
    try:
        waiting: set[Future[ShardResult]] = {pool.submit(_work, task) for task in tasks}
        while waiting:
            ready, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            count(done.value)
            yield from (future.result() for future in ready)
    except BrokenProcessPool:  # unlike other errors, this ends all processes
        raise FaceAgeError(
            "A worker process ended unexpectedly; memory may have run out.",
            "Run the command again, with fewer --workers: what is complete is kept.",
        ) from None
    except BaseException:  # interrupted: a shard can take long
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_maker: Maker
_done: Any


def _start(maker: Maker, done: Any) -> None:
    """Called once in each worker process."""
    global _maker, _done
    _maker, _done = maker, done
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a traceback
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this process when the program that started it has been killed."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _work(task: ShardTask) -> ShardResult:
    def count() -> None:
        with _done.get_lock():
            _done.value += 1

    return make_shard(_maker, task, count)
