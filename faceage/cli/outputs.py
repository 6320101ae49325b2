"""Naming the results of a batch, and what to do about results that exist."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from faceage.cli.inputs import Item
from faceage.errors import ConfigError, OutputError, PhotoError
from faceage.faces.selection import FaceChoice


class IfExists(Enum):
    """What to do about a result that exists."""

    REFUSE = "refuse"
    SKIP = "skip"
    OVERWRITE = "overwrite"

    @classmethod
    def from_options(cls, force: bool, skip_existing: bool) -> "IfExists":
        """The choice made by `--force` and `--skip-existing`.

        Raises:
            ConfigError: both are given.
        """
        if force and skip_existing:
            raise ConfigError("--force and --skip-existing exclude each other.", "Give one.")
        return cls.OVERWRITE if force else cls.SKIP if skip_existing else cls.REFUSE


@dataclass(frozen=True)
class Target:
    """Where the results of one photo go.

    Attributes:
        folder: of all results.
        stem: the first part of all file names.
        suffix: of results in the photo's format; ".png" where that cannot hold a result.
    """

    folder: Path
    stem: str
    suffix: str

    @classmethod
    def of(cls, item: Item, out: Path | None) -> "Target":
        """Below the folder `out`, or beside the photo."""
        from faceage.imaging.photos import result_suffix

        folder = item.path.parent if out is None else out / item.subfolder
        return cls(folder, item.path.stem, result_suffix(item.path))

    def photo(self, kind: str) -> Path:
        """The file of a whole photo: `STEM.KIND.jpg`."""
        return self.folder / f"{self.stem}.{kind}{self.suffix}"

    def crop(self, face: int, kind: str = "") -> Path:
        """The file of a face's crop: `STEM.KIND.png`, from face 2 on `STEM.face2.KIND.png`."""
        parts = [self.stem, f"face{face}" if face > 1 else "", kind]
        return self.folder / f"{'.'.join(filter(None, parts))}.png"

    @property
    def sheet(self) -> Path:
        """The file of the contact sheet."""
        return self.folder / f"{self.stem}.sheet.jpg"


Results = Callable[[Target], list[Path]]


def plan_targets(items: Iterable[Item], out: Path | None, results: Results) -> dict[Path, Target]:
    """The target of every photo of a batch, by its path, so that no two write the same file.

    Photos of one name in different folders get sub-folders of `out`; photos that differ in the
    suffix alone keep it in their results' names: `x.gif.age05.png` beside `x.age05.png`. A photo
    whose results would overwrite a photo of the batch, or still another's results, gets an error.

    Args:
        out: the folder for results; None is beside each photo.
        results: the files that a target will get, as far as known before the photo is read.
    """
    valid = {item.path: item for item in items if not item.error}
    targets = {path: Target.of(item, out) for path, item in valid.items()}
    if out is not None:
        for group in _find_collisions(targets, results).values():
            parents = [path.absolute().parent for path in group]
            common = os.path.commonpath(parents)
            for path, parent in zip(group, parents, strict=True):
                targets[path] = replace(targets[path], folder=out / parent.relative_to(common))
    for file, group in _find_collisions(targets, results).items():
        for path in group:
            if path.suffix.lower() != file.suffix.lower():
                targets[path] = replace(targets[path], stem=path.name)
    for file, group in _find_collisions(targets, results).items():
        for path in group[1:]:
            valid[path].error = str(collision_error(path, file, group[0]))
    photos = {path.absolute() for path in valid}
    for path, target in targets.items():
        if overwritten := [file for file in results(target) if file.absolute() in photos]:
            valid[
                path
            ].error = f"{path}: its result {overwritten[0]} is itself one of the photos. Use --out."
    return targets


def collision_error(path: Path, result: Path, other: Path) -> OutputError:
    """The error of a photo or clip whose result would overwrite that of another."""
    return OutputError(f"{path}: its result {result} is also that of {other}.", "Use --out.")


def pending_files(files: Iterable[Path], if_exists: IfExists) -> list[Path]:
    """Those of a photo's files that are to be written: with `SKIP`, those that do not exist.

    Raises:
        OutputError: a file exists and is not to be changed, or is a folder.
    """
    pending = []
    for file in files:
        try:
            if file.is_dir():
                raise OutputError(f"Cannot write {file}: it is a folder.", "Use another --out.")
            exists = file.exists() or file.is_symlink()
        except OSError:  # such as a name that is too long: writing reports it
            exists = False
        if exists and if_exists is IfExists.REFUSE:
            raise OutputError(
                f"{file} exists already.",
                "Use --skip-existing to keep it, --force to overwrite it, or --out.",
            )
        if not exists or if_exists is IfExists.OVERWRITE:
            pending.append(file)
    return pending


def check_one_result(out: Path, several: bool) -> None:
    """Check that the file that `--out` names is for one result.

    Raises:
        ConfigError: there are several.
    """
    if several:
        raise ConfigError(
            f"--out {out} is one file, but there are several results.", "Name a folder."
        )


def check_kept(files: Iterable[Path], size: tuple[int, int] | None = None) -> None:
    """Check that existing results are whole pictures, and of `size` (width, height) if given.

    Raises:
        OutputError: one is damaged or of another size.
    """
    from faceage.imaging.photos import open_photo

    for file in files:
        hint = "Delete it, or use --force."
        try:
            height, width = open_photo(file).pixels.shape[:2]
        except PhotoError as error:
            raise OutputError(
                f"An existing result cannot be kept: {error.message}", hint
            ) from error
        if size and (width, height) != size:
            raise OutputError(
                f"The existing {file} has {width}x{height} px, not {size[0]}x{size[1]}.", hint
            )


def first_face(faces: FaceChoice) -> int:
    """The number of the first chosen face."""
    return 1 if faces == "all" else faces[0]


def _find_collisions(targets: dict[Path, Target], results: Results) -> dict[Path, list[Path]]:
    """The files that several photos would write, with these photos."""
    writers: dict[Path, list[Path]] = defaultdict(list)
    for path, target in targets.items():
        for file in results(target):
            if path in writers[file.absolute()]:
                raise ConfigError(f"Two of the ages would both write {file}.", "Leave one out.")
            writers[file.absolute()].append(path)
    return {file: paths for file, paths in writers.items() if len(paths) > 1}
