"""One process or many: what torchrun's environment says, and the sums over processes."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, and its device."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Only the first process writes files and draws progress."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; nothing to do for one.

        Done by hand instead of by DistributedDataParallel because a step runs the encoder and
        decoder several times before one backward, which DDP's hooks do not expect.
        """
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def decide(self, choice: bool) -> bool:
        """The first process's choice, in every process: clocks differ from one to the other."""
        if self.count == 1:
            return choice
        shared = torch.tensor([int(choice)], device=self.device)
        dist.broadcast(shared, 0)
        return bool(shared.item())

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, in the order of their ranks, in every process."""
        if self.count == 1:
            return [value]
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, value)
        return parts

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()


def is_first() -> bool:
    """Whether this process is the only one, or the first that torchrun started."""
    return int(os.environ.get("RANK", 0)) == 0


def start(device: str = "auto") -> Processes:
    """Join the processes torchrun started, or be the only one.

    Args:
        device: "auto" takes CUDA where there is one; else a torch device.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    if count > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Processes(rank, count, torch.device(device))


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
