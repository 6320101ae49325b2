"""The command train-teacher."""

from pathlib import Path
from typing import Annotated

import typer

from faceage.cli.common import DeviceOption, command


@command
def train_teacher(
    data: Annotated[
        str,
        typer.Option(metavar="NAME|DIR", help="ffhq-aging, or a folder with labelled face crops."),
    ],
    backbone: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A MobileNetV1 trained on identities (.safetensors)."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Run directory for state, weights and statistics.")
    ] = Path("runs/teacher"),
    images: Annotated[
        int, typer.Option(min=1, help="Length of the training, in images seen.")
    ] = 60_000,
    seed: Annotated[int, typer.Option(min=0, help="Of all random numbers.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train the age teacher: a face recognition network fine-tuned on ages and genders.

    It is used in training only (recipe `distilled`, and `faceage pairs`). The same command resumes.
    """
    from faceage.training.teacher import TeacherConfig, TeacherTrainer

    config = TeacherConfig(data, backbone, out, images=images, seed=seed)
    typer.echo(str(TeacherTrainer(config, device).run()))
