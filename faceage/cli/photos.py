"""Commands on photos: predict, age, align."""

from pathlib import Path
from typing import Annotated, Any

import typer

from faceage import hub
from faceage.ages import parse_ages
from faceage.cli.batch import (
    AgePlan,
    AlignPlan,
    Batch,
    check_distinct,
    result_path,
    without_results,
)
from faceage.cli.common import (
    DetectorName,
    Device,
    Faces,
    Force,
    MinScore,
    Photos,
    Weights,
    command,
)
from faceage.errors import ConfigError
from faceage.faces.selection import parse_faces
from faceage.files import check_free, make_folder


@command
def predict(
    photos: Photos,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write photos with boxes and ages drawn on them."),
    ] = None,
    face: Faces = "all",
    detector: DetectorName = "yunet",
    min_score: MinScore = 0.6,
    weights: Weights = hub.DEFAULT,
    device: Device = "auto",
    force: Force = False,
) -> int:
    """Tell the age of every face: years, age group, probabilities."""
    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other.", "Give one of them.")
    which = parse_faces(face)
    batch = Batch.collect(photos)
    drawn: dict[Path, Path] = {}
    if draw:
        drawn = {path: result_path(path, "faces", draw) for path in batch.paths}
        check_distinct({path: [result] for path, result in drawn.items()})
        make_folder(draw)

    from faceage.imaging import drawing

    rows: dict[str, list[dict[str, Any]]] = {}
    if batch.paths:
        from faceage.api import load
        from faceage.cli.jobs import predict_photo

        ager = load(weights, device, detector, min_score)

        def one(path: Path) -> None:
            rows[str(path)] = predict_photo(ager, path, which, drawn.get(path), force)

        batch.run(one, "predicting")
    flat = [row for found in rows.values() for row in found]
    flat += [{"file": name, "error": message} for name, message in batch.errors.items()]
    if as_json:
        typer.echo(drawing.to_json(flat))
    elif as_csv:
        typer.echo(drawing.to_csv(flat))
    elif rows:
        drawing.print_table(drawing.predictions_table(flat))
    return batch.report()


@command
def age(
    photos: Photos,
    to: Annotated[
        list[str],
        typer.Option(metavar="AGE", help="Target ages: 5, or 5,70, or 10-80:10. Repeats."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; else beside the photo.")
    ] = None,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also write the original and all ages on one sheet.")
    ] = False,
    crop: Annotated[
        bool, typer.Option("--crop", help="Write the aligned faces alone, at the model's size.")
    ] = False,
    face: Faces = "all",
    detector: DetectorName = "yunet",
    min_score: MinScore = 0.6,
    weights: Weights = hub.DEFAULT,
    device: Device = "auto",
    force: Force = False,
) -> int:
    """Show the faces of a photo at other ages; the rest of the photo stays as it is."""
    plan = AgePlan(parse_ages(to), parse_faces(face), out, crop, sheet, force)
    batch = Batch.collect(photos)
    batch.paths = without_results(batch.paths, photos)
    check_distinct({path: plan.results(path) for path in batch.paths})
    if out:
        make_folder(out)
    # Before the model is loaded: whoever runs a command twice should not wait to hear of it.
    batch.drop_failing(lambda path: check_free(plan.results(path), force))
    if batch.paths:
        from faceage.api import load
        from faceage.cli.jobs import age_photo

        ager = load(weights, device, detector, min_score)

        def one(path: Path) -> None:
            for result in age_photo(ager, path, plan):
                typer.echo(str(result))

        batch.run(one, "ageing")
    return batch.report()


@command
def align(
    photos: Photos,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the crops and faces.csv go.")],
    size: Annotated[int, typer.Option(min=16, max=4096, help="Side of the crops, px.")] = 256,
    face: Faces = "all",
    detector: DetectorName = "yunet",
    min_score: MinScore = 0.6,
    force: Force = False,
) -> int:
    """Cut the faces out of photos as FFHQ does, for training, with a csv that lists them."""
    plan = AlignPlan(out, size, parse_faces(face), force)
    batch = Batch.collect(photos)
    check_distinct({path: [plan.result(path)] for path in batch.paths})
    make_folder(out)
    check_free([plan.table], force)
    if batch.paths:
        from faceage.api import load_detector
        from faceage.cli.jobs import align_photo, write_aligned

        finder = load_detector(detector, min_score)
        rows: list[dict[str, Any]] = []
        batch.run(lambda path: rows.extend(align_photo(finder, path, plan)), "aligning")
        if rows:
            typer.echo(str(write_aligned(rows, plan)))
    return batch.report()
