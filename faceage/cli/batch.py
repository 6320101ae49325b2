"""Running a command on many photos: a bad photo is reported at the end, the others are done."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from faceage.cli.common import describe_bug, is_quiet, say
from faceage.cli.inputs import Item
from faceage.errors import FaceAgeError

Result = TypeVar("Result")


def run_batch(
    items: Iterable[Item], work: Callable[[Item], Result], label: str
) -> Iterator[tuple[Item, Result | None]]:
    """Every item with the result of `work`, in order; None with the item's `error` if it failed.

    Items that have an error already are passed on without work.
    """
    from faceage.progress import progress_bar

    items = list(items)
    bar = progress_bar(shown=len(items) > 1 and not is_quiet())
    with bar:
        for item in bar.track(items, description=label):
            result = None
            if not item.error:
                try:
                    result = work(item)
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


def report_errors(items: list[Item]) -> int:
    """Print the errors on stderr; returns the exit code, 0 or 1."""
    errors = [item.error for item in items if item.error]
    if errors and len(items) > 1:
        say(f"{len(errors)} of {len(items)} failed:")
    for error in errors:
        say(f"error: {error}")
    return 1 if errors else 0
