"""A run: render what is planned, judge it, keep or drop it, and plan again for what was dropped.

The rounds depend on the options and the results alone. So a run that is continued makes the same
pictures as one that was never interrupted; its journal says which of them are done.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from faceage.ages import GROUP_NAMES, GROUPS, format_age, group_of
from faceage.api import FaceAger
from faceage.balance.folder import (
    OPTIONS,
    SYNTHETIC,
    Journal,
    Row,
    hash_text,
    link_real,
    write_table,
)
from faceage.balance.gate import Gate
from faceage.balance.manifest import MANIFEST, real_row, synthetic_row, to_csv
from faceage.balance.plan import Needs, Planned, Stratum, person_of, plan_round, to_label
from faceage.data.datasets import Dataset, EmptySplitError, open_dataset
from faceage.data.layouts import UNIT
from faceage.devices import map_ahead
from faceage.errors import ConfigError, DataError, OutputError, PhotoError
from faceage.faces.alignment import Face
from faceage.faces.selection import choose_faces
from faceage.files import make_folder
from faceage.hub import file_sha256
from faceage.imaging.photos import Photo, as_photo, result_suffix, save_photo

_LOSSY = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class RealFaces:
    """The real faces of a dataset.

    Attributes:
        train: they are counted, and aged.
        held_out: of the splits "val" and "test", as far as there are any; they are only passed on.
    """

    train: Dataset
    held_out: Mapping[str, Dataset]

    def splits(self) -> Iterator[tuple[str, Dataset]]:
        """All splits with their names."""
        yield "train", self.train
        yield from self.held_out.items()

    def fingerprint(self) -> str:
        """A hash of all labels: it changes with the plan."""
        return hash_text(
            json.dumps([[n, [asdict(s) for s in d.samples]] for n, d in self.splits()])
        )


@dataclass(frozen=True)
class BalanceOptions:
    """Options of the rounds.

    Attributes:
        most: pictures of one person.
        tries: results rendered for a group, in multiples of the pictures that it needs.
        seed: of the plan.
    """

    most: int = 4
    tries: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        manifest: the file.
        made: kept pictures by age group.
        dropped: how many results, by the first word of the reason.
        missing: pictures that could not be made, by age group and gender.
    """

    manifest: Path
    made: list[int]
    dropped: Counter[str]
    missing: Needs


def open_real(data: str | Path) -> RealFaces:
    """The real faces of a labelled dataset.

    Raises:
        NoLabelsError: the folder has no labels.
        DataError: no such dataset, or it is malformed.
        ConfigError: it is a result of `faceage balance`.
    """
    train = open_dataset(data, "train")
    if (train.root / OPTIONS).exists():
        raise ConfigError(
            f"{train.root} is itself a result of faceage balance.", "Use the dataset it is of."
        )
    if any(sample.tar for sample in train.samples):
        raise ConfigError(
            f"The pictures of {train.root} are in tars.", "Use the dataset it was packed from."
        )
    held_out = {}
    for split in ("val", "test"):
        try:
            held_out[split] = open_dataset(data, split)
        except EmptySplitError:
            continue
    return RealFaces(train, held_out)


class Balancer:
    """Makes the pictures that a dataset needs.

    Args:
        real: the dataset.
        needs: pictures to be made.
        out: the folder, opened by `open_folder`.
    """

    def __init__(
        self,
        real: RealFaces,
        needs: Needs,
        out: Path,
        ager: FaceAger,
        gate: Gate,
        options: BalanceOptions,
    ) -> None:
        self.real, self.out, self.ager, self.gate, self.options = real, out, ager, gate, options
        self.samples = real.train.samples
        self._journal = Journal(out / "results.jsonl")
        self._done = {_key(row): row for row in self._journal.rows}
        self._needs = dict(needs)
        self._budget = {stratum: options.tries * need for stratum, need in needs.items()}
        self._rows: list[Row] = []  # of this run, in order
        self._tried: set[tuple[int, int]] = set()
        self._made: Counter[str] = Counter()

    def run(self, on_kept: Callable[[], object] = lambda: None) -> Outcome:
        """Make and judge the pictures, and write the manifest.

        Args:
            on_kept: called for each picture that is kept.

        Raises:
            DataError: the journal is of another run, or pictures of the dataset are missing.
            OutputError: a picture was changed, or cannot be written.
        """
        for _, dataset in self.real.splits():
            link_real(dataset, self.out)
        make_folder(self.out / SYNTHETIC)
        number = 0
        while planned := self._plan(number):
            for item, read in zip(planned, map_ahead(self._read_ahead, planned), strict=True):
                if self._needs[self._stratum(item)] and self._work(item, read):
                    on_kept()
            number += 1
        self.real.train.close()
        if len(self._rows) < len(self._journal.rows):
            raise self._foreign_journal(len(self._rows))
        return self._finish()

    # -- rounds --------------------------------------------------------------------------------

    def _plan(self, number: int) -> list[Planned]:
        needs = {
            stratum: count
            for stratum, need in self._needs.items()
            if (count := min(need, self._budget[stratum])) > 0
        }
        seed = (self.options.seed, number)
        return plan_round(self.samples, needs, self._tried, self._made, self.options.most, seed)

    def _work(self, item: Planned, read: Callable[[], "_Source | None"]) -> bool:
        """Make or take over one result; returns whether it is kept."""
        self._tried.add((item.index, item.group))
        self._budget[self._stratum(item)] -= 1
        place = len(self._rows)
        if place < len(self._journal.rows):
            row = self._journal.rows[place]
            if _key(row) != _key(_new_row(item)):
                raise self._foreign_journal(place)
            self._check_picture(item, row)
        else:
            row = self._make(item, read)
            self._journal.append(row)
        self._rows.append(row)
        if row["kept"]:
            sample = self.samples[item.index]
            self._needs[group_of(to_label(row["judged_age"])), sample.gender] -= 1
            self._made[person_of(sample)] += 1
        return bool(row["kept"])

    def _make(self, item: Planned, read: Callable[[], "_Source | None"]) -> Row:
        """Render and judge one result, and write it if it is kept."""
        row = _new_row(item)
        try:
            source = read()
            assert source  # only for results in the journal there is none
        except (DataError, PhotoError) as error:
            return row | {"why": f"source: {error}"}
        pixels = self._render(source, item)
        verdict = self.gate.check(source.photo.pixels, pixels, source.face, item.target_age)
        row |= {"judged_age": verdict.age, "similarity": verdict.similarity, "why": verdict.why}
        if verdict.why:
            return row
        group = group_of(to_label(verdict.age))
        if self._needs.get((group, self.samples[item.index].gender), 0) <= 0:
            return row | {"why": f"full: no more pictures of {GROUP_NAMES[group]} are needed"}
        path = self._save(source, pixels, item)
        return row | {"kept": True, "sha256": file_sha256(path)}

    def _check_picture(self, item: Planned, row: Row) -> None:
        """Check the picture of an earlier run; make it again if it is missing.

        Raises:
            OutputError: it is another picture.
        """
        path = self.out / self._file(item)
        if not row["kept"]:
            return
        if not path.exists():
            source = self._read(item)
            self._save(source, self._render(source, item), item)
        if file_sha256(path) != row["sha256"]:
            raise OutputError(
                f"{path} is not the picture that this run wrote.",
                "Delete it and run the same command again, or use another --out.",
            )

    def _foreign_journal(self, place: int) -> DataError:
        return DataError(
            f"{self._journal.path}, line {place + 1}, does not belong to this plan.",
            "Restore the file, or use another --out.",
        )

    # -- one picture ---------------------------------------------------------------------------

    def _read_ahead(self, item: Planned) -> "_Source | None":
        """None for results that are done."""
        return None if _key(_new_row(item)) in self._done else self._read(item)

    def _read(self, item: Planned) -> "_Source":
        """The picture and the face of a source.

        Raises:
            DataError, PhotoError: it cannot be read, or has no face.
        """
        sample = self.samples[item.index]
        photo = as_photo(np.asarray(self.real.train.read(sample)))
        photo = replace(photo, lossless=Path(sample.file).suffix.lower() not in _LOSSY)
        height, width = photo.pixels.shape[:2]
        if not sample.landmarks:
            return _Source(photo, choose_faces(photo, self.ager.detector, "largest")[0][1])
        scale = np.array([width, height]) / UNIT
        landmarks = (np.reshape(sample.landmarks, (5, 2)) + 0.5) * scale - 0.5
        return _Source(photo, Face((0.0, 0.0, float(width), float(height)), landmarks, 1.0))

    def _render(self, source: "_Source", item: Planned) -> np.ndarray:
        results = self.ager.iter_age(source.photo, item.target_age, [(1, source.face)])
        return next(iter(results)).pixels

    def _save(self, source: "_Source", pixels: np.ndarray, item: Planned) -> Path:
        mark = {"age": item.target_age, "weights": self.ager.weights_sha[:16]}
        path = self.out / self._file(item)
        return save_photo(source.photo, pixels, path, force=True, synthetic=mark)

    def _file(self, item: Planned) -> str:
        suffix = result_suffix(self.samples[item.index].file)
        return f"{SYNTHETIC}/{item.index:06d}.age{format_age(item.target_age)}{suffix}"

    def _stratum(self, item: Planned) -> Stratum:
        return item.group, self.samples[item.index].gender

    # -- the end -------------------------------------------------------------------------------

    def _finish(self) -> Outcome:
        rows = [real_row(s, name) for name, data in self.real.splits() for s in data.samples]
        made = [0] * GROUPS
        dropped: Counter[str] = Counter()
        for row in self._rows:
            index, age = row["source"], row["target_age"]
            item = Planned(index, row["group"], age)
            rows.append(
                synthetic_row(
                    self.samples[index],
                    row,
                    self._file(item),
                    {"weights_sha256": self.ager.weights_sha, "seed": self.options.seed},
                )
            )
            if row["kept"]:
                made[group_of(to_label(row["judged_age"]))] += 1
            else:
                dropped[row["why"].partition(":")[0]] += 1
        path = write_table(self.out / MANIFEST, to_csv(rows))
        return Outcome(path, made, dropped, {s: n for s, n in self._needs.items() if n})


@dataclass(frozen=True, eq=False)
class _Source:
    """A picture, and its face."""

    photo: Photo
    face: Face


def _new_row(item: Planned) -> Row:
    """The journal's entry of a result that is not judged yet."""
    return {
        "source": item.index,
        "group": item.group,
        "target_age": item.target_age,
        "judged_age": None,
        "similarity": None,
        "kept": False,
        "why": "",
        "sha256": "",
    }


def _key(row: Row) -> tuple[int, int, int]:
    return row["source"], row["group"], row["target_age"]
