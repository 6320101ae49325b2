"""Running a command on many photos: a bad photo is reported at the end, the others are done."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from faceage.cli.common import describe_bug, say
from faceage.cli.inputs import find_photos
from faceage.errors import FaceAgeError, PhotoError

Result = TypeVar("Result")


@dataclass
class Batch(Generic[Result]):
    """The photos of one command, and the errors so far, by the argument or path they belong to."""

    paths: list[Path] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    total: int = 0

    @classmethod
    def collect(cls, arguments: Sequence[str]) -> "Batch[Result]":
        """The photos named by files, folders and globs, each once, in the order given.

        An argument that names no photo becomes an error.
        """
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

    def run(self, work: Callable[[Path], Result], label: str) -> Iterator[Result]:
        """The results of `work` on every photo; errors are kept in `errors`."""
        from faceage.progress import progress_bar

        bar = progress_bar(shown=len(self.paths) > 1)
        with bar:
            for path in bar.track(self.paths, description=label):
                try:
                    result = work(path)
                except FaceAgeError as error:
                    self.errors[str(path)] = str(error)
                    continue
                except Exception as error:
                    if os.environ.get("FACEAGE_DEBUG"):
                        raise
                    self.errors[str(path)] = f"{path}: {describe_bug(error)}"
                    continue
                yield result

    def reject_failing(self, check: Callable[[Path], None]) -> None:
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
