"""The command that measures systems which age faces: evaluate."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from faceage import hub
from faceage.ages import parse_ages
from faceage.cli.common import DeviceOption, ForceOption, command, say
from faceage.errors import ConfigError


@command
def evaluate(
    data: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="ffhq-aging, or a folder with csv or pictures.")
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="A model; repeats, to measure several."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Another system's pictures, called INPUT_AGE.png; repeats.",
        ),
    ] = None,
    age_judge: Annotated[
        Path | None, typer.Option(metavar="FILE", help="age-v1.onnx, which judges aged faces.")
    ] = None,
    identity_judge: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An embedder of faces: is it still the same person?"),
    ] = None,
    perceptual_judge: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="AlexNet's convolutions, for LPIPS; torchvision fetches them."
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="AGE", help="Ages to send faces to: 5, or 5,70, or 10-80:10."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="How many faces to send there; ages are told of all.")
    ] = 500,
    sheet: Annotated[
        int, typer.Option(metavar="N", min=0, help="People on the contact sheets in --out.")
    ] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of the faces and people drawn.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the reports and the sheets go.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    device: DeviceOption = "auto",
    force: ForceOption = False,
) -> None:
    """Measure models on the val set: ages told and reached, what stays of the face, and who it is.

    Writes report.json, report.md, report.html and contact sheets into --out. torchrun shares the
    work.
    """
    targets = parse_ages(to) if to else None
    pictures = _named_folders(images or ())

    from faceage.cli.output_formats import print_table
    from faceage.distributed import is_first
    from faceage.evaluation.evaluators import LpipsJudge, OnnxAgeJudge, open_identity_judge
    from faceage.evaluation.reports import terminal_tables
    from faceage.evaluation.run import TARGETS, Judges, Options
    from faceage.evaluation.run import evaluate as run

    judges = Judges(
        OnnxAgeJudge(age_judge) if age_judge else None,
        open_identity_judge(identity_judge) if identity_judge else None,
        LpipsJudge(perceptual_judge) if perceptual_judge else None,
    )
    options = Options(targets or TARGETS, limit, sheet, seed, out, force, _typed())
    models = weights or ([] if pictures else [hub.DEFAULT])
    report = run(data, models, pictures, judges, options, device)
    if not is_first():
        return
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        for table in terminal_tables(report):
            print_table(table)
    for remark in report["remarks"]:
        say(f"remark: {remark}")


def _named_folders(texts: Sequence[str]) -> dict[str, str]:
    """The folders of `--images`, by name."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise ConfigError(f"Cannot read --images {text!r}.", "Write NAME=DIR, as in other=out.")
        if name in found:
            raise ConfigError(f"--images names {name} twice.", "Give each folder its own name.")
        found[name] = folder
    return found


def _typed() -> str | None:
    """The command as it was typed, where it was: Python programs call it without."""
    if "evaluate" not in sys.argv[1:]:
        return None
    return shlex.join(["faceage", *sys.argv[1:]])
