"""The command train-head-segmenter."""

from pathlib import Path
from typing import Annotated

import typer

from faceage.cli.common import DeviceOption, command


@command
def train_head_segmenter(
    data: Annotated[
        list[str],
        typer.Option(metavar="NAME|DIR", help="Folders with labelled face crops. Repeats."),
    ],
    parser: Annotated[
        Path,
        typer.Option(metavar="FILE", help="BiSeNet V2 for faces at 448 px (.tflite)."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Run directory for labels, statistics and result.")
    ] = Path("runs/head-segmenter"),
    faces: Annotated[int, typer.Option(min=1, help="Most faces to label in a dataset.")] = 6000,
    images: Annotated[
        int, typer.Option(min=1, help="Length of the training, in images seen.")
    ] = 150_000,
    seed: Annotated[int, typer.Option(min=0, help="Of all random numbers.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train the network that keeps background, hats, clothes and objects unchanged.

    It learns the labels of a face parser. Labels that exist in the run directory are used again.
    """
    from faceage.training.head_segmenter import SegmenterConfig, train_head_segmenter

    config = SegmenterConfig(data, parser, out, faces, images, seed=seed)
    typer.echo(str(train_head_segmenter(config, device)))
