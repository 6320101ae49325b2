"""What the commands share: options with the same meaning everywhere, messages, error handling."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import typer

from faceage.errors import AgeError, ConfigError, FaceAgeError

PhotosArgument = Annotated[
    list[str],
    typer.Argument(
        help='Files, folders or globs; "-" reads a list of paths from stdin.',
        metavar="PHOTO",
        show_default=False,
    ),
]
RecursiveOption = Annotated[
    bool, typer.Option("--recursive", "-r", help="Also take the photos in sub-folders.")
]
IncludeSyntheticOption = Annotated[
    bool,
    typer.Option(
        "--include-synthetic",
        help="Also take pictures made by faceage from folders, globs and lists.",
    ),
]
FaceOption = Annotated[
    str,
    typer.Option(
        "--face",
        metavar="FACES",
        help="Which faces: all, largest, or numbers such as 2 or 1,3 (1 is the largest).",
    ),
]
DetectorOption = Annotated[
    Literal["yunet", "retinaface"], typer.Option("--detector", help="The face detector.")
]
MinScoreOption = Annotated[
    float, typer.Option("--min-score", min=0, max=1, help="Ignore faces with a lower score.")
]
WeightsOption = Annotated[
    str, typer.Option("--weights", metavar="NAME|FILE", help="The model: a name or a file.")
]
HostOption = Annotated[
    str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")
]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_quiet = False


def _set_quiet(value: bool) -> bool:
    global _quiet
    _quiet = value
    return value


QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_set_quiet, help="Print errors only, no notes."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing results.")]
SkipExistingOption = Annotated[
    bool,
    typer.Option("--skip-existing", help="Keep existing results and make the missing ones."),
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="K/N", help="Process only part K of N.")
]
ShardsOption = Annotated[
    int | None,
    typer.Option("--shards", metavar="N", min=1, help="Write N files; default: 1,000 photos each."),
]
EngineOption = Annotated[
    Literal["local", "ray"], typer.Option("--engine", help="What processes the shards.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="A running Ray cluster, such as auto; default: this machine."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes; default: one per core or GPU.")
]


def say(message: str) -> None:
    """Print a message as one line on stderr."""
    print(" ".join(message.splitlines()), file=sys.stderr)


def note(message: str) -> None:
    """Print a message that is no error, unless `--quiet` is given."""
    if not is_quiet():
        say(f"note: {message}")


def is_quiet() -> bool:
    """Whether `--quiet` is given: errors only, no notes and no progress bar."""
    return _quiet


def list_some(names: Sequence[object], limit: int = 3) -> str:
    """The first names, and how many more there are: "a, b, c and 2 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more


def describe_bug(error: Exception) -> str:
    """An error that is none of the package's own, in one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (set FACEAGE_DEBUG=1 for the traceback)"


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Print the errors of a command as one line on stderr, and exit with the right code."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            code = function(*args, **options)
        except FaceAgeError as error:
            say(f"error: {error}")
            code = 2 if isinstance(error, AgeError | ConfigError) else 1
        except KeyboardInterrupt:
            say("interrupted")
            code = 130
        except (typer.Exit, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("FACEAGE_DEBUG"):
                raise
            say(f"error: {describe_bug(error)}")
            code = 1
        finally:
            _set_quiet(False)
        raise typer.Exit(code or 0)

    return run
