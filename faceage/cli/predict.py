"""faceage predict: the age of every face in photos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceage import hub
from faceage.cli.batch import Batch
from faceage.cli.common import (
    DetectorOption,
    DeviceOption,
    FaceOption,
    ForceOption,
    MinScoreOption,
    PhotosArgument,
    WeightsOption,
    command,
)
from faceage.cli.output_formats import (
    Row,
    prediction_row,
    predictions_table,
    print_table,
    to_csv,
    to_json,
)
from faceage.cli.outputs import Target, plan_targets
from faceage.errors import ConfigError
from faceage.faces.selection import parse_faces
from faceage.files import check_free, make_folder

if TYPE_CHECKING:
    from faceage.api import FaceAger


@command
def predict(
    photos: PhotosArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write photos with boxes and ages drawn on them."),
    ] = None,
    face: FaceOption = "all",
    detector: DetectorOption = "yunet",
    min_score: MinScoreOption = 0.6,
    weights: WeightsOption = hub.DEFAULT,
    device: DeviceOption = "auto",
    force: ForceOption = False,
) -> int:
    """Predict the age of every face: years, age group, probabilities."""
    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other.", "Give one of them.")
    faces = parse_faces(face)
    batch: Batch[list[Row]] = Batch.collect(photos)
    targets: dict[Path, Target] = {}
    if draw:
        targets = plan_targets(batch.paths, draw, lambda target: [target.photo("faces")])
        make_folder(draw)

    rows: list[Row] = []
    if batch.paths:
        from faceage.api import load

        ager = load(weights, device, detector, min_score)

        def work(path: Path) -> list[Row]:
            return predict_photo(ager, path, faces, targets.get(path), force)

        for found in batch.run(work, "predicting"):
            rows += found
    listed = rows + [{"file": name, "error": text} for name, text in batch.errors.items()]
    if as_json:
        typer.echo(to_json(listed))
    elif as_csv:
        typer.echo(to_csv(listed))
    elif rows:
        print_table(predictions_table(listed))
    return batch.report()


def predict_photo(
    ager: "FaceAger", path: Path, faces: str | int, target: Target | None, force: bool
) -> list[Row]:
    """The rows of one photo; with `target`, also writes the photo with the ages drawn on it.

    Raises:
        PhotoError, NoFaceError, OutputError: as in reading, detecting, writing.
    """
    from faceage.imaging.drawing import draw_boxes
    from faceage.imaging.photos import open_photo, save_photo

    if target:
        check_free([target.photo("faces")], force)
    photo = open_photo(path)
    predictions = ager.predict(photo, faces)
    if target:
        boxes = [prediction.face.box for prediction in predictions]
        labels = [f"{p.number}: {p.age:.0f} years, {p.group}" for p in predictions]
        drawn = draw_boxes(photo.pixels, boxes, labels)
        save_photo(photo, drawn, target.photo("faces"), force=force)
    return [prediction_row(str(path), prediction) for prediction in predictions]
