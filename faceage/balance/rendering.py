"""Rendering and judging one result: the part of a run that other processes can do, too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from faceage.api import FaceAger
from faceage.balance.gate import Gate
from faceage.balance.plan import Planned
from faceage.data.datasets import Dataset
from faceage.data.layouts import UNIT, Sample
from faceage.errors import DataError, PhotoError
from faceage.faces.alignment import Face
from faceage.faces.selection import choose_faces
from faceage.imaging.photos import Photo, as_photo, encode_photo, result_suffix
from faceage.scale.engines import Count, ShardResult, ShardTask
from faceage.scale.shards import Shard

_LOSSY = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Tools:
    """What renders and judges."""

    ager: FaceAger
    gate: Gate


@dataclass(frozen=True)
class Result:
    """One result.

    Attributes:
        judged_age: years; None if the source cannot be read.
        similarity: of the identities before and after; None if it was not measured.
        why: the result is to be dropped; "" if it passed the gate.
        picture: the bytes of the file; b"" if it is to be dropped.
    """

    judged_age: float | None
    similarity: float | None
    why: str
    picture: bytes = b""


class ResultMaker:
    """Makes results, in this process or as the `Maker` of an engine.

    Args:
        dataset: of the sources.
        load: loads the tools; called once in every process.
        tools: those of this process, if they are loaded already.
    """

    def __init__(
        self, dataset: Dataset, load: Callable[[], Tools], tools: Tools | None = None
    ) -> None:
        # Sent to other processes without the labels, which come with each task.
        self._dataset = Dataset(dataset.name, dataset.root.absolute(), dataset.samples[:1])
        self._load, self._tools = load, tools

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_tools": None}

    @property
    def tools(self) -> Tools:
        """Those of this process."""
        if self._tools is None:
            self._tools = self._load()
        return self._tools

    def make(self, task: ShardTask, count: Count) -> ShardResult:
        """Make the results of `(planned, sample)` pairs."""
        results: list[Result] = []
        for item, sample in task.contents:
            results.append(self.make_result(item, sample))
            count()
        return ShardResult(task.shard, len(results), results=results)

    def make_result(self, item: Planned, sample: Sample) -> Result:
        """Render and judge one result of the face `sample`."""
        try:
            photo, face = self._read(sample)
        except (DataError, PhotoError) as error:
            return Result(None, None, f"source: {error}")
        aged = self.tools.ager.iter_age(photo, item.target_age, [(1, face)])
        pixels = next(iter(aged)).pixels
        verdict = self.tools.gate.check(photo.pixels, pixels, face, item.target_age)
        picture = b""
        if not verdict.why:
            mark = {"age": item.target_age, "weights": self.tools.ager.weights_sha[:16]}
            picture = encode_photo(photo, pixels, result_suffix(sample.file), synthetic=mark)
        return Result(verdict.age, verdict.similarity, verdict.why, picture)

    def close(self) -> None:
        """Close the archives of the dataset."""
        self._dataset.close()

    def _read(self, sample: Sample) -> tuple[Photo, Face]:
        """The picture and the face of a source.

        Raises:
            DataError, PhotoError: it cannot be read, or has no face.
        """
        photo = as_photo(np.asarray(self._dataset.read(sample)))
        photo = replace(photo, lossless=Path(sample.file).suffix.lower() not in _LOSSY)
        height, width = photo.pixels.shape[:2]
        if not sample.landmarks:
            return photo, choose_faces(photo, self.tools.ager.detector, "largest")[0][1]
        scale = np.array([width, height]) / UNIT
        landmarks = (np.reshape(sample.landmarks, (5, 2)) + 0.5) * scale - 0.5
        return photo, Face((0.0, 0.0, float(width), float(height)), landmarks, 1.0)


def divide(pairs: Sequence[tuple[Planned, Sample]], size: int) -> list[ShardTask]:
    """Tasks of `size` results each, in order."""
    parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    return [ShardTask(Shard(i, len(parts)), part) for i, part in enumerate(parts, start=1)]
