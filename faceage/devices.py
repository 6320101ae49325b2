"""Choosing the torch device. Importing this module does not import torch."""

from typing import TYPE_CHECKING

from faceage.errors import ConfigError

if TYPE_CHECKING:
    import torch


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
