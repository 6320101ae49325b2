"""faceage align: FFHQ crops of the faces in photos, and a csv that lists them, for training."""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from faceage.cli.batch import reject_failing, report_errors, run_batch
from faceage.cli.common import (
    AddressOption,
    DetectorOption,
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
    WorkersOption,
    command,
)
from faceage.cli.inputs import Item, collect_items, leave_out_results, open_item
from faceage.cli.outputs import (
    IfExists,
    Target,
    check_kept,
    first_face,
    pending_files,
    plan_targets,
)
from faceage.cli.sharded import PhotoTask, Row, ShardOptions, describe_options, run_in_shards
from faceage.errors import OutputError
from faceage.faces.selection import FaceChoice, choose_faces, parse_faces
from faceage.files import make_folder, write_file

if TYPE_CHECKING:
    from faceage.faces.selection import NumberedFace
    from faceage.imaging.photos import Photo

COLUMNS = ("file", "photo", "face", "score", "valid", "landmarks")


@dataclass(frozen=True)
class AlignOptions:
    """The options of one `faceage align` command: crops of `size` px below the folder `out`."""

    out: Path
    size: int = 256
    faces: FaceChoice = "all"
    if_exists: IfExists = IfExists.REFUSE

    def known_files(self, target: Target) -> list[Path]:
        """The files known before the photo is read."""
        return [target.crop(first_face(self.faces))]

    def pending_files(self, files: list[Path]) -> list[Path]:
        """The files to be written; the others are checked to be crops of the right size."""
        pending = pending_files(files, self.if_exists)
        check_kept((f for f in files if f not in pending), (self.size, self.size))
        return pending


@dataclass
class AlignTask(PhotoTask):
    """FFHQ crops of the faces of a photo."""

    detector: str
    min_score: float
    size: int
    faces: FaceChoice

    kind: ClassVar[str] = "crops"
    suffix: ClassVar[str] = ".tar"

    def describe(self) -> Row:
        """The options that determine the results, for the manifest."""
        options = describe_options(None, self.detector, self.min_score, self.faces)
        return {"command": "align", **options, "size": self.size}

    def load(self) -> None:
        from faceage.api import load_detector

        self.face_detector = load_detector(self.detector, self.min_score)

    def prepare(self, item: Item) -> "tuple[Photo, list[NumberedFace]]":
        photo = open_item(item)
        return photo, choose_faces(photo, self.face_detector, self.faces)

    def work(
        self, item: Item, prepared: "tuple[Photo, list[NumberedFace]]", folder: Path, stem: str
    ) -> list[Row]:
        target = replace(Target.of(item, folder), folder=folder, stem=stem)
        return align_photo(item, *prepared, target, AlignOptions(folder, self.size, self.faces))


@command
def align(
    photos: PhotosArgument,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the crops and faces.csv."),
    ],
    face: FaceOption = "all",
    size: Annotated[int, typer.Option(min=16, max=4096, help="Side of the crops, px.")] = 256,
    recursive: RecursiveOption = False,
    include_synthetic: IncludeSyntheticOption = False,
    detector: DetectorOption = "yunet",
    min_score: MinScoreOption = 0.6,
    shard: ShardOption = None,
    shards: ShardsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
    quiet: QuietOption = False,
) -> int:
    """Cut the faces out of photos as FFHQ does, for training, with a csv that lists them."""
    if_exists = IfExists.from_options(force, skip_existing)
    options = AlignOptions(out, size, parse_faces(face), if_exists)
    sharding = ShardOptions.from_options(shard, shards, engine, address, workers)
    items = collect_items(photos, recursive=recursive, exclude=out)
    if sharding.apply_to(items):
        task = AlignTask(detector, min_score, size, options.faces)
        return run_in_shards(items, task, out, sharding, include_synthetic, force)
    items = leave_out_results(items, include_synthetic)
    targets = plan_targets(items, out, options.known_files)
    make_folder(out)
    table = out / "faces.csv"
    existing = read_table(table, if_exists)
    reject_failing(items, lambda i: pending_files(options.known_files(targets[i.path]), if_exists))
    if not all(item.error or item.name in existing for item in items):
        from faceage.api import load_detector

        face_detector = load_detector(detector, min_score)

    known = {name: {out / row["file"]: row for row in rows} for name, rows in existing.items()}

    def prepare(item: Item) -> "tuple[Photo, list[NumberedFace]] | None":
        if item.name in known and not options.pending_files(list(known[item.name])):
            return None
        photo = open_item(item)
        return photo, choose_faces(photo, face_detector, options.faces)

    def work(item: Item, prepared: "tuple[Photo, list[NumberedFace]] | None") -> list[Row]:
        if prepared is None:
            return existing[item.name]
        rows = align_photo(item, *prepared, targets[item.path], options)
        return [known.get(item.name, {}).get(out / row["file"], row) for row in rows]

    names = {item.name for item in items}
    rows = [row for name, listed in existing.items() if name not in names for row in listed]
    try:
        for item, found in run_batch(items, prepare, work, "aligning"):
            rows += found or existing.get(item.name, [])
    finally:  # also when interrupted
        if rows:
            write_table(rows, table, force=if_exists is not IfExists.REFUSE)
            typer.echo(str(table))
    return report_errors(items, out)


def align_photo(
    item: Item,
    photo: "Photo",
    found: "list[NumberedFace]",
    target: Target,
    options: AlignOptions,
) -> list[Row]:
    """Write the crops of the faces `found`; returns their rows, with the columns `COLUMNS`.

    Raises:
        OutputError: a file exists and is not to be changed, or cannot be written.
    """
    from faceage.faces.alignment import apply, crop_face, to_crop, valid_box
    from faceage.imaging.photos import save_photo

    files = [target.crop(number) for number, _ in found]
    pending = options.pending_files(files)
    make_folder(target.folder)
    rows = []
    for file, (number, face) in zip(files, found, strict=True):
        if file in pending:
            crop = crop_face(photo.pixels, face, options.size)
            force = options.if_exists is IfExists.OVERWRITE
            save_photo(photo.derive(crop), crop, file, force=force)
        matrix = to_crop(face.landmarks, options.size)
        height, width = photo.pixels.shape[:2]
        valid = valid_box(matrix, (height, width), options.size)
        rows.append(
            {
                "file": file.relative_to(options.out).as_posix(),
                "photo": item.name,
                "face": number,
                "score": f"{face.score:.3f}",
                "valid": " ".join(map(str, valid)),
                "landmarks": " ".join(f"{v:.1f}" for v in apply(matrix, face.landmarks).ravel()),
            }
        )
    return rows


def read_table(path: Path, if_exists: IfExists) -> dict[str, list[Row]]:
    """The rows of the run that is continued, by photo; {} if none is.

    Raises:
        OutputError: the csv exists and is not to be changed, or is not one of `align`.
    """
    if if_exists is not IfExists.SKIP or not path.exists():
        pending_files([path], if_exists)
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        by_photo: dict[str, list[Row]] = {row["photo"]: [] for row in rows if row["file"]}
        for row in rows:
            by_photo[row["photo"]].append(row)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise OutputError(
            f"{path} cannot be continued: it is no csv of faceage align.", "Use another --out."
        ) from error
    return by_photo


def write_table(rows: list[Row], path: Path, force: bool) -> Path:
    """Write the csv of crops; `faceage train` needs a column `age` or `age_group` added to it.

    Raises:
        OutputError: it exists and `force` is off, or it cannot be written.
    """
    text = io.StringIO()
    columns = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_file(path, text.getvalue().encode(), force=force)
