"""A run: render what is planned, judge it, keep or drop it, and plan again for what was dropped.

The rounds depend on the options and the results alone. So a run that is continued makes the same
pictures as one that was never interrupted; its journal says which of them are done.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from faceage.ages import GROUP_NAMES, GROUPS, format_age, group_of
from faceage.balance.folder import (
    OPTIONS,
    SYNTHETIC,
    Journal,
    Row,
    hash_text,
    link_real,
    write_table,
)
from faceage.balance.manifest import MANIFEST, real_row, synthetic_row, to_csv
from faceage.balance.plan import Needs, Planned, Stratum, person_of, plan_round, to_label
from faceage.balance.rendering import Result, ResultMaker, divide
from faceage.data.datasets import Dataset, EmptySplitError, open_dataset
from faceage.errors import ConfigError, DataError, FaceAgeError, OutputError
from faceage.files import make_folder, write_file
from faceage.hub import file_sha256
from faceage.imaging.photos import result_suffix
from faceage.scale.engines import Maker, ShardResult, ShardTask

Engine = Callable[[Maker, Sequence[ShardTask]], Iterator[ShardResult]]

TASK = 8  # results that an engine makes at a time
FEW = 32  # results; an engine starts processes, which takes longer than rendering so many


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
        maker: renders and judges.
        engine: makes the results in other processes; None makes them in this one.
    """

    def __init__(
        self,
        real: RealFaces,
        needs: Needs,
        out: Path,
        maker: ResultMaker,
        options: BalanceOptions,
        engine: Engine | None = None,
    ) -> None:
        self.real, self.out, self.options = real, out, options
        self._maker, self._engine = maker, engine
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
            FaceAgeError: a process of the engine failed.
        """
        for _, dataset in self.real.splits():
            link_real(dataset, self.out)
        make_folder(self.out / SYNTHETIC)
        number = 0
        while planned := self._plan(number):
            for item, make in zip(planned, self._make_ahead(planned), strict=True):
                if self._needs[self._stratum(item)] and self._work(item, make):
                    on_kept()
            number += 1
        self._maker.close()
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

    def _make_ahead(self, planned: Sequence[Planned]) -> Iterator[Callable[[], Result]]:
        """A function for each planned result, which makes it or returns what an engine has made."""
        pairs = [(item, self.samples[item.index]) for item in planned]
        todo = [pair for pair in pairs if _key(_new_row(pair[0])) not in self._done]
        if self._engine is None or len(todo) < FEW:
            yield from (partial(self._maker.make_result, *pair) for pair in pairs)
            return
        made = self._run_engine(self._engine, divide(todo, TASK))
        for item in planned:
            known = _key(_new_row(item)) in self._done
            result = None if known else next(made)
            yield partial(_unwrap, result)

    def _run_engine(self, engine: Engine, tasks: Sequence[ShardTask]) -> Iterator[Result]:
        """The results of the tasks, in their order; an engine may end them in another one."""
        ready: dict[int, Sequence[Result]] = {}
        following = 1
        for done in engine(self._maker, tasks):
            if done.error:
                raise FaceAgeError(f"A process failed: {done.error}", "Run the same command again.")
            ready[done.shard.index] = done.results
            while following in ready:
                yield from ready.pop(following)
                following += 1

    def _work(self, item: Planned, make: Callable[[], Result]) -> bool:
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
            row = self._judge(item, make())
            self._journal.append(row)
        self._rows.append(row)
        if row["kept"]:
            sample = self.samples[item.index]
            self._needs[group_of(to_label(row["judged_age"])), sample.gender] -= 1
            self._made[person_of(sample)] += 1
        return bool(row["kept"])

    def _judge(self, item: Planned, result: Result) -> Row:
        """The journal's entry of a result, which is written if its group needs it."""
        row = _new_row(item) | {
            "judged_age": result.judged_age,
            "similarity": result.similarity,
            "why": result.why,
        }
        if result.judged_age is None or result.why:
            return row
        group = group_of(to_label(result.judged_age))
        if self._needs.get((group, self.samples[item.index].gender), 0) <= 0:
            return row | {"why": f"full: no more pictures of {GROUP_NAMES[group]} are needed"}
        path = write_file(self.out / self._file(item), result.picture, force=True)
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
            result = self._maker.make_result(item, self.samples[item.index])
            write_file(path, result.picture, force=True)
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
                    {
                        "weights_sha256": self._maker.tools.ager.weights_sha,
                        "seed": self.options.seed,
                    },
                )
            )
            if row["kept"]:
                made[group_of(to_label(row["judged_age"]))] += 1
            else:
                dropped[row["why"].partition(":")[0]] += 1
        path = write_table(self.out / MANIFEST, to_csv(rows))
        return Outcome(path, made, dropped, {s: n for s, n in self._needs.items() if n})


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


def _unwrap(result: Result | None) -> Result:
    assert result  # only those in the journal have none, and they are not asked for
    return result
