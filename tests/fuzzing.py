"""Fuzzing: mutations of files, and a run that gives mutated inputs to readers.

A reader may accept an input or raise a FaceAgeError of one line.
"""

import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from faceage.errors import FaceAgeError

NUMBERS = (b"-1", b"0", b"1", b"4294967296", b"18446744073709551616", b"1e999", b"NaN", b"null")

Reader = Callable[[Any], object]

# --- mutations of any file ------------------------------------------------------------------------


def flip(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    """Change up to 16 of the first `end` bytes."""
    array = np.frombuffer(data, np.uint8).copy()
    positions = rng.integers(0, end, rng.integers(1, 17))
    array[positions] = rng.integers(0, 256, len(positions), np.uint8)
    return array.tobytes()


def truncate(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    return data[: rng.integers(0, rng.choice([end, len(data)]))]


def remove(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    start = int(rng.integers(0, end))
    return data[:start] + data[start + int(rng.integers(1, 100)) :]


def repeat(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    start = int(rng.integers(0, end))
    return data[:start] + data[start : start + 100] * int(rng.integers(2, 5)) + data[start:]


def replace_number(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    """Replace digits among the first `end` bytes by an extreme number."""
    digits = [i for i in range(8, end) if data[i : i + 1].isdigit()]
    if not digits:
        return flip(rng, data, end)
    start = stop = int(rng.choice(digits))
    while data[stop : stop + 1].isdigit():
        stop += 1
    return data[:start] + NUMBERS[rng.integers(len(NUMBERS))] + data[stop:]


ANY = (flip, truncate, remove, repeat, replace_number)


# --- the run --------------------------------------------------------------------------------------


def fuzz(
    make: Callable[[int, np.random.Generator], tuple[str, Any, Iterable[Reader]]],
    count: int,
    first: int,
    max_seconds: float,
    max_megabytes: float,
) -> int:
    """Give the inputs number `first` to `first + count - 1` to their readers; the exit code.

    The run ends with the exit code 1 and the number of the input on an exception other than a
    FaceAgeError of one line, and beyond one of the limits.

    Args:
        make: the description of an input, the input, and its readers, by its number.
        max_seconds: processor time for an input.
        max_megabytes: additional memory.
    """
    before, refused, slowest = peak(), 0, 0.0
    for number in range(first, first + count):
        what, value, readers = make(number, np.random.default_rng(number))
        for read in readers:
            start = time.process_time()
            try:
                read(value)
            except FaceAgeError as error:
                refused += 1
                if "\n" in str(error):
                    print(f"input {number} ({what}), {read.__name__}: two lines: {error!s}")
                    return 1
            except Exception:
                print(f"input {number} ({what}), {read.__name__}:")
                traceback.print_exc(file=sys.stdout)
                return 1
            seconds = time.process_time() - start
            slowest = max(slowest, seconds)
            if seconds > max_seconds or peak() - before > max_megabytes:
                print(f"input {number} ({what}), {read.__name__}: {seconds:.1f} s,")
                print(f"{peak() - before:.0f} MB more")
                return 1
    print(f"{count} inputs, {refused} refusals, at most {slowest:.2f} s", end=", ")
    print(f"{peak() - before:.0f} MB more")
    return 0


def peak() -> float:
    """The largest amount of memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
