"""The command that renders synthetic people for paired training: pairs."""

from pathlib import Path
from typing import Annotated

import typer

from faceage.cli.common import command


@command
def pairs(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The dataset folder to write.")],
    generator: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The wheel of random-face, or a folder with its data."),
    ] = Path("random_face-2021.7.21.1-py3-none-any.whl"),
    people: Annotated[int, typer.Option(min=1, help="How many people.")] = 2000,
    ages: Annotated[int, typer.Option(min=2, max=32, help="Faces of each person.")] = 8,
    size: Annotated[int, typer.Option(help="Side of the pictures, px: 256, 512 or 1024.")] = 256,
    sample: Annotated[
        int, typer.Option(min=20, help="Random faces from which the age direction is fitted.")
    ] = 1500,
    teacher: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An age teacher that labels age and gender."),
    ] = None,
    embedder: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A MobileNetV1 trained on identities (.safetensors)."),
    ] = None,
    parser: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A face parser (.tflite).")
    ] = None,
    real_faces: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Labelled face crops. Corrects the ages by the predictions for their val split.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Render synthetic people, each at several ages, as a dataset for paired training.

    The same command resumes. Faces that leave their person are marked as dropped in faces.csv.
    """
    from faceage.data.datasets import open_dataset
    from faceage.faces.parsing import FaceParser
    from faceage.hub import file_sha256
    from faceage.pairs.calibration import calibrate_ages
    from faceage.pairs.generator import FaceGenerator
    from faceage.pairs.labels import FaceLabeller
    from faceage.pairs.run import PairsConfig, PairsMaker
    from faceage.training.teacher import load_teacher

    config = PairsConfig(out, people, ages, size, sample, seed)
    config.check()
    models = {"teacher": teacher, "embedder": embedder, "parser": parser}
    names = [f"{name} {file_sha256(path)}" for name, path in models.items() if path]
    labeller = FaceLabeller(
        load_teacher(teacher) if teacher else None,
        embedder,
        FaceParser(parser) if parser else None,
    )
    calibration = calibrate_ages(labeller, open_dataset(real_faces, "val")) if real_faces else None
    maker = PairsMaker(config, FaceGenerator(generator), labeller, "; ".join(names), calibration)
    typer.echo(str(maker.run()))
