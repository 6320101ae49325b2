"""Progress of a training run: a progress bar, stats.jsonl, and TensorBoard if it is installed."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

RECORD_SECONDS = 20.0


class Progress:
    """Shows the progress of a run on stderr and records it in `stats.jsonl`.

    Args:
        images: length of the run, in images seen.
        out: run directory; None shows and records nothing, for all processes but the first.
    """

    def __init__(self, images: int, out: Path | None) -> None:
        self._out = out
        self._console = Console(stderr=True, quiet=out is None)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=self._console,
            disable=out is None or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("images seen", total=images, rate="", losses="")
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._since: tuple[float, int] | None = None
        self._board: Any = None  # opened with the first record: a refused run creates no files
        self._images_seen = self._skipped_steps = 0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._bar.stop()
        if error is None:
            self._show(time.monotonic())  # the steps since the last record
        if self._board:
            self._board.close()

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """A separate bar for preparations; yields the function that advances it."""
        with self._bar:
            task = self._bar.add_task(name, total=total, rate="", losses="")
            yield lambda count: self._bar.advance(task, count)
            self._bar.remove_task(task)

    def update(
        self, images_seen: int, terms: Mapping[str, torch.Tensor], skipped_steps: int = 0
    ) -> None:
        """Add a step's losses; every 20 seconds, show and record their means.

        Args:
            skipped_steps: number of steps without effect since the beginning of the run.
        """
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        now = time.monotonic()
        self._since = self._since or (now, images_seen)
        self._images_seen, self._skipped_steps = images_seen, skipped_steps
        self._bar.update(self._task, completed=images_seen)
        if now - self._since[0] >= RECORD_SECONDS:
            self._show(now)

    def _show(self, now: float) -> None:
        if self._since is None:
            return
        figures = {n: float(total) / self._counts[n] for n, total in self._sums.items()}
        losses = " ".join(f"{n.removeprefix('G/')} {v:.3f}" for n, v in figures.items())
        if (seconds := now - self._since[0]) and self._images_seen > self._since[1]:
            rate = (self._images_seen - self._since[1]) / seconds
            self._bar.update(self._task, rate=f"{rate:.0f} images/s", losses=losses)
            figures["images_per_second"] = rate
        if self._skipped_steps:
            figures["skipped_steps"] = self._skipped_steps
        self.record(self._images_seen, {_log_name(n): v for n, v in figures.items()})
        self._sums, self._counts, self._since = {}, {}, (now, self._images_seen)

    def log(self, message: str) -> None:
        """Show a message."""
        self._console.print(message, highlight=False, soft_wrap=True)

    def record(self, images_seen: int, figures: Mapping[str, float]) -> None:
        """Append figures to stats.jsonl and TensorBoard."""
        if self._out is None or not figures:
            return
        self._out.mkdir(parents=True, exist_ok=True)
        line = {"images_seen": images_seen, "time": round(time.time(), 1)} | dict(figures)
        with (self._out / "stats.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if not self._console.is_terminal:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self._console.print(f"{images_seen} images  {shown}", highlight=False, soft_wrap=True)
        self._board = self._board or _tensorboard(self._out)
        if self._board:
            for name, value in figures.items():
                self._board.add_scalar(name, value, images_seen)


def _log_name(name: str) -> str:
    return f"loss/{name}" if name[:2] in ("G/", "D/") else name


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(out)
