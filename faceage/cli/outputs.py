"""Naming and checking the results of a batch, before any work is done."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from faceage.errors import ConfigError


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
    def of(cls, photo: Path, out: Path | None) -> "Target":
        """In the folder `out`, or beside the photo."""
        from faceage.imaging.photos import result_suffix

        return cls(out or photo.parent, photo.stem, result_suffix(photo))

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


def plan_targets(
    photos: Iterable[Path], out: Path | None, results: Callable[[Target], list[Path]]
) -> dict[Path, Target]:
    """The targets of the photos of a batch.

    Args:
        out: the folder for results; None is beside each photo.
        results: the files that a target will get, as far as known before the photo is read.

    Raises:
        ConfigError: a result would overwrite another, or a photo of the batch.
    """
    targets = {photo: Target.of(photo, out) for photo in photos}
    files = {photo: [f.absolute() for f in results(target)] for photo, target in targets.items()}
    for file, count in Counter(f for listed in files.values() for f in listed).items():
        if count > 1:
            sources = [str(photo) for photo, listed in files.items() if file in listed]
            if len(sources) == 1:
                raise ConfigError(f"Two of the ages would both write {file}.", "Leave one out.")
            raise ConfigError(
                f"{' and '.join(sources[:2])} would both write {file}.",
                "Run them one after the other with different --out.",
            )
    every = {f for listed in files.values() for f in listed}
    for photo in targets:
        if photo.absolute() in every:
            raise ConfigError(f"A result would overwrite the photo {photo}.", "Use --out.")
    return targets


def first_face(faces: str | int) -> int:
    """The number of the first face that "all", "largest" or a number chooses."""
    return faces if isinstance(faces, int) else 1
