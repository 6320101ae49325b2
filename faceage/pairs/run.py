"""`faceage pairs`: render synthetic people at several ages, label them, and drop what went wrong.

Every stage resumes: samples and shards that exist are kept. The output folder is a dataset for
`faceage train`: zip shards and `faces.csv`.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceage.errors import ConfigError
from faceage.files import make_folder, write_file
from faceage.imaging.drawing import contact_sheet
from faceage.imaging.photos import Photo, save_photo
from faceage.pairs.calibration import AgeCalibration
from faceage.pairs.directions import HIGHEST, LOWEST, AgeDirection, fit_direction
from faceage.pairs.generator import FaceGenerator
from faceage.pairs.labels import (
    FaceLabeller,
    FaceLabels,
    fit_age_embedding,
    reasons_to_drop,
    similarity_to,
)
from faceage.pairs.shards import Rendered, read_images, read_table, write_shard
from faceage.progress import progress_bar

SAMPLE_TRUNCATION, PEOPLE_TRUNCATION = 0.9, 0.8
SAMPLE_CHUNK = 50
PEOPLE_PER_SHARD = 25
SAMPLE_SIZE = 256  # px; labels need no more
SHEET_PEOPLE = 12
COLUMNS = (
    *("file", "zip", "set", "person", "age", "gender", "kept", "why"),
    *("predicted_age", "seed", "step", "yaw", "similarity", "glasses"),
)


@dataclass(frozen=True)
class PairsConfig:
    """Options of `faceage pairs`.

    Attributes:
        out: the dataset folder.
        people: how many.
        ages: faces of each person.
        size: px of the pictures: 256, 512 or 1024.
        sample: random faces from which the direction of age is fitted.
        seed: of everything random.
        val_fraction: of the people, for validation.
    """

    out: Path
    people: int = 2000
    ages: int = 8
    size: int = 256
    sample: int = 1500
    seed: int = 0
    val_fraction: float = 0.02

    def check(self) -> None:
        """Raises ConfigError with every value that is out of range."""
        problems = [
            f"{name} is {getattr(self, name)}, must be at least {least}"
            for name, least in (("people", 1), ("ages", 2), ("sample", 20))
            if getattr(self, name) < least
        ]
        if self.size not in (256, 512, 1024):
            problems.append(f"size is {self.size}, must be 256, 512 or 1024")
        if problems:
            raise ConfigError(f"{'; '.join(problems)}.", "Change these options.")


class PairsMaker:
    """Renders and labels; see the module.

    Raises:
        ConfigError: options out of range, or another run's folder.
    """

    def __init__(
        self,
        config: PairsConfig,
        generator: FaceGenerator,
        labeller: FaceLabeller,
        labels: str,
        calibration: AgeCalibration | None = None,
    ) -> None:
        """`labels` names the models that label, in one line; other models label anew.

        `calibration` corrects the predicted ages in the table; nothing else depends on it.
        """
        config.check()
        self.config, self.generator, self.labeller = config, generator, labeller
        self.label_models, self.calibration = labels, calibration
        make_folder(config.out)
        self._check_options()

    def run(self) -> Path:
        """Returns the table, `faces.csv`."""
        sample, labels = self._sample()
        self.direction = self._direction(sample, labels)
        age_embedding = fit_age_embedding(labels)
        shards = self._shards()
        codes = self.generator.sample(self.config.people, self.config.seed, PEOPLE_TRUNCATION)
        with progress_bar(shown=True) as bar:
            for path, people in bar.track(shards, description="rendering"):
                if not path.is_file():
                    self._render_shard(path, people, codes)
        rows: list[dict[str, Any]] = []
        with progress_bar(shown=True) as bar:
            for path, _ in bar.track(shards, description="labelling"):
                rows += self._label_shard(path, age_embedding)
        table = self.config.out / "faces.csv"
        write_file(table, _to_csv(rows, COLUMNS).encode(), force=True)
        self._write_sheet(shards, rows)
        return table

    def _check_options(self) -> None:
        """A folder belongs to one set of options; only the number of people may grow."""
        config = self.config
        fixed = {name: getattr(config, name) for name in ("ages", "size", "sample", "seed")} | {
            "shard": PEOPLE_PER_SHARD,
            "range": [LOWEST, HIGHEST],
        }
        path = config.out / "options.json"
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name in fixed if before.get(name) != fixed[name]]
            if changed:
                raise ConfigError(
                    f"{config.out} was made with other values of {', '.join(changed)}.",
                    "Use another --out, or the same options.",
                )
        else:
            write_file(path, json.dumps(fixed).encode())

    # -- stages --------------------------------------------------------------------------------

    def _sample(self) -> tuple[NDArray[np.float32], FaceLabels]:
        """Random faces with labels, from which the direction of age is fitted."""
        config = self.config
        codes = self.generator.sample(config.sample, config.seed + 1, SAMPLE_TRUNCATION)
        folder = make_folder(config.out / "sample")
        parts = []
        with progress_bar(shown=True) as bar:
            starts = range(0, config.sample, SAMPLE_CHUNK)
            for start in bar.track(starts, description="sampling"):
                render = partial(self._render_sample, codes[start : start + SAMPLE_CHUNK])
                parts.append(self._labels(folder / f"{start:05d}", b"", render))
        return codes, FaceLabels.concatenate(parts)

    def _render_sample(self, codes: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
        return [self.generator.render(w, w, SAMPLE_SIZE) for w in codes]

    def _labels(
        self, path: Path, content: bytes, pictures: Callable[[], Sequence[NDArray[np.uint8]]]
    ) -> FaceLabels:
        """The labels of pictures, read if the same models have labelled the same content.

        Args:
            path: of the file that keeps them, without its suffix.
            content: what the pictures depend on.
            pictures: called if they must be labelled.
        """
        signature = hashlib.sha256(self.label_models.encode() + content).hexdigest()[:8]
        path = path.with_name(f"{path.name}-{signature}.npz")
        if not path.is_file():
            labels = self.labeller.label(np.stack(pictures()))
            buffer = io.BytesIO()
            np.savez(buffer, **{f.name: getattr(labels, f.name) for f in fields(FaceLabels)})
            write_file(path, buffer.getvalue(), force=True)
        with np.load(path) as arrays:
            return FaceLabels(**{f.name: arrays[f.name] for f in fields(FaceLabels)})

    def _direction(self, sample: NDArray[np.float32], labels: FaceLabels) -> AgeDirection:
        """Fitted once: later labels do not change what is rendered."""
        path = self.config.out / "direction.npz"
        names = [field.name for field in fields(AgeDirection)]
        if not path.is_file():
            found = fit_direction(sample, labels.age, labels.held_attributes(), self.generator.mean)
            buffer = io.BytesIO()
            np.savez(buffer, **{name: getattr(found, name) for name in names})
            write_file(path, buffer.getvalue())
        with np.load(path) as arrays:
            values: dict[str, Any] = {
                n: arrays[n] if arrays[n].ndim else float(arrays[n]) for n in names
            }
            return AgeDirection(**values)

    def _shards(self) -> list[tuple[Path, range]]:
        people = self.config.people
        return [
            (
                self.config.out / f"faces-{start // PEOPLE_PER_SHARD:05d}.zip",
                range(start, min(start + PEOPLE_PER_SHARD, people)),
            )
            for start in range(0, people, PEOPLE_PER_SHARD)
        ]

    def _render_shard(self, path: Path, people: range, codes: NDArray[np.float32]) -> None:
        rendered, images = [], []
        for person in people:
            for index, (goal, step) in enumerate(self._steps(person, codes[person])):
                coarse, fine = self.direction.walk(codes[person], step)
                images.append(self.generator.render(coarse, fine, self.config.size))
                rendered.append(Rendered(f"{person:05d}/{index}.webp", person, step, goal))
        write_shard(path, rendered, images)

    def _steps(self, person: int, code: NDArray[np.float32]) -> Iterator[tuple[float, float]]:
        """Goals and steps, from young to old: one at random in each part of the range."""
        count = self.config.ages
        random = np.random.default_rng([self.config.seed, person])
        for place in (np.arange(count) + random.random(count)) / count:
            goal = LOWEST + (HIGHEST - LOWEST) * float(place)
            yield goal, self.direction.step_to(code, goal)

    def _label_shard(self, path: Path, age_embedding: NDArray[np.float64]) -> list[dict[str, Any]]:
        """The rows of a shard."""
        rendered = read_table(path)
        labels = self._labels(
            make_folder(self.config.out / "labels") / path.stem,
            path.read_bytes(),
            partial(read_images, path),
        )
        rows: list[dict[str, Any]] = []
        for person in dict.fromkeys(row.person for row in rendered):
            own = [i for i, row in enumerate(rendered) if row.person == person]
            part = FaceLabels(*(getattr(labels, f.name)[own] for f in fields(FaceLabels)))
            # The face nearest to the person's own code is the least changed one.
            step = np.array([rendered[i].step for i in own])
            reference = int(np.abs(step).argmin())
            similarity = similarity_to(part, reference, age_embedding)
            reasons = reasons_to_drop(part, reference, similarity, step)
            gender = _gender(part.male[reference])
            ages = self.calibration.correct(part.age) if self.calibration else part.age
            for place, (index, why) in enumerate(zip(own, reasons, strict=True)):
                rows.append(
                    {
                        "file": rendered[index].file,
                        "zip": path.name,
                        "set": self._set_of(person),
                        "person": f"pairs{person:05d}",
                        "age": f"{ages[place]:.2f}",
                        "gender": gender,
                        "kept": int(not why),
                        "why": why,
                        "predicted_age": f"{part.age[place]:.2f}",
                        "seed": self.config.seed,
                        "step": f"{rendered[index].step:.4f}",
                        "yaw": f"{part.yaw[place]:.3f}",
                        "similarity": f"{similarity[place]:.3f}",
                        "glasses": f"{part.glasses[place]:.4f}",
                    }
                )
        return rows

    def _set_of(self, person: int) -> str:
        every = round(1 / self.config.val_fraction) if self.config.val_fraction else 0
        return "val" if every and person % every == every - 1 else "train"

    def _write_sheet(
        self, shards: Sequence[tuple[Path, range]], rows: Sequence[dict[str, Any]]
    ) -> None:
        """The first people at all their ages, with the reasons why faces were dropped."""
        by_file = {row["file"]: row for row in rows}
        path = shards[0][0]
        rendered, images = read_table(path), read_images(path)
        tiles: dict[int, list[NDArray[np.uint8]]] = {}
        captions: dict[int, list[str]] = {}
        for row, image in zip(rendered, images, strict=True):
            label = by_file[row.file]
            caption = f"{float(label['age']):.0f} {label['why']}".strip()
            tiles.setdefault(row.person, []).append(image)
            captions.setdefault(row.person, []).append(caption)
        people = list(tiles)[:SHEET_PEOPLE]
        sheet = contact_sheet(
            [tiles[p] for p in people],
            captions=[captions[p] for p in people],
            tile=min(self.config.size, 192),
        )
        pixels = np.asarray(sheet)
        mark = {"what": "synthetic people"}
        save_photo(Photo(pixels), pixels, self.config.out / "sheet.png", force=True, synthetic=mark)


def _gender(male: float) -> str:
    return "" if np.isnan(male) else "M" if male > 0.5 else "F"


def _to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
