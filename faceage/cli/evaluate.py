"""The command that evaluates methods which age faces: evaluate."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

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
        typer.Option(metavar="NAME|FILE", help="A model; repeat it to compare several."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Result pictures of another method, named <input>_<age>.png; may be repeated.",
        ),
    ] = None,
    split: Annotated[
        Literal["val", "test"], typer.Option(help="The held-out split to evaluate on.")
    ] = "test",
    age_evaluator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="age-v1.onnx, to predict the age of aged faces."),
    ] = None,
    identity_evaluator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An ONNX face embedder, to measure identity."),
    ] = None,
    perceptual_evaluator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="torchvision's AlexNet, for LPIPS and kernel distances."),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="torchvision's Inception v3, for FID and KID."),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="AGE", help="Target ages: 5, or 5,70, or 10-80:10."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="How many faces to age; age estimation is on all faces.")
    ] = 500,
    sheet: Annotated[
        int, typer.Option(metavar="N", min=0, help="People on the contact sheets in --out.")
    ] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of all random choices.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write reports and contact sheets.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    device: DeviceOption = "auto",
    force: ForceOption = False,
) -> None:
    """Evaluate models and other methods on held-out faces.

    Measures age estimation and its robustness, reconstruction and cycle
    reconstruction; and of aged faces the predicted age, its bias, identity,
    sharpness, skin, and distances from real faces. What needs an evaluator
    that is not given is left out.

    Prints the report as Markdown, or as JSON. With --out, writes report.json,
    report.md, report.html and contact sheets. Under torchrun, processes share
    the work.
    """
    targets = parse_ages(to) if to else None
    folders = _parse_folders(images or ())

    from faceage.distributed import is_first
    from faceage.evaluation import evaluators as evaluation
    from faceage.evaluation.report import render_markdown
    from faceage.evaluation.run import SWEEP, Options
    from faceage.evaluation.run import evaluate as run

    evaluators = evaluation.Evaluators(
        evaluation.AgeEvaluator(age_evaluator) if age_evaluator else None,
        evaluation.IdentityEvaluator(identity_evaluator) if identity_evaluator else None,
        evaluation.PerceptualEvaluator(perceptual_evaluator) if perceptual_evaluator else None,
        evaluation.InceptionEvaluator(inception) if inception else None,
    )
    options = Options(
        data,
        weights=weights or ([] if folders else [hub.DEFAULT]),
        folders=folders,
        split=split,
        targets=targets or SWEEP,
        limit=limit,
        people=sheet,
        seed=seed,
        out=out,
        force=force,
        command=_command_line(),
        device=device,
    )
    report = run(options, evaluators)
    if not is_first():
        return
    typer.echo(report.to_json() if as_json else render_markdown(report), nl=False)
    for remark in report.remarks:
        say(f"remark: {remark}")


def _parse_folders(texts: Sequence[str]) -> dict[str, str]:
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


def _command_line() -> str | None:
    """The command as it was typed; None in a Python program."""
    if "evaluate" not in sys.argv[1:]:
        return None
    return shlex.join(["faceage", *sys.argv[1:]])
