"""The command that measures models: evaluate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from faceage import weights as weight_files
from faceage.ages import parse_ages
from faceage.batch import say
from faceage.cli.common import Device, Force, command


@command
def evaluate(
    data: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="ffhq-aging, or a folder with csv or pictures.")
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="A model; repeats, to measure several."),
    ] = None,
    age_judge: Annotated[
        Path | None, typer.Option(metavar="FILE", help="age-v1.onnx, which judges aged faces.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="AGE", help="Ages to send faces to: 5, or 5,70, or 10-80:10."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many faces to send there.")] = 300,
    sheet: Annotated[
        int, typer.Option(metavar="N", min=0, help="People on the contact sheet in --out.")
    ] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of the faces and people drawn.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where report.json and the sheets go.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Measure models on the val set: ages told, own age kept, ages reached, sharpness."""
    from faceage.evaluate import TARGETS, Options, tables
    from faceage.evaluate import evaluate as run
    from faceage.judges import OnnxAgeJudge
    from faceage.report import print_table

    targets = parse_ages(to) if to else TARGETS
    judge = OnnxAgeJudge(age_judge) if age_judge else None
    options = Options(targets, limit, sheet, seed, out, force)
    report = run(data, weights or [weight_files.DEFAULT], judge, options, device)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        for table in tables(report):
            print_table(table)
    for remark in report["remarks"]:
        say(f"remark: {remark}")
