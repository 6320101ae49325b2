"""Ages in years, the ten age groups of FFHQ-Aging, and the syntax of `--to`.

Ages are years, as floats, everywhere in this package. The groups are those of FFHQ-Aging (Or-El et
al., "Lifespan Age Transformation Synthesis", ECCV 2020).
"""

import bisect
import math
import re
from collections.abc import Iterable

from faceage.errors import AgeError

MIN_AGE = 0
MAX_AGE = 100
YEARS = MAX_AGE - MIN_AGE + 1  # the classifier's bins: 0, 1 ... 100 years

GROUP_NAMES = ("0-2", "3-6", "7-9", "10-14", "15-19", "20-29", "30-39", "40-49", "50-69", "70+")
GROUP_STARTS = (0, 3, 7, 10, 15, 20, 30, 40, 50, 70)  # first year of each group
GROUPS = len(GROUP_NAMES)

# Years that have an age embedding of their own; between two of them it is interpolated. They are
# closer together where faces change faster.
KNOTS = (0, 2, 4, 7, 10, 14, 18, 24, 30, 40, 50, 60, 70, 80, 100)

MAX_TARGETS = 101  # every whole year from 0 to 100

_NUMBER = r"\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})-({_NUMBER})(?::({_NUMBER}))?")


def group_of(age: float) -> int:
    """The age group (0-9) of an age in years; 2.9 still belongs to group 0 ("0-2")."""
    return max(0, bisect.bisect_right(GROUP_STARTS, age) - 1)


def group_range(group: int) -> tuple[int, int]:
    """First and last whole year of a group, both included: group 5 is (20, 29)."""
    last = GROUP_STARTS[group + 1] - 1 if group + 1 < GROUPS else MAX_AGE
    return GROUP_STARTS[group], last


def parse_group(name: str) -> int:
    """The group (0-9) of a name: "20-29", "70+", or FFHQ-Aging's "70-120" for the last group.

    Raises:
        AgeError: there is no such group.
    """
    text = name.strip()
    if text == "70-120":
        text = "70+"
    if text not in GROUP_NAMES:
        raise AgeError(f"Unknown age group {name!r}.", f"The groups are {', '.join(GROUP_NAMES)}.")
    return GROUP_NAMES.index(text)


def format_age(age: float) -> str:
    """An age as used in file names: 5 -> "05", 12.5 -> "12.5", 5.01 -> "05.01"."""
    return f"{age:09.6f}".rstrip("0").rstrip(".")


def parse_ages(texts: Iterable[str]) -> list[float]:
    """Target ages from the values of `--to`: "5,70", "37.5", "20-30" (every 1 year), "10-80:10".

    Returns:
        Ages in years, in the given order, without duplicates.

    Raises:
        AgeError: not a number or range, outside 0-100, an empty range, or too many ages.
    """
    ages: dict[float, None] = {}
    for text in texts:
        for part in text.split(","):
            ages.update(dict.fromkeys(_parse_part(part.strip())))
    if len(ages) > MAX_TARGETS:
        raise AgeError(f"{len(ages)} target ages are too many.", f"Give at most {MAX_TARGETS}.")
    return list(ages)


def check_age(age: float) -> float:
    """The age as a float.

    Raises:
        AgeError: not a finite number from 0 to 100.
    """
    if not (math.isfinite(age) and MIN_AGE <= age <= MAX_AGE):
        raise AgeError(f"Age {age:g} is out of range.", f"Give years from {MIN_AGE} to {MAX_AGE}.")
    return float(age)


def _parse_part(part: str) -> list[float]:
    if match := _RANGE.fullmatch(part):
        start, stop = check_age(float(match[1])), check_age(float(match[2]))
        step = float(match[3] or 1)
        if step <= 0 or stop < start:
            raise AgeError(
                f"Range {part!r} is empty.", "Write low-high:step, for example 10-80:10."
            )
        count = int((stop - start) / step + 1e-9) + 1
        if count > MAX_TARGETS:
            raise AgeError(f"Range {part!r} has {count} ages.", f"Give at most {MAX_TARGETS}.")
        return [round(start + i * step, 6) for i in range(count)]
    try:
        age = float(part)
    except ValueError:
        raise AgeError(
            f"{part!r} is not an age.", "Write years: 5, or 5,70, or 10-80:10."
        ) from None
    return [check_age(age)]
