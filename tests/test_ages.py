import itertools
import math

import pytest

from faceage.ages import (
    GROUP_NAMES,
    GROUPS,
    KNOTS,
    MAX_AGE,
    MIN_AGE,
    check_age,
    format_age,
    group_of,
    group_range,
    parse_ages,
    parse_group,
)
from faceage.errors import AgeError


@pytest.mark.parametrize(
    ("texts", "ages"),
    [
        (["5"], [5]),
        (["5", "70"], [5, 70]),
        (["5,70"], [5, 70]),
        (["70, 5"], [70, 5]),  # in the given order
        (["37.5"], [37.5]),
        (["0", "100"], [0, 100]),
        (["20-23"], [20, 21, 22, 23]),
        (["10-80:10"], [10, 20, 30, 40, 50, 60, 70, 80]),
        (["10-35:10"], [10, 20, 30]),
        (["1-2:0.25"], [1, 1.25, 1.5, 1.75, 2]),
        (["0-1:0.1"], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        (["30-30"], [30]),
        (["5,70", "10-12,70", "5"], [5, 70, 10, 11, 12]),  # each once
    ],
)
def test_parse_ages(texts: list[str], ages: list[float]) -> None:
    assert parse_ages(texts) == ages


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-3", "-3"),
        ("500", "500"),
        ("100.5", "100.5"),
        ("abc", "'abc'"),
        ("", "''"),
        ("5,", "''"),
        ("5,,70", "''"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("30-20", "'30-20'"),
        ("20-30:0", "'20-30:0'"),
        ("20-500", "500"),
        ("0-100:0.001", "'0-100:0.001'"),
        ("20-", "'20-'"),
        ("20--30", "'20--30'"),
        ("20:30", "'20:30'"),
        ("5;70", "'5;70'"),
    ],
)
def test_invalid_ages(text: str, value: str) -> None:
    with pytest.raises(AgeError) as caught:
        parse_ages([text])
    assert value in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_too_many_ages() -> None:
    with pytest.raises(AgeError, match="203"):
        parse_ages(["0-100", "0.5-100:1", "0.25", "0.75"])


@pytest.mark.parametrize(
    ("age", "group"),
    [
        (0, 0), (2, 0), (2.9, 0), (3, 1), (6.99, 1), (7, 2), (10, 3), (14.5, 3), (15, 4),
        (19, 4), (20, 5), (30, 6), (40, 7), (50, 8), (69.9, 8), (70, 9), (100, 9), (-1, 0),
    ],
)  # fmt: skip
def test_group_of(age: float, group: int) -> None:
    assert group_of(age) == group


def test_groups_have_no_gaps() -> None:
    ranges = [group_range(group) for group in range(GROUPS)]
    assert (ranges[0][0], ranges[-1][1]) == (MIN_AGE, MAX_AGE)
    for (_, last), (first, _) in itertools.pairwise(ranges):
        assert first == last + 1
    assert group_range(5) == (20, 29)
    assert group_range(9) == (70, 100)


def test_group_names_match_their_ranges() -> None:
    for group, name in enumerate(GROUP_NAMES):
        assert parse_group(name) == group
        assert group_of(float(name.rstrip("+").split("-")[0])) == group
    assert parse_group("70-120") == 9
    assert parse_group(" 0-2 ") == 0
    with pytest.raises(AgeError, match="'20-30'"):
        parse_group("20-30")


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (0, "00"),
        (5, "05"),
        (70, "70"),
        (100, "100"),
        (5.0, "05"),
        (7.5, "07.5"),
        (12.5, "12.5"),
        (5.01, "05.01"),
        (0.25, "00.25"),
        (99.999999, "99.999999"),
    ],
)
def test_format_age(age: float, text: str) -> None:
    assert format_age(age) == text


def test_check_age() -> None:
    assert isinstance(check_age(5), float)
    for age in (-0.1, 100.1, math.nan, math.inf):
        with pytest.raises(AgeError, match="out of range"):
            check_age(age)


def test_knots_cover_all_ages() -> None:
    assert list(KNOTS) == sorted(set(KNOTS))
    assert (KNOTS[0], KNOTS[-1]) == (MIN_AGE, MAX_AGE)
