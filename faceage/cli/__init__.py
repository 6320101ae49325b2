"""The command line. Imports happen inside the commands, so that `faceage --help` is instant.

Results go to stdout, everything else to stderr. Exit codes: 0 success, 1 some photo failed,
2 usage, 130 interrupted. An error is one line; FACEAGE_DEBUG=1 shows the traceback of a bug.
"""

from typing import Annotated

import typer

from faceage import __version__
from faceage.cli import age, align, predict
from faceage.cli.balance import balance
from faceage.cli.evaluate import evaluate
from faceage.cli.export import export
from faceage.cli.pack import pack
from faceage.cli.pairs import pairs
from faceage.cli.serve import serve
from faceage.cli.train import train
from faceage.cli.train_head_segmenter import train_head_segmenter
from faceage.cli.train_teacher import train_teacher
from faceage.cli.web import web
from faceage.cli.weights import weights_app

app = typer.Typer(
    name="faceage",
    help="Predict the age of faces in photos, and show the same faces at other ages.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for function in (
    predict.predict,
    age.age,
    align.align,
    train,
    evaluate,
    pairs,
    balance,
    pack,
    train_head_segmenter,
    train_teacher,
    export,
    serve,
    web,
):
    app.command()(function)
app.add_typer(weights_app, name="weights", no_args_is_help=True)


def main() -> None:
    """The `faceage` command."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"faceage {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass
