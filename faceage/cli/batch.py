"""Running one piece of work over many photos: what is meant, what goes wrong, where results go.

A batch goes on past a bad photo and lists what failed at the end. Results belong on stdout and
progress on stderr; a progress bar is shown only on a terminal.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faceage.ages import format_age
from faceage.errors import ConfigError, FaceAgeError, PhotoError


@dataclass
class Batch:
    """The photos of one command, and the errors so far, by the argument or path they belong to."""

    paths: list[Path] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    total: int = 0

    @classmethod
    def collect(cls, arguments: Sequence[str]) -> "Batch":
        """The photos meant by files, folders and globs, each once, in the order given.

        An argument that means no photo at all becomes an error of its own; the rest goes on.
        """
        from faceage.imaging.photos import find_photos

        batch, seen = cls(), set()
        for argument in arguments:
            try:
                found = find_photos([argument])
            except PhotoError as error:
                batch.errors[argument] = str(error)
                continue
            for path in found:
                if path.absolute() not in seen:
                    seen.add(path.absolute())
                    batch.paths.append(path)
        batch.total = len(batch.paths) + len(batch.errors)
        return batch

    def run(self, work: Callable[[Path], None], label: str) -> None:
        """Do `work` on every photo; what it raises is kept in `errors`."""
        from faceage.imaging.drawing import progress_bar

        bar = progress_bar(shown=len(self.paths) > 1)
        with bar:
            for path in bar.track(self.paths, description=label):
                try:
                    work(path)
                except FaceAgeError as error:
                    self.errors[str(path)] = str(error)
                except BrokenPipeError:  # nobody reads the results any more
                    raise
                except Exception as error:
                    if os.environ.get("FACEAGE_DEBUG"):
                        raise
                    self.errors[str(path)] = f"{path}: {unexpected(error)}"

    def drop_failing(self, check: Callable[[Path], None]) -> None:
        """Take the photos out of the batch for which `check` raises, and keep the errors."""
        passed = []
        for path in self.paths:
            try:
                check(path)
                passed.append(path)
            except FaceAgeError as error:
                self.errors[str(path)] = str(error)
        self.paths = passed

    def report(self) -> int:
        """Print the errors on stderr; returns the exit code, 0 or 1."""
        if self.total > 1 and self.errors:
            say(f"{len(self.errors)} of {self.total} failed:")
        for message in self.errors.values():
            say(f"error: {message}")
        return 1 if self.errors else 0


def say(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    print(" ".join(message.splitlines()), file=sys.stderr)


def unexpected(error: Exception) -> str:
    """An error nobody foresaw, in one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (FACEAGE_DEBUG=1 shows where)"


def result_path(photo: Path, kind: str, folder: Path | None, suffix: str = "") -> Path:
    """Where a result goes: beside the photo or in `folder`, as `photo.KIND.jpg`.

    The suffix is the photo's own, or ".png" where its format cannot take a result.
    """
    from faceage.imaging.photos import result_suffix

    suffix = suffix or result_suffix(photo)
    return (folder or photo.parent) / f"{photo.stem}.{kind}{suffix}"


def crop_path(photo: Path, face: int, kind: str, folder: Path | None) -> Path:
    """Where the crop of a face goes: `photo.KIND.png`, from face 2 on `photo.face2.KIND.png`."""
    parts = [photo.stem, f"face{face}" if face > 1 else "", kind]
    return (folder or photo.parent) / f"{'.'.join(filter(None, parts))}.png"


@dataclass(frozen=True)
class AgePlan:
    """One `faceage age` command.

    Attributes:
        ages: years.
        faces: "all", "largest" or a number.
        out: the folder for results; None is beside each photo.
        crop: write the aligned faces at the model's size instead of photos.
        sheet: also write a contact sheet.
        force: overwrite results.
    """

    ages: Sequence[float]
    faces: str | int = "all"
    out: Path | None = None
    crop: bool = False
    sheet: bool = False
    force: bool = False

    def results(self, photo: Path) -> list[Path]:
        """The files that can be told before the photo is read."""
        files = self.aged(photo, first_face(self.faces))
        return [*files, self.sheet_path(photo)] if self.sheet else files

    def aged(self, photo: Path, face: int) -> list[Path]:
        """The files for a face, in the order of `ages`; photos hold all faces together."""
        kinds = [f"age{format_age(age)}" for age in self.ages]
        if self.crop:
            return [crop_path(photo, face, kind, self.out) for kind in kinds]
        return [result_path(photo, kind, self.out) for kind in kinds]

    def sheet_path(self, photo: Path) -> Path:
        """The contact sheet's file."""
        return result_path(photo, "sheet", self.out, ".jpg")


@dataclass(frozen=True)
class AlignPlan:
    """One `faceage align` command: crops of `size` px and a csv, into `out`."""

    out: Path
    size: int = 256
    faces: str | int = "all"
    force: bool = False

    @property
    def table(self) -> Path:
        """The csv's file."""
        return self.out / "faces.csv"

    def result(self, photo: Path, face: int = 0) -> Path:
        """The crop of a face; of the first one if none is named."""
        return crop_path(photo, face or first_face(self.faces), "", self.out)


def first_face(faces: str | int) -> int:
    """The number of the first face that "all", "largest" or a number means."""
    return faces if isinstance(faces, int) else 1


def without_results(paths: Iterable[Path], keep: Iterable[str]) -> list[Path]:
    """Photos without this program's own results, so that a folder can be aged twice.

    A result is `x.age05.jpg` or `x.sheet.jpg` where `x.jpg` (any suffix) is there too; what was
    named one by one in `keep` stays.
    """
    paths, named = list(paths), {Path(text) for text in keep}
    stems = {(path.parent, path.stem) for path in paths}
    own = re.compile(r"(.+?)(?:\.face\d+)?\.(?:age[\d.]+|sheet|faces)")
    return [
        path
        for path in paths
        if path in named
        or not ((match := own.fullmatch(path.stem)) and (path.parent, match[1]) in stems)
    ]


def check_distinct(plan: dict[Path, list[Path]]) -> None:
    """Refuse a batch in which one result would overwrite another, or a photo of the batch.

    Args:
        plan: the results of every photo.

    Raises:
        ConfigError: naming the first such file.
    """
    outputs = Counter(path.absolute() for paths in plan.values() for path in paths)
    for path, count in outputs.items():
        if count > 1:
            sources = [str(p) for p, results in plan.items() if path in map(Path.absolute, results)]
            if len(sources) == 1:
                raise ConfigError(f"Two of the ages would both write {path}.", "Leave one out.")
            raise ConfigError(
                f"{' and '.join(sources[:2])} would both write {path}.",
                "Run them one after the other with different --out.",
            )
    for photo in plan:
        if photo.absolute() in outputs:
            raise ConfigError(f"A result would overwrite the photo {photo}.", "Use --out.")
