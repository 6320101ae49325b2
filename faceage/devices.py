"""The torch device, and threads. Importing this module does not import torch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from faceage.errors import ConfigError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def pick_device(name: str = "auto") -> "torch.device":
    """The torch device of a name; "auto" takes cuda, then mps, then cpu.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"Unknown device {name!r}.", "Use auto, cpu, cuda, cuda:N or mps."
        ) from None
    counts = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}
    if (device.index or 0) >= counts.get(device.type, 0):
        raise ConfigError(f"There is no device {name!r} on this machine.", "Use --device auto.")
    return device


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = 1
) -> Iterator[Callable[[], Result]]:
    """The results of `function` in order, computed ahead in other threads.

    While one result is used, at most `threads` further ones are computed or waiting. Without
    threads, each is computed when it is asked for.

    Yields:
        A function for each item, which waits for its result and returns it, or raises its error.
    """
    if not threads:
        yield from (partial(function, item) for item in items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result
    except BaseException:  # the caller stops early
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
