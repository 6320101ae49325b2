"""The command that packs a dataset into tars: pack."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from faceage.cli.common import QuietOption, command, is_quiet, list_some, note


@command
def pack(
    data: Annotated[
        str,
        typer.Option(metavar="NAME|DIR", help="ffhq-aging, or a folder with labelled face crops."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")],
    shard_mb: Annotated[
        float, typer.Option(min=0.001, metavar="N", help="Megabytes of pictures in a tar.")
    ] = 500,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="Pack only this split; default: all."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the pictures.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Write a dataset as tar shards in WebDataset layout, for training and other programs.

    The same command continues after an interruption.
    """
    from faceage.progress import progress_bar
    from faceage.scale.packing import SPLITS, Packer

    packer = Packer(data, out, round(1e6 * shard_mb), (split,) if split else SPLITS, seed)
    missing = packer.missing
    if done := len(packer.shards) - len(missing):
        note(f"{done} of {len(packer.shards)} tars are complete already.")
    if cut := [shard.path for shard in missing if shard.path.exists()]:
        note(f"Not whole, and written again: {list_some(cut)}.")
    with progress_bar(shown=not is_quiet()) as bar:
        shown = bar.add_task("packing", total=sum(len(shard.indices) for shard in missing))
        for path in packer.write_shards(lambda: bar.advance(shown)):
            typer.echo(str(path))
    typer.echo(str(packer.write_table()))
