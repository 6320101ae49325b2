"""faceage age: photos with the faces at other ages.

One photo passes through once: open, detect, crop, encode, decode to each age, paste, write.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from faceage import hub
from faceage.ages import format_age, parse_ages
from faceage.cli.animate import animate_photos, parse_span
from faceage.cli.batch import load_ager, reject_failing, report_errors, run_batch
from faceage.cli.clips import age_clips, find_clips
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
from faceage.cli.outputs import (
    IfExists,
    Target,
    check_kept,
    check_one_result,
    collision_error,
    first_face,
    pending_files,
    plan_targets,
)
from faceage.cli.sharded import PhotoTask, Row, ShardOptions, describe_options, run_in_shards
from faceage.errors import AgeError, ConfigError, OutputError
from faceage.faces.selection import FaceChoice, choose_faces, parse_faces
from faceage.files import make_folder

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from faceage.api import FaceAger
    from faceage.faces.alignment import Face
    from faceage.faces.selection import NumberedFace
    from faceage.imaging.credentials import ContentSigner
    from faceage.imaging.photos import Photo

SHEET_TILE = 256  # px; side of a face on a contact sheet


@dataclass(frozen=True)
class AgeOptions:
    """The options of one `faceage age` command.

    Attributes:
        ages: target ages, years.
        faces: "all", or the numbers of faces.
        crop: write the aligned faces at the model's size instead of photos.
        sheet: also write a contact sheet.
        if_exists: what to do about results that exist.
        file: of one photo at one age, where the user names it.
        keep_private: copy GPS position, serial numbers and the owner's name into the results.
        signer: adds Content Credentials to the results.
    """

    ages: Sequence[float]
    faces: FaceChoice = "all"
    crop: bool = False
    sheet: bool = False
    if_exists: IfExists = IfExists.REFUSE
    keep_private: bool = False
    file: Path | None = None
    signer: "ContentSigner | None" = None

    def aged_files(self, target: Target, face: int) -> list[Path]:
        """The files of a face, in the order of `ages`; photos show all faces together."""
        if self.file:
            return [self.file]
        kinds = [f"age{format_age(age)}" for age in self.ages]
        if self.crop:
            return [target.crop(face, kind) for kind in kinds]
        return [target.photo(kind) for kind in kinds]

    def known_files(self, target: Target) -> list[Path]:
        """The files known before the photo is read."""
        files = self.aged_files(target, first_face(self.faces))
        return [*files, target.sheet] if self.sheet else files


@dataclass
class AgeTask(PhotoTask):
    """A photo with the faces at other ages."""

    weights: str
    device: str
    detector: str
    min_score: float
    options: AgeOptions

    kind: ClassVar[str] = "pictures"
    suffix: ClassVar[str] = ".tar"

    def describe(self) -> Row:
        """The options that determine the results, for the manifest."""
        options = self.options
        return {
            "command": "age",
            **describe_options(self.weights, self.detector, self.min_score, options.faces),
            "ages": [float(age) for age in options.ages],
            "crop": options.crop,
            "sheet": options.sheet,
            "keep_private": options.keep_private,
        }

    def load(self) -> None:
        self.ager = load_ager(self.weights, self.device, self.detector, self.min_score)

    def prepare(self, item: Item) -> "tuple[Photo, list[NumberedFace]]":
        photo = open_item(item)
        return photo, choose_faces(photo, self.ager.detector, self.options.faces)

    def work(
        self, item: Item, prepared: "tuple[Photo, list[NumberedFace]]", folder: Path, stem: str
    ) -> list[Row]:
        target = replace(Target.of(item, folder), folder=folder, stem=stem)
        age_photo(self.ager, item, *prepared, target, self.options, report=lambda path: None)
        return [
            {"face": number, "score": round(face.score, 4), "box": [round(v, 1) for v in face.box]}
            for number, face in prepared[1]
        ]


@command
def age(
    photos: PhotosArgument,
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="AGE", help="Target ages: 5, or 5,70, or 10-80:10. Repeats."),
    ] = None,
    face: FaceOption = "all",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR|FILE",
            help="The folder for results, or the file of one photo at one age; "
            "default: beside the photo.",
        ),
    ] = None,
    animate: Annotated[
        str | None,
        typer.Option(
            metavar="LOW-HIGH",
            help="Instead of --to: a clip of each photo, through these ages, such as 5-85.",
        ),
    ] = None,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also write the original and all ages on one sheet.")
    ] = False,
    crop: Annotated[bool, typer.Option("--crop", help="Write the aligned faces alone.")] = False,
    recursive: RecursiveOption = False,
    include_synthetic: IncludeSyntheticOption = False,
    detector: DetectorOption = "yunet",
    min_score: MinScoreOption = 0.6,
    weights: WeightsOption = hub.DEFAULT,
    device: DeviceOption = "auto",
    shard: ShardOption = None,
    shards: ShardsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
    quiet: QuietOption = False,
    keep_private: Annotated[
        bool,
        typer.Option(
            "--keep-private",
            help="Copy GPS position, serial numbers and the owner's name into the results.",
        ),
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            help="Add Content Credentials (C2PA), signed with the certificate and key in this "
            "file.",
        ),
    ] = None,
) -> int:
    """Show the faces of a photo or a clip at other ages; the rest of it is unchanged."""
    if_exists = IfExists.from_options(force, skip_existing)
    faces, model = parse_faces(face), (weights, device, detector, min_score)
    sharding = ShardOptions.from_options(shard, shards, engine, address, workers)
    if animate:
        if to or crop or sheet or sign or keep_private or sharding != ShardOptions():
            raise ConfigError(
                "--to, --crop, --sheet, --sign, --keep-private and shards do not work with "
                "--animate.",
                "Leave them out.",
            )
        span = parse_span(animate)
        items = collect_items(photos, recursive=recursive, exclude=out)
        items = leave_out_results(items, include_synthetic)
        return animate_photos(items, span, faces, out, if_exists, model)
    if not to:
        raise ConfigError("No target age is given.", "Add --to 70, or --animate 5-85.")
    ages = parse_ages(to)
    _check_no_ages(photos, to)
    items = collect_items(photos, recursive=recursive, exclude=out)
    if sharding.apply_to(items):
        if out is None:
            raise ConfigError("Shards need a folder for their files.", "Add --out DIR.")
        if sign or find_clips(items, animations=False):
            raise ConfigError("--sign and clips do not work with shards.", "Leave them out.")
        options = AgeOptions(ages, faces, crop, sheet, keep_private=keep_private)
        task = AgeTask(weights, device, detector, min_score, options)
        return run_in_shards(items, task, out, sharding, include_synthetic, force)
    items = leave_out_results(items, include_synthetic)
    code = 0
    of_clips: dict[Path, Path] = {}
    if clips := find_clips(items, animations=not (crop or sheet or sign)):
        if crop or sheet or sign:
            raise ConfigError(
                "--crop, --sheet and --sign are for photos.", "Use another command for the clips."
            )
        items = [item for item in items if item not in clips]
        code, of_clips = age_clips(clips, ages, faces, out, if_exists, model, alone=not items)
        if not items:
            return code
    file, folder = _split_out(out, several=len(items) > 1 or len(ages) > 1 or sheet)
    signer = _load_signer(sign) if sign else None
    options = AgeOptions(ages, faces, crop, sheet, if_exists, keep_private, file, signer)
    targets = plan_targets(items, folder, options.known_files)
    if folder:
        make_folder(folder)
    # Checked before the model is loaded, which takes seconds.
    pending: dict[Path, list[Path]] = {}

    def check(item: Item) -> None:
        known = options.known_files(targets[item.path])
        for result in known:
            if clip := of_clips.get(result.absolute()):
                raise collision_error(item.path, result, clip)
        pending[item.path] = pending_files(known, if_exists)

    reject_failing(items, check)
    if any(not item.error and (crop or pending[item.path]) for item in items):
        ager = load_ager(weights, device, detector, min_score)

    def prepare(item: Item) -> "tuple[Photo, list[NumberedFace]] | None":
        known = options.known_files(targets[item.path])
        check_kept(file for file in known if file not in pending[item.path])
        if not crop and not pending[item.path]:
            return None
        photo = open_item(item)
        return photo, choose_faces(photo, ager.detector, faces)

    def work(item: Item, prepared: "tuple[Photo, list[NumberedFace]] | None") -> None:
        if prepared:
            note_small_faces(item, prepared[1])
            age_photo(ager, item, *prepared, targets[item.path], options)

    for _ in run_batch(items, prepare, work, "ageing"):
        pass
    return max(code, report_errors(items, folder))


def _check_no_ages(photos: Sequence[str], to: Sequence[str]) -> None:
    """Explain `--to 5 70`, in which 70 is taken for a photo.

    Raises:
        ConfigError: a photo that does not exist is called like an age.
    """
    for name in photos:
        try:
            parse_ages([name])
        except AgeError:
            continue
        if not Path(name).exists():
            raise ConfigError(
                f"There is no photo {name}.",
                f"Several ages are written --to {to[-1]},{name} or --to {to[-1]} --to {name}.",
            )


def _load_signer(path: Path) -> "ContentSigner":
    from faceage.imaging.credentials import ContentSigner

    return ContentSigner(path)


def _split_out(out: Path | None, several: bool) -> tuple[Path | None, Path | None]:
    """The file and the folder that `--out` names: one of them.

    Raises:
        ConfigError: it is a file, but there are several results, or it has no suitable format.
    """
    from faceage.imaging.photos import SUFFIXES, UNREADABLE, is_writable_suffix

    if out is None or out.is_dir() or out.suffix.lower() not in SUFFIXES | UNREADABLE:
        return None, out
    check_one_result(out, several)
    if not is_writable_suffix(out.suffix):
        raise ConfigError(
            f"Results are not written as {out.suffix}.", "Use .jpg, .png, .webp or .tif."
        )
    return out, None


def age_photo(
    ager: "FaceAger",
    item: Item,
    photo: "Photo",
    found: "list[NumberedFace]",
    target: Target,
    options: AgeOptions,
    report: Callable[[str], object] = typer.echo,
) -> None:
    """Write one photo with the faces `found` at all ages; calls `report` with each file written.

    Raises:
        OutputError: a file exists and is not to be changed, or cannot be written.
    """
    from faceage.api import MAX_AHEAD
    from faceage.imaging.photos import save_photo

    if options.crop and options.file and len(found) > 1:
        raise OutputError(
            f"{item.path} has {len(found)} faces, but {options.file} is one file.", "Use --face."
        )
    files = {number: options.aged_files(target, number) for number, _ in found}
    expected = dict.fromkeys(file for listed in files.values() for file in listed)
    pending = set(
        pending_files([*expected, *([target.sheet] if options.sheet else [])], options.if_exists)
    )

    def save(source: "Photo", pixels: "np.ndarray", file: Path, ages: str) -> None:
        if file not in pending:
            return
        make_folder(file.parent)
        path = save_photo(
            source,
            pixels,
            file,
            force=options.if_exists is IfExists.OVERWRITE,
            synthetic={"age": ages, "weights": ager.weights_sha[:16]},
            keep_private=options.keep_private,
            signer=options.signer,
        )
        report(str(path))

    wanted = [
        i
        for i in range(len(options.ages))
        if target.sheet in pending or any(listed[i] in pending for listed in files.values())
    ]
    if not wanted:
        return
    tiles = [[_cut_out(photo.pixels, face)] for _, face in found]
    in_place = photo.full.nbytes >= MAX_AHEAD
    results = ager.iter_age(photo, [options.ages[i] for i in wanted], found, in_place)
    for i, aged in zip(wanted, results, strict=True):
        if options.crop:
            for number, crop in zip(aged.numbers, aged.crops, strict=True):
                save(photo.derive(crop), crop, files[number][i], format_age(aged.age))
        else:
            save(photo, aged.pixels, files[aged.numbers[0]][i], format_age(aged.age))
        if options.sheet:
            for row, face in zip(tiles, aged.faces, strict=True):
                row.append(_cut_out(aged.pixels, face))
    if target.sheet in pending:
        sheet = _make_sheet(tiles, options.ages, found)
        save(photo.derive(sheet), sheet, target.sheet, " ".join(map(format_age, options.ages)))


def _cut_out(pixels: "np.ndarray", face: "Face") -> "Image":
    """A face's tile on a sheet: the square of the photo around its crop, within the photo."""
    from faceage.faces.alignment import crop_quad
    from faceage.imaging.decoding import to_8_bit
    from faceage.imaging.drawing import fit

    height, width = pixels.shape[:2]
    side = min(round(face.side), width, height)
    corner = crop_quad(face.landmarks).mean(0) - side / 2
    x, y = (max(0, min(round(v), n - side)) for v, n in zip(corner, (width, height), strict=True))
    return fit(to_8_bit(pixels[y : y + side, x : x + side]), SHEET_TILE)


def _make_sheet(
    tiles: "list[list[Image]]", ages: Sequence[float], found: "Sequence[NumberedFace]"
) -> "np.ndarray":
    import numpy as np

    from faceage.imaging.drawing import contact_sheet, strip

    captions = ["original", *(f"{age:g}" for age in ages)]
    if len(tiles) == 1:
        return np.asarray(strip(tiles[0], captions, tile=SHEET_TILE))
    labels = [f"face {number}" for number, _ in found]
    return np.asarray(contact_sheet(tiles, captions, labels, tile=SHEET_TILE))
