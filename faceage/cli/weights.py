"""Commands on model files: weights list, info, fetch, verify."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from faceage import hub
from faceage.cli.common import ForceOption, command, say
from faceage.errors import WeightsError

weights_app = typer.Typer(help="List, inspect, download and verify model files.")


@weights_app.command("list")
@command
def weights_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the model files and their paths on this machine."""
    files = hub.status()
    if as_json:
        rows = [{**asdict(f), "path": str(f.path) if f.path else None} for f in files]
        typer.echo(json.dumps(rows, indent=2))
        return
    for f in files:
        typer.echo(f"{f.name}  {f.path or 'not on this machine'}")
        for text in filter(None, (f.description, f.licence and f"licence: {f.licence}")):
            typer.echo(f"    {text}")


@weights_app.command("info")
@command
def weights_info(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A name from `weights list`, or a file.")
    ] = hub.DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the metadata of a model file: architecture, data, figures, licence."""
    path = hub.find(name)
    metadata = hub.read_metadata(path) if path.suffix == ".safetensors" else {}
    info: dict[str, Any] = {"file": str(path), "size": hub.check_file(path)}
    info |= {"sha256": hub.file_sha256(path)} | metadata
    if as_json:
        typer.echo(json.dumps(info, indent=2))
        return
    for key, value in info.items():
        typer.echo(_printable(f"{key}: {value}"))


@weights_app.command("fetch")
@command
def weights_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `weights list`.")],
    force: Annotated[
        bool, typer.Option("--force", help="Download it even if it is intact.")
    ] = False,
) -> None:
    """Download a model file into the cache; it is kept only if its sha256 is correct."""
    shown = -1

    def progress(received: int, total: int) -> None:
        nonlocal shown
        percent = 100 * received // total if total else 0
        if percent // 10 > shown:
            shown = percent // 10
            say(f"{name}: {received / 1e6:.1f} of {total / 1e6:.1f} MB")

    typer.echo(str(hub.fetch(name, force=force, progress=progress)))


@weights_app.command("verify")
@command
def weights_verify(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME|FILE", help="One file; default: all on this machine."),
    ] = None,
) -> int:
    """Compare the sha256 of model files with the expected ones."""
    checks = hub.verify(name)
    if not checks:
        raise WeightsError("There are no model files on this machine.", "Reinstall the package.")
    for check in checks:
        if check.problem:
            say(f"error: {check.path}: {check.problem}.")
        else:
            typer.echo(f"{check.path}: OK")
    return 1 if any(check.problem for check in checks) else 0


@weights_app.command("interpolate")
@command
def weights_interpolate(
    before: Annotated[
        str,
        typer.Argument(metavar="BEFORE", help="Name or file that the fine-tuning started from."),
    ],
    after: Annotated[
        str, typer.Argument(metavar="AFTER", help="Name or file of the fine-tuned weights.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    fraction: Annotated[float, typer.Option(min=0, max=1, help="The part of AFTER.")] = 0.5,
    force: ForceOption = False,
) -> None:
    """Average weights before and after fine-tuning, for a result between both."""
    from faceage.checkpoints import interpolate_weights
    from faceage.files import check_free

    check_free([out], force)
    typer.echo(str(interpolate_weights(hub.find(before), hub.find(after), fraction, out)))


def _printable(text: str) -> str:
    """One line without control characters, which a file of unknown origin may contain."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
