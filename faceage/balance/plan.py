"""The plan: how many pictures each age group needs, of which people, at which ages.

A plan is a function of the samples, the options and the results so far: nothing else, so an
interrupted run continues with the same plan.
"""

import csv
import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceage.ages import GROUP_NAMES, GROUPS, MAX_AGE, group_range, parse_group
from faceage.data.layouts import Sample
from faceage.errors import AgeError, ConfigError

UNIFORM = "uniform"
MAX_COUNT = 10**9
USE_COST = 10.0  # years: a person's next picture costs as much as a source so much farther in age
OLDEST = 89  # years: the last target age of a group without real ages

Goal = dict[int, int] | None  # wanted pictures by group; None: as many as the largest group has
Stratum = tuple[int, str]  # age group, gender
Needs = dict[Stratum, int]  # pictures to be made


@dataclass(frozen=True)
class Planned:
    """One picture to be made.

    Attributes:
        index: of the source among the samples.
        group: the age group that it is made for.
        target_age: in years, a whole number in this group.
    """

    index: int
    group: int
    target_age: int


def parse_goal(text: str) -> Goal:
    """The value of `--to`: "uniform", "0-2=500,70+=500", or a csv with age_group and count.

    Raises:
        ConfigError: it is none of these, or the csv cannot be read.
    """
    if text.strip() == UNIFORM:
        return None
    if "=" in text:
        pairs = [part.partition("=")[::2] for part in text.split(",")]
    else:
        pairs = _read_pairs(Path(text))
    goal: dict[int, int] = {}
    for name, count in pairs:
        try:
            group, number = parse_group(name), int(count)
            if not 0 <= number <= MAX_COUNT:
                raise ValueError
        except (ValueError, AgeError) as error:
            reason = f" {error}" if isinstance(error, AgeError) else ""
            raise ConfigError(
                f"Cannot read {name}={count} of --to {text!r}.{reason}",
                'Write group=count, as in "0-2=500,70+=500".',
            ) from None
        if group in goal:
            raise ConfigError(
                f"--to {text!r} has the group {GROUP_NAMES[group]} twice.", "Give it once."
            )
        goal[group] = number
    return goal


def count_groups(samples: Iterable[Sample]) -> list[int]:
    """The number of samples of each of the ten age groups."""
    found = Counter(sample.group for sample in samples)
    return [found[group] for group in range(GROUPS)]


def wanted_counts(counts: Sequence[int], goal: Goal) -> list[int]:
    """The counts after balancing: a group is never reduced, and unchanged if not named."""
    if goal is None:
        return [max(counts)] * GROUPS
    return [max(count, goal.get(group, 0)) for group, count in enumerate(counts)]


def split_by_gender(samples: Sequence[Sample], wanted: Sequence[int]) -> Needs:
    """What each group lacks, split so that the shares of the genders in the group are kept.

    A group without real pictures gets the shares of the whole dataset.
    """
    everyone = Counter(sample.gender for sample in samples)
    needs: Needs = {}
    for group in range(GROUPS):
        own = Counter(sample.gender for sample in samples if sample.group == group)
        lacking = wanted[group] - own.total()
        if lacking > 0:
            for gender, count in _split(lacking, own or everyone).items():
                needs[group, gender] = count
    return needs


def plan_round(
    samples: Sequence[Sample],
    needs: Mapping[Stratum, int],
    tried: Collection[tuple[int, int]],
    made: Mapping[str, int],
    most: int,
    seed: int | Sequence[int],
) -> list[Planned]:
    """Sources and target ages for what is needed; fewer where there are too few sources.

    Of the sources of another group and of the same gender, the cheapest are taken. A source costs
    the years between its age and the group, and `USE_COST` for each picture that its person has
    already: near sources come first, and people are used evenly. The target ages are spread like
    the real ages of the group; the youngest source gets the lowest.

    Args:
        tried: pairs of source and group that are not planned again.
        made: pictures of each person (see `person_of`) that are kept already.
        most: of pictures of one person.
        seed: of the order among equally cheap sources, and of the target ages.
    """
    uses = Counter(made)
    planned = []
    for number, (group, gender) in enumerate(sorted(needs)):
        random = np.random.default_rng([*np.atleast_1d(seed), number])
        candidates = [
            index
            for index in random.permutation(len(samples)).tolist()
            if samples[index].gender == gender
            and samples[index].group != group
            and (index, group) not in tried
        ]
        count = needs[group, gender]
        chosen = _take_cheapest(samples, candidates, group, count, uses, most)
        chosen.sort(key=lambda index: (age_of(samples[index]), index))
        targets = _spread_targets(samples, group, len(chosen), random)
        planned += [Planned(index, group, age) for index, age in zip(chosen, targets, strict=True)]
    return planned


def check_sources(
    needs: Mapping[Stratum, int], planned: Iterable[Planned], samples: Sequence[Sample], most: int
) -> None:
    """Check that a first round could plan everything.

    Raises:
        ConfigError: there are too few sources for a group.
    """
    found = Counter((item.group, samples[item.index].gender) for item in planned)
    for (group, gender), need in needs.items():
        if found[group, gender] < need:
            who = {"M": " men and boys", "F": " women and girls"}.get(gender, " people")
            raise ConfigError(
                f"Only {found[group, gender]} of {need} pictures for {GROUP_NAMES[group]} can be "
                f"planned: there are too few{who} of other ages, with {most} pictures of each at "
                "most.",
                "Ask for less with --to, raise --max-per-person, or add photos.",
            )


def age_of(sample: Sample) -> float:
    """Its age in years; the middle of the group where only the group is known."""
    return sum(group_range(sample.group)) / 2 if sample.age is None else sample.age


def to_label(age: float) -> int:
    """A predicted age as a label: the nearest whole year, because the labels are whole years."""
    return math.floor(age + 0.5)


def name_of(sample: Sample) -> str:
    """Its file within the dataset, such as "train.zip/a.png"."""
    return f"{sample.zip}/{sample.file}" if sample.zip else sample.file


def person_of(sample: Sample) -> str:
    """The person's name in the dataset; a picture of an unknown person is one of its own."""
    return sample.person or name_of(sample)


def _take_cheapest(
    samples: Sequence[Sample],
    candidates: Sequence[int],
    group: int,
    count: int,
    uses: Counter[str],
    most: int,
) -> list[int]:
    """The cheapest candidates, of equal ones the first; `uses` is updated."""

    def cost(index: int) -> float:
        return _years_between(age_of(samples[index]), group) + USE_COST * uses[person(index)]

    def person(index: int) -> str:
        return person_of(samples[index])

    heap = [(cost(index), rank, index) for rank, index in enumerate(candidates)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        before, rank, index = heapq.heappop(heap)
        if uses[person(index)] >= most:
            continue
        if cost(index) > before:  # another picture of the person was taken meanwhile
            heapq.heappush(heap, (cost(index), rank, index))
            continue
        chosen.append(index)
        uses[person(index)] += 1
    return chosen


def _years_between(age: float, group: int) -> float:
    first, last = group_range(group)
    return max(first - age, age - last, 0.0)


def _spread_targets(
    samples: Sequence[Sample], group: int, count: int, random: np.random.Generator
) -> list[int]:
    """Whole years in ascending order, spread like the known ages of the group, else evenly."""
    known = sorted(s.age for s in samples if s.group == group and s.age is not None)
    first, last = group_range(group)
    pool = np.array(known or range(first, min(last, OLDEST) + 1))
    places = (np.arange(count) + random.random(count)) / max(count, 1)
    ages = pool[(places * len(pool)).astype(int)]
    return [int(np.clip(age, first, min(last, MAX_AGE))) for age in ages]


def _split(total: int, shares: Mapping[str, int]) -> dict[str, int]:
    """A number in parts that are proportional to the shares, by the largest remainders."""
    exact = {name: total * share / sum(shares.values()) for name, share in sorted(shares.items())}
    parts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: parts[name] - exact[name])
    for name in by_remainder[: total - sum(parts.values())]:
        parts[name] += 1
    return {name: part for name, part in parts.items() if part}


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    if path.suffix.lower() != ".csv" and not path.is_file():
        raise ConfigError(
            f"Cannot read --to {str(path)!r}.",
            'Write uniform, "0-2=500,70+=500", or a csv with the columns age_group and count.',
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [(row["age_group"], row["count"] or "") for row in csv.DictReader(file)]
    except KeyError as error:
        raise ConfigError(
            f"{path} has no column {error}.", "It needs the columns age_group and count."
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"Cannot read {path}: {error}.", "Save it as csv in UTF-8.") from None
