"""The command train."""

import json
from pathlib import Path
from typing import Annotated

import typer

from faceage.cli.common import DeviceOption, command, note, say


@command
def train(
    data: Annotated[
        str,
        typer.Option(metavar="NAME|DIR", help="ffhq-aging, or a folder with labelled face crops."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Run directory for state, weights, samples and statistics."
        ),
    ] = Path("runs/faceage"),
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="paper, compact, distilled, paired, or a .toml file."
        ),
    ] = "compact",
    images: Annotated[
        int | None, typer.Option(min=1, help="Length of the training, in images seen.")
    ] = None,
    vgg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="VGG19's weights, if the recipe uses them.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Start from these weights instead of random ones."),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A dataset of pairs, written by `faceage pairs`."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change any option, as in model.width=48."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Licence of the weights, for their metadata.")
    ] = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check options and data, estimate cost, memory and time; train nothing.",
        ),
    ] = False,
) -> None:
    """Train the model. The same command resumes an interrupted run; torchrun uses several GPUs."""
    from faceage import hub
    from faceage.training.config import make_config

    start = hub.find(weights) if weights else None
    changes = {"images": images, "vgg": vgg, "weights": start, "pairs": pairs, "licence": licence}
    config = make_config(recipe, data, out, settings or (), **changes)
    if dry_run:
        from faceage.training.estimate import inspect_run

        report = inspect_run(config, device)
        typer.echo(json.dumps(report, indent=2))
        for needed in report["missing"]:
            note(needed)
        return

    from faceage import distributed
    from faceage.training.interruption import TrainingInterrupted
    from faceage.training.trainer import train as run

    try:
        path = run(config, device)
    except TrainingInterrupted as interrupted:
        if distributed.is_first():
            say(str(interrupted))
        raise typer.Exit(interrupted.exit_code) from None
    except distributed.OtherProcessError:  # that process reports the error
        raise typer.Exit(1) from None
    if distributed.is_first():
        typer.echo(str(path))
