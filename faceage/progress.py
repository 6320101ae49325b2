"""The progress bar of all commands."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn


def progress_bar(shown: bool) -> Progress:
    """A counting bar on stderr, drawn only if `shown` and stderr is a terminal."""
    console = Console(stderr=True)
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
        # When stdout is a file, results printed meanwhile must go there and not to the bar.
        redirect_stdout=sys.stdout.isatty(),
    )
