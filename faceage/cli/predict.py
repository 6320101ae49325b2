"""faceage predict: the age of every face in photos."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from faceage import hub
from faceage.cli.batch import load_ager, reject_failing, report_errors, run_batch
from faceage.cli.common import (
    AddressOption,
    DetectorOption,
    DeviceOption,
    EngineOption,
    FaceOption,
    ForceOption,
    IncludeSyntheticOption,
    MinScoreOption,
    PhotosArgument,
    QuietOption,
    RecursiveOption,
    ShardOption,
    ShardsOption,
    SkipExistingOption,
    WeightsOption,
    WorkersOption,
    command,
)
from faceage.cli.inputs import (
    Item,
    collect_items,
    leave_out_results,
    note_small_faces,
    open_item,
)
from faceage.cli.output_formats import WRITERS, Row, error_row, prediction_row
from faceage.cli.outputs import IfExists, Target, check_kept, pending_files, plan_targets
from faceage.cli.sharded import PhotoTask, ShardOptions, describe_options, run_in_shards
from faceage.errors import ConfigError
from faceage.faces.selection import FaceChoice, parse_faces
from faceage.files import make_folder

if TYPE_CHECKING:
    from faceage.api import FaceAger, FaceCrops
    from faceage.imaging.photos import Photo


@dataclass
class PredictTask(PhotoTask):
    """The age of the faces of a photo."""

    weights: str
    device: str
    detector: str
    min_score: float
    faces: FaceChoice

    kind: ClassVar[str] = "predictions"
    suffix: ClassVar[str] = ".parquet"

    def describe(self) -> Row:
        """The options that determine the results, for the manifest."""
        shared = describe_options(self.weights, self.detector, self.min_score, self.faces)
        return {"command": "predict", **shared}

    def load(self) -> None:
        self.ager = load_ager(self.weights, self.device, self.detector, self.min_score)

    def prepare(self, item: Item) -> "tuple[Photo, FaceCrops]":
        photo = open_item(item)
        return photo, self.ager.crop_faces(photo, self.faces)

    def work(
        self, item: Item, prepared: "tuple[Photo, FaceCrops]", folder: Path, stem: str
    ) -> list[Row]:
        return predict_photo(self.ager, item, *prepared, None, IfExists.REFUSE)


@command
def predict(
    photos: PhotosArgument,
    face: FaceOption = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    as_jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one JSON object per line, as results come.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write photos with boxes and ages drawn on them."),
    ] = None,
    recursive: RecursiveOption = False,
    include_synthetic: IncludeSyntheticOption = False,
    detector: DetectorOption = "yunet",
    min_score: MinScoreOption = 0.6,
    weights: WeightsOption = hub.DEFAULT,
    device: DeviceOption = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Write Parquet, one file per shard, and print none."
        ),
    ] = None,
    shard: ShardOption = None,
    shards: ShardsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
    quiet: QuietOption = False,
) -> int:
    """Predict the age of every face: years, age group, probabilities."""
    formats = [n for n, on in (("json", as_json), ("jsonl", as_jsonl), ("csv", as_csv)) if on]
    if len(formats) > 1:
        raise ConfigError(f"--{formats[0]} and --{formats[1]} exclude each other.", "Give one.")
    faces = parse_faces(face)
    if_exists = IfExists.from_options(force, skip_existing)
    sharding = ShardOptions.from_options(shard, shards, engine, address, workers)
    items = collect_items(photos, recursive=recursive, exclude=draw or out)
    task = PredictTask(weights, device, detector, min_score, faces)
    if out:
        if formats or draw:
            option = f"--{formats[0]}" if formats else "--draw"
            raise ConfigError(f"--out and {option} exclude each other.", "Give one.")
        return run_in_shards(items, task, out, sharding, include_synthetic, force)
    if sharding.apply_to(items):
        raise ConfigError("Shards need a folder for their files.", "Add --out DIR.")
    items = leave_out_results(items, include_synthetic)
    targets: dict[Path, Target] = {}
    if draw:
        targets = plan_targets(items, draw, _drawn_files)
        make_folder(draw)
        reject_failing(items, lambda i: pending_files(_drawn_files(targets[i.path]), if_exists))

    if not all(item.error for item in items):
        task.load()

    def work(item: Item, prepared: "tuple[Photo, FaceCrops]") -> list[Row]:
        note_small_faces(item, prepared[1].found)
        return predict_photo(task.ager, item, *prepared, targets.get(item.path), if_exists)

    writer = WRITERS[formats[0] if formats else "table"]()
    try:
        for item, rows in run_batch(items, task.prepare, work, "predicting"):
            writer.write(rows or [error_row(item)])
    finally:  # also when interrupted
        writer.close()
    return report_errors(items)


def predict_photo(
    ager: "FaceAger",
    item: Item,
    photo: "Photo",
    crops: "FaceCrops",
    target: Target | None,
    if_exists: IfExists,
) -> list[Row]:
    """The rows of one photo; with `target`, also writes the photo with the ages drawn on it.

    Raises:
        OutputError: the photo cannot be written.
    """
    from faceage.imaging.drawing import draw_boxes
    from faceage.imaging.photos import save_photo

    predictions = ager.predict_crops(crops)
    files = _drawn_files(target) if target else []
    pending = pending_files(files, if_exists)
    check_kept(file for file in files if file not in pending)
    for file in pending:
        boxes = [prediction.face.box for prediction in predictions]
        labels = [f"{p.number}: {p.age:.0f} years, {p.group}" for p in predictions]
        drawn = draw_boxes(photo.pixels, boxes, labels)
        make_folder(file.parent)
        save_photo(photo, drawn, file, force=if_exists is IfExists.OVERWRITE, annotated=True)
    return [prediction_row(item.name, prediction) for prediction in predictions]


def _drawn_files(target: Target) -> list[Path]:
    return [target.photo("faces")]
