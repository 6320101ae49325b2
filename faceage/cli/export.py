"""faceage export: a model as ONNX."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from faceage import hub
from faceage.cli.common import ForceOption, WeightsOption, command


@command
def export(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")],
    weights: WeightsOption = hub.DEFAULT,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="How the weights are stored; fp16 halves the files."),
    ] = "fp32",
    force: ForceOption = False,
) -> None:
    """Write a model as ONNX; `--weights DIR` then uses it without torch."""
    from faceage.inference.export import export_model

    for file in export_model(weights, out, precision, force):
        typer.echo(str(file))
