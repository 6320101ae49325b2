"""The state of a run: everything that resuming needs."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from faceage.checkpoints import load_state, save_state
from faceage.distributed import Processes
from faceage.errors import ConfigError, WeightsError
from faceage.training.config import CHANGEABLE, TrainConfig, from_dict, to_dict
from faceage.training.losses import DiscriminatorBatch
from faceage.training.networks import Networks

STATE = "state.pt"
REPLAY_FACES = 2048  # capacity of the discriminator's replay buffer


@dataclass
class RunState:
    """The state of a run besides that of its networks.

    Attributes:
        replay_buffer: the discriminator's features of earlier batches, of this process.
        images_seen: by all processes.
        skipped_steps: steps without effect, as their gradients were not finite.
        initial_weights: description of the weights that the training began with, if any.
    """

    replay_buffer: deque[DiscriminatorBatch]
    images_seen: int = 0
    skipped_steps: int = 0
    initial_weights: dict[str, str] = field(default_factory=dict)


def make_replay_buffer(config: TrainConfig) -> deque[DiscriminatorBatch]:
    """An empty replay buffer; with one update per batch, stored features are never used."""
    batches = REPLAY_FACES // config.batch_size if config.discriminator_updates > 1 else 1
    return deque(maxlen=max(1, batches))


def write_state(
    config: TrainConfig, processes: Processes, networks: Networks, run: RunState
) -> None:
    """Save the state in the run directory.

    Every process but the first writes its replay buffer to a file whose name contains
    `images_seen`. The first then replaces the state, and the older files are removed: at any time,
    the files on disk belong together.
    """
    keep = config.discriminator_updates > 1
    path = _replay_path(config, processes, run.images_seen)
    state: dict[str, Any] = {
        "images_seen": run.images_seen,
        "config": to_dict(config),
        "replay_buffer": [batch._asdict() for batch in run.replay_buffer] if keep else [],
    }
    if not processes.is_first:
        save_state(path, state)
    processes.wait()
    if processes.is_first:
        state["processes"] = processes.count
        state["skipped_steps"] = run.skipped_steps
        state["initial_weights"] = run.initial_weights
        save_state(config.out / STATE, state | networks.state_dict())
    processes.wait()
    if not processes.is_first:
        for other in config.out.glob(f"replay-{processes.rank}-*.pt"):
            if other != path:
                other.unlink()


def read_state(
    config: TrainConfig, processes: Processes, networks: Networks, device: torch.device
) -> RunState | None:
    """Restore the networks from the run directory; None if it has no state.

    The replay buffer is empty if another number of processes wrote the state.

    Raises:
        ConfigError: it was written with other options.
        WeightsError: it is damaged, incomplete, or of another version.
    """
    path = config.out / STATE
    if not path.is_file():
        return None
    state = load_state(path, device)
    then = to_dict(from_dict(state["config"]))  # options that are newer have their defaults
    check_options(path, _fixed_options(to_dict(config)), _fixed_options(then))
    replay_buffer = make_replay_buffer(config)
    try:
        networks.load_state_dict(state)
        run = RunState(
            replay_buffer, state["images_seen"], state["skipped_steps"], state["initial_weights"]
        )
        if state["processes"] == processes.count:
            if not processes.is_first:
                state = load_state(_replay_path(config, processes, run.images_seen), device)
            replay_buffer.extend(DiscriminatorBatch(**batch) for batch in state["replay_buffer"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} was written by another version of faceage ({str(error).splitlines()[0]}).",
            "Give another --out.",
        ) from None
    return run


def check_options(path: Path, now: dict[str, Any], then: dict[str, Any]) -> None:
    """Check that a run is resumed with the options that its state was written with.

    Args:
        path: the state's file.
        now: the options that must not change.
        then: the options in the state, which may be more.

    Raises:
        ConfigError: some have other values.
    """
    changed = [name for name in now if now[name] != then.get(name)]
    if changed:
        raise ConfigError(
            f"{path} was trained with other values of {', '.join(changed)}.",
            "Give another --out, or the same options.",
        )


def _fixed_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that a resumed run must share; of files that may move, whether they are given."""
    files = {
        name: bool(options.get(name))
        for name in ("weights", "discriminator", "teacher", "distill_from")
    }
    return {name: value for name, value in options.items() if name not in CHANGEABLE} | files


def _replay_path(config: TrainConfig, processes: Processes, images_seen: int) -> Path:
    return config.out / f"replay-{processes.rank}-{images_seen:012d}.pt"
