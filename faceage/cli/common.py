"""What the commands share: options that mean the same everywhere, and how errors end a command."""

import functools
import os
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from faceage.cli.batch import say, unexpected
from faceage.errors import AgeError, ConfigError, FaceAgeError

Photos = Annotated[
    list[str],
    typer.Argument(help="Files, folders or globs.", metavar="PHOTO", show_default=False),
]
Faces = Annotated[str, typer.Option("--face", help="largest, all, or a number (1 is the largest).")]
DetectorName = Annotated[
    Literal["yunet", "retinaface"], typer.Option("--detector", help="What finds the faces.")
]
MinScore = Annotated[
    float, typer.Option("--min-score", min=0, max=1, help="Ignore less certain faces.")
]
Weights = Annotated[
    str, typer.Option("--weights", metavar="NAME|FILE", help="The model: a name or a file.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite results that exist.")]


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Turn what a command raises into one line on stderr and the right exit code."""

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
            say(f"error: {unexpected(error)}")
            code = 1
        raise typer.Exit(code or 0)

    return run
