"""Commands on datasets: train."""

import json
from pathlib import Path
from typing import Annotated

import typer

from faceage.cli.common import DeviceOption, command


@command
def train(
    data: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="ffhq-aging, or a folder with csv or pictures.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="State, weights, samples and statistics go here.")
    ] = Path("runs/faceage"),
    recipe: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="paper, compact, or a .toml file.")
    ] = "compact",
    images: Annotated[
        int | None, typer.Option(min=1, help="Length of the training, in images seen.")
    ] = None,
    vgg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="VGG19's convolutions, where they are used.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change any option, as model.width=48."),
    ] = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the options and the cost, and stop.")
    ] = False,
) -> None:
    """Train the model. The same command again resumes; torchrun uses several GPUs."""
    from faceage.training.config import cost, make_config, to_dict

    config = make_config(recipe, data, out, settings or (), images=images, vgg=vgg)
    if dry_run:
        config.check()
        typer.echo(json.dumps(to_dict(config) | {"cost": cost(config)}, indent=2))
        return

    from faceage.devices import pick_device
    from faceage.training.trainer import train as run

    pick_device(device)  # a wrong name is a usage error
    typer.echo(str(run(config, device)))
