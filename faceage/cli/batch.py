"""Running a command on many photos: a bad photo is reported at the end, the others are done."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from faceage.cli.common import describe_bug, is_quiet, say
from faceage.cli.inputs import Item
from faceage.errors import FaceAgeError

if TYPE_CHECKING:
    from faceage.api import FaceAger

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


def load_ager(weights: str, device: str, detector: str, min_score: float) -> "FaceAger":
    """As `faceage.load`, with one thread for the networks unless OMP_NUM_THREADS is set.

    Photos are read and faces found in another thread, which keeps a second core busy. On two cores
    with other work, 300 faces took 15 to 24 s with one thread and 45 to 154 s with two; and the
    last digits of the probabilities depend on the number of threads.
    """
    from faceage import hub
    from faceage.api import load

    if not hub.is_exported(weights) and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(1)
    return load(weights, device, detector, min_score)


def run_batch(
    items: list[Item],
    prepare: Callable[[Item], Prepared],
    work: Callable[[Item, Prepared], Result],
    label: str,
) -> Iterator[tuple[Item, Result | None]]:
    """Every item with the result of `work`, in order; None with the item's `error` if it failed.

    Items that have an error already are passed on without work.

    Args:
        prepare: reads the photo and finds its faces. This is done ahead, in another thread.
        work: gets what `prepare` returned.
        label: of the progress bar; "" for none.
    """
    from faceage.devices import map_ahead
    from faceage.progress import progress_bar

    prepared = map_ahead(lambda item: None if item.error else prepare(item), items)
    bar = progress_bar(shown=bool(label) and len(items) > 1 and not is_quiet())
    with bar:
        for item, get in bar.track(
            zip(items, prepared, strict=True), total=len(items), description=label
        ):
            result = None
            if not item.error:
                try:
                    result = work(item, get())  # type: ignore[arg-type]
                except FaceAgeError as error:
                    item.error = str(error)
                except Exception as error:
                    if os.environ.get("FACEAGE_DEBUG"):
                        raise
                    item.error = f"{item.path}: {describe_bug(error)}"
            yield item, result


def reject_failing(items: Iterable[Item], check: Callable[[Item], object]) -> None:
    """Give those items an error for which `check` raises."""
    for item in items:
        if not item.error:
            try:
                check(item)
            except FaceAgeError as error:
                item.error = str(error)


def report_errors(items: list[Item], folder: Path | None = None) -> int:
    """Print the errors on stderr; returns the exit code, 0 or 1.

    Args:
        folder: where the errors of several photos are also written to `failures.csv`.
    """
    failures = [(item.name, item.error) for item in items if item.error]
    if folder and len(items) > 1:
        from faceage.scale.shards import write_failures

        write_failures(folder / "failures.csv", failures)
    return report_failures(failures, len(items))


def report_failures(failures: list[tuple[str, str]], count: int) -> int:
    """Print the errors of (name, error) pairs, of `count` photos; returns the exit code."""
    errors = [error for _, error in failures]
    if errors and count > 1:
        say(f"{len(errors)} of {count} failed:")
    for error in errors:
        say(f"error: {error}")
    return 1 if errors else 0
