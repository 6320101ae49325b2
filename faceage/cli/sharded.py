"""Commands on folders of any size: in shards, each with one Parquet or tar file.

One shard passes through once: its photos are prepared ahead and processed in order; the results
go into one file, which is renamed when it is complete.
"""

import os
import tarfile
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import typer

from faceage import __version__
from faceage.cli.batch import report_failures, run_batch
from faceage.cli.common import is_quiet, list_some, note, say
from faceage.cli.inputs import Item, leave_out_results
from faceage.errors import ConfigError
from faceage.faces.selection import FaceChoice
from faceage.scale.engines import ShardResult, ShardTask, run_here, run_in_processes
from faceage.scale.shards import SHARD_SIZE, Shard, ShardFolder, parse_shard, shard_file

Row = dict[str, Any]
TAR = ".tar"


@dataclass(frozen=True)
class ShardOptions:
    """How the photos are divided, and what processes the shards.

    Attributes:
        count: number of shards; None is one per tar, or one per `SHARD_SIZE` photos.
        only: the one shard to make; None is all.
        engine: "local" or "ray".
        address: of a running Ray cluster; None starts one on this machine.
        workers: processes, or Ray's actors; None is chosen by the machine.
    """

    count: int | None = None
    only: Shard | None = None
    engine: str = "local"
    address: str | None = None
    workers: int | None = None

    @classmethod
    def from_options(
        cls,
        shard: str | None,
        shards: int | None,
        engine: str,
        address: str | None,
        workers: int | None,
    ) -> "ShardOptions":
        """The choice made by the options of the command line.

        Raises:
            ConfigError: they contradict each other.
        """
        only = parse_shard(shard) if shard else None
        if only and shards not in (None, only.count):
            raise ConfigError(f"--shard {shard} is not one of --shards {shards}.", "Give one.")
        if address and engine != "ray":
            raise ConfigError("--address is for --engine ray.", "Add --engine ray.")
        return cls(only.count if only else shards, only, engine, address, workers)

    def apply_to(self, items: list[Item]) -> bool:
        """Whether shards are asked for, by any option or by an input that is a tar."""
        return self != ShardOptions() or any(item.path.suffix == TAR for item in items)


class PhotoTask(ABC):
    """What a command does to one photo. Subclasses are dataclasses of its options.

    Attributes:
        kind: the sub-folder for the shards' files.
        suffix: ".parquet" for rows alone, ".tar" for pictures.
    """

    kind: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def describe(self) -> Row:
        """The command and its options that determine the results, for the manifest."""

    @abstractmethod
    def load(self) -> None:
        """Load the model."""

    @abstractmethod
    def prepare(self, item: Item) -> Any:
        """Read the photo and find its faces; called in another thread."""

    @abstractmethod
    def work(self, item: Item, prepared: Any, folder: Path, stem: str) -> list[Row]:
        """The rows of a photo; its pictures go into `folder`, with names that begin with `stem`."""


@dataclass
class ShardMaker:
    """Makes shards of photos for an engine.

    Args:
        task: what is done to each photo.
        out: the output folder.
        include_synthetic: do not leave out pictures made by faceage.
        loaded: whether the model is loaded.
    """

    task: PhotoTask
    out: ShardFolder
    include_synthetic: bool = False
    loaded: bool = False

    def make(self, task: ShardTask, count: Callable[[], object]) -> ShardResult:
        """Make one shard of `(item, key)` pairs, where the item is a photo or a tar of photos.

        Raises:
            DataError: a tar is damaged.
            OutputError: the file cannot be written.
            WeightsError: the model cannot be loaded.
        """
        if not self.loaded:
            self.task.load()
            self.loaded = True
        path = self.out.file(task.shard)
        with shard_file(path) as folder:
            pairs = list(task.contents)
            if pairs and pairs[0][0].path.suffix == TAR:
                pairs = _unpack([item.path for item, _ in pairs], folder / "photos")
            keys = {item.path: key for item, key in pairs}
            items = leave_out_results([replace(i) for i, _ in pairs], self.include_synthetic)
            pictures = folder / "pictures"
            pictures.mkdir()
            prepare = self.task.prepare

            def work(item: Item, prepared: Any) -> list[Row]:
                stem = keys[item.path].rpartition("/")[2]
                return self.task.work(item, prepared, pictures, stem)

            with self._open(folder / path.name) as write:
                for item, rows in run_batch(items, prepare, work, label=""):
                    if item.error:
                        item.error = item.error.replace(str(item.path), item.name)
                        for left in pictures.iterdir():  # of a photo that failed halfway
                            left.unlink()
                    write(item, keys[item.path], rows, sorted(pictures.iterdir()))
                    count()
            failures = [(item.name, item.error) for item in items if item.error]
            self.out.write_failures(task.shard, failures)
        return ShardResult(task.shard, len(items))

    @contextmanager
    def _open(self, path: Path) -> Iterator[Callable[..., None]]:
        """A function that writes the results of one photo to a shard's file."""
        if self.task.suffix == TAR:
            from faceage.scale.tars import add_member, add_metadata

            with tarfile.open(path, "w") as archive:

                def write_tar(item: Item, key: str, rows: list[Row], files: list[Path]) -> None:
                    if item.error:
                        return
                    for file in files:
                        name = (Path(key).parent / file.name).as_posix()
                        add_member(archive, name, file.read_bytes())
                        file.unlink()
                    add_metadata(archive, key, {"photo": item.name, "faces": rows})

                yield write_tar
        else:
            from faceage.cli.output_formats import COLUMN_TYPES, error_row, flatten_row
            from faceage.scale.parquet import ParquetFile

            with ParquetFile(path, COLUMN_TYPES) as table:

                def write_rows(item: Item, key: str, rows: list[Row], files: list[Path]) -> None:
                    table.write([flatten_row(r) for r in rows or [error_row(item)]])

                yield write_rows


def describe_options(
    weights: str | None, detector: str, min_score: float, faces: FaceChoice
) -> Row:
    """The options that all commands have, for the manifest.

    Raises:
        WeightsError: there are no such weights.
    """
    from faceage import hub

    options: Row = {"detector": detector, "min_score": min_score}
    options["face"] = faces if faces == "all" else list(faces)
    if weights is not None:
        options["weights_sha256"] = hub.identify(weights)
    return options


def run_in_shards(
    items: list[Item],
    task: PhotoTask,
    out: Path,
    options: ShardOptions,
    include_synthetic: bool,
    force: bool,
) -> int:
    """Process photos in shards; returns the exit code, 0 or 1.

    Args:
        force: make shards again whose files exist.

    Raises:
        ConfigError: the shards cannot be made of these photos.
        OutputError: the folder has results of other photos or options.
    """
    if invalid := [item for item in items if item.error]:
        return report_failures([(item.name, item.error) for item in invalid], len(items))
    tars = [item for item in items if item.path.suffix == TAR]
    if tars and len(tars) < len(items):
        raise ConfigError("Photos and tars cannot be mixed.", "Run the command for each kind.")
    count = options.count or (len(tars) if tars else -(-len(items) // SHARD_SIZE))
    if count > len(items):
        what = "tars" if tars else "photos"
        raise ConfigError(f"There are only {len(items)} {what} for {count} shards.", "Use fewer.")
    _check_libraries(task, bool(tars), options.engine)
    folder = ShardFolder(out.absolute(), task.kind, task.suffix)
    names = [item.name for item in items]
    hashed = sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()
    contents = {
        **task.describe(),
        "version": __version__,
        "shards": count,
        "tars" if tars else "photos": len(items),
        "names_sha256": hashed,
        "include_synthetic": include_synthetic,
    }
    folder.claim(contents, force)
    wanted = [options.only] if options.only else [Shard(i, count) for i in range(1, count + 1)]
    missing = [shard for shard in wanted if force or not folder.file(shard).exists()]
    if done := len(wanted) - len(missing):
        note(f"{done} of {len(wanted)} shards are complete already.")
    pairs = _with_keys(items, bool(tars))
    tasks = [ShardTask(shard, shard.select(pairs)) for shard in missing]
    maker = ShardMaker(task, folder, include_synthetic)
    unmade: dict[str, list[str]] = defaultdict(list)  # shards, by error
    for result in _run(maker, tasks, options):
        if result.error:
            unmade[result.error].append(f"{result.shard.index}/{result.shard.count}")
        else:
            typer.echo(str(folder.file(result.shard)))
    merged = folder.merge_failures(count)
    failures = folder.read_failures(wanted)
    if failures:
        say(f"Failed photos: {len(failures)}, listed in {merged}.")
    for error, shards in unmade.items():
        say(f"error: shard {list_some(sorted(shards))}: {error}")
    return 1 if failures or unmade else 0


def _check_libraries(task: PhotoTask, tars: bool, engine: str) -> None:
    """Raises `ConfigError` if an extra of the package is missing, before any work is done."""
    from faceage.scale.optional import import_optional

    if task.suffix == ".parquet":
        import_optional("pyarrow", "scale")
    if tars:
        import_optional("webdataset", "scale")
    if engine == "ray":
        import_optional("ray.data", "ray")


def _run(
    maker: ShardMaker, tasks: Sequence[ShardTask], options: ShardOptions
) -> Iterator[ShardResult]:
    """The results of the shards, with a progress bar of photos."""
    from faceage.progress import progress_bar

    if not tasks:
        return
    sized = maker.task.suffix == TAR or tasks[0].contents[0][0].path.suffix != TAR
    total = sum(len(task.contents) for task in tasks) if sized else None
    with progress_bar(shown=not is_quiet()) as bar:
        shown = bar.add_task(maker.task.kind, total=total)
        if options.engine == "ray":
            from faceage.scale.ray_engine import run_on_ray

            for result in run_on_ray(maker, tasks, options.workers, options.address):
                bar.advance(shown, result.photos)
                yield result
            return
        workers = min(options.workers or _default_workers(), len(tasks))
        if workers == 1:
            yield from run_here(maker, tasks, lambda: bar.advance(shown))
        else:
            yield from run_in_processes(
                maker, tasks, lambda done: bar.update(shown, completed=done), workers
            )


def _default_workers() -> int:
    """One process per core, or one that uses the GPU."""
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_keys(items: list[Item], tars: bool) -> list[tuple[Item, str]]:
    """The items with absolute paths, and with keys for a tar of results."""
    from faceage.scale.tars import make_keys

    keys = {} if tars else make_keys([item.name for item in items])
    return [
        (replace(item, path=item.path.absolute(), label=item.name), keys.get(item.name, ""))
        for item in items
    ]


def _unpack(tars: list[Path], folder: Path) -> list[tuple[Item, str]]:
    """The photos of tars, as files in `folder`, with keys.

    Raises:
        DataError: a tar is damaged.
    """
    from faceage.imaging.photos import SUFFIXES
    from faceage.scale.tars import make_keys, read_pictures

    folder.mkdir()
    items: list[Item] = []
    for tar in tars:
        for name, data in read_pictures(tar, SUFFIXES):
            # Numbered, because a member's name may lead out of the folder.
            path = folder / f"{len(items):08}{Path(name).suffix}"
            path.write_bytes(data)
            items.append(Item(path, label=name))
    keys = make_keys([item.name for item in items], strip=False)
    return [(item, keys[item.name]) for item in items]
