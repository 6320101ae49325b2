"""The processes of a run: one alone, or those that torchrun started."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from faceage.devices import pick_device
from faceage.errors import ConfigError, FaceAgeError


class OtherProcessError(FaceAgeError):
    """Raised in every other process when one process has raised an error, which it reports."""


@dataclass(frozen=True)
class Processes:
    """The number of processes, and this one's rank and device."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes.

        Not done by DistributedDataParallel, because a step runs encoder and decoder several times
        before its backward pass, which DDP does not support.
        """
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def max(self, *numbers: int) -> list[int]:
        """The maximum of each number over the processes, in every process."""
        if self.count == 1:
            return list(numbers)
        shared = torch.tensor(numbers, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return [int(number) for number in shared]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the order of their ranks, in every process."""
        if self.count == 1:
            return [value]
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, value)
        return parts

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()

    @contextmanager
    def share_errors(self) -> Iterator[None]:
        """A block that fails in every process if it fails in one.

        Only the first process that fails raises its own error, so that it is reported once.

        Raises:
            OtherProcessError: another process reports the error.
        """
        error: FaceAgeError | None = None
        try:
            yield
        except FaceAgeError as raised:
            error = raised
        failed = [
            rank for rank, has_error in enumerate(self.gather(error is not None)) if has_error
        ]
        if error and failed[0] == self.rank:
            raise error
        if failed:
            raise OtherProcessError(f"Process {failed[0]} failed.")


def is_first() -> bool:
    """Whether this process is the only one, or the first that torchrun started."""
    return int(os.environ.get("RANK", 0)) == 0


def start(device: str = "auto") -> Processes:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: as for `pick_device`; of several CUDA devices, "auto" and "cuda" take the one with
            the process's local rank.

    Raises:
        ConfigError: no such device, or the other processes cannot be joined.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    where = pick_device(device)
    if where.type == "cuda":
        if where.index is None:
            where = pick_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
        torch.cuda.set_device(where)
    if count > 1 and not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"Cannot join the other processes ({reason}).", "Start them with torchrun."
            ) from None
    return Processes(rank, count, where)


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
