"""The plan of `faceage balance`: goals, shares of the genders, sources and target ages."""

from collections import Counter
from pathlib import Path

import pytest

from faceage.ages import GROUP_NAMES, group_of, group_range
from faceage.balance.plan import (
    check_sources,
    count_groups,
    parse_goal,
    person_of,
    plan_round,
    split_by_gender,
    to_label,
    wanted_counts,
)
from faceage.data.layouts import Sample
from faceage.errors import ConfigError


def make_samples(*people: tuple, gender: str = "", person: str = "") -> list[Sample]:
    """Samples of (age, count) with files of their own."""
    return [
        Sample(f"{gender}{age}-{i}.png", group_of(age), float(age), gender=gender, person=person)
        for age, count in people
        for i in range(count)
    ]


def plan(samples: list[Sample], needs: dict, tried=(), made=(), most: int = 4, seed: int = 0):
    return plan_round(samples, needs, tried, dict(made), most, seed)


def test_uniform_brings_every_group_to_the_largest_one() -> None:
    samples = make_samples((1, 3), (25, 7))
    counts = count_groups(samples)
    assert counts == [3, 0, 0, 0, 0, 7, 0, 0, 0, 0]
    assert wanted_counts(counts, parse_goal("uniform")) == [7] * 10


def test_named_groups_are_filled_and_no_group_is_reduced() -> None:
    goal = parse_goal("0-2=5, 20-29=2")
    assert wanted_counts([3, 0, 0, 0, 0, 7, 0, 0, 0, 1], goal) == [5, 0, 0, 0, 0, 7, 0, 0, 0, 1]


def test_a_csv_states_the_counts(tmp_path: Path) -> None:
    table = tmp_path / "goal.csv"
    table.write_text("age_group,count\n0-2,500\n70+,40\n")
    assert parse_goal(str(table)) == {0: 500, 9: 40}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-2=many", "0-2=many"),
        ("0-2=-1", "0-2=-1"),
        ("5-6=3", "Unknown age group '5-6'"),
        ("0-2=1,0-2=2", "twice"),
        ("evenly", "uniform"),
        ("missing.csv", "missing.csv"),
    ],
)
def test_unreadable_goals_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_goal(text)
    assert "\n" not in str(caught.value)


def test_a_csv_without_the_columns_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "goal.csv"
    table.write_text("group,number\n0-2,500\n")
    with pytest.raises(ConfigError, match="age_group"):
        parse_goal(str(table))


def test_shares_of_the_genders_of_a_group_are_kept() -> None:
    samples = make_samples((1, 3), gender="F") + make_samples((1, 1), (30, 96), gender="M")
    needs = split_by_gender(samples, wanted_counts(count_groups(samples), {0: 16, 9: 100}))
    assert needs == {(0, "F"): 9, (0, "M"): 3, (9, "F"): 3, (9, "M"): 97}  # 70+: of all


def test_shares_are_rounded_to_the_exact_total() -> None:
    samples = [*make_samples((1, 1), gender="F"), *make_samples((1, 1), gender="M")]
    samples += make_samples((1, 1))
    needs = split_by_gender(samples, wanted_counts(count_groups(samples), {0: 11}))
    assert sum(needs.values()) == 8
    assert sorted(needs.values()) == [2, 3, 3]


def test_nearest_sources_come_first() -> None:
    samples = make_samples((1, 2), (4, 3), (9, 3), (40, 3))
    planned = plan(samples, {(0, ""): 5})
    assert Counter(samples[item.index].age for item in planned) == {4: 3, 9: 2}
    assert {item.group for item in planned} == {0}


def test_sources_have_another_group_and_the_same_gender() -> None:
    samples = make_samples((1, 5), (4, 5), gender="F") + make_samples((4, 5), gender="M")
    planned = plan(samples, {(0, "F"): 9})
    assert {(samples[i.index].age, samples[i.index].gender) for i in planned} == {(4, "F")}
    assert len({item.index for item in planned}) == len(planned) == 5


def test_people_are_used_evenly() -> None:
    near = make_samples((4, 10), person="one person")
    samples = near + make_samples((10, 10))
    planned = plan(samples, {(0, ""): 6}, most=10)
    uses = Counter(person_of(samples[item.index]) for item in planned)
    assert uses["one person"] == 1  # a second picture costs more than the six years
    far = near + make_samples((40, 10))
    planned = plan(far, {(0, ""): 6}, most=10)
    assert Counter(person_of(far[i.index]) for i in planned)["one person"] == 4


def test_pictures_made_earlier_count_as_uses() -> None:
    samples = make_samples((4, 1), (10, 1))
    (planned,) = plan(samples, {(0, ""): 1}, made={person_of(samples[0]): 1})
    assert samples[planned.index].age == 10


def test_nobody_is_used_more_often_than_allowed() -> None:
    samples = make_samples((4, 10), person="one person")
    assert len(plan(samples, {(0, ""): 6}, most=3)) == 3
    needs = {(group, ""): 1 for group in (0, 2, 3, 4)}
    assert len(plan(make_samples((4, 1)), needs, most=3)) == 3


def test_sources_tried_before_are_left_out() -> None:
    samples = make_samples((4, 2), (9, 1))
    first = plan(samples, {(0, ""): 1})
    tried = {(item.index, 0) for item in first}
    again = plan(samples, {(0, ""): 3}, tried=tried)
    assert {item.index for item in again} == {0, 1, 2} - {first[0].index}


def test_target_ages_are_spread_like_the_real_ages() -> None:
    samples = make_samples((50, 20), (69, 20), (30, 200))
    ages = Counter(item.target_age for item in plan(samples, {(8, ""): 100}))
    assert ages == {50: 50, 69: 50}


def test_target_ages_of_an_empty_group_cover_it() -> None:
    samples = make_samples((40, 300))
    for group in (0, 8, 9):
        ages = Counter(item.target_age for item in plan(samples, {(group, ""): 200}))
        first, last = group_range(group)
        assert min(ages) == first
        assert max(ages) == min(last, 89)
        assert max(ages.values()) - min(ages.values()) <= 2, GROUP_NAMES[group]


def test_the_youngest_source_gets_the_lowest_target() -> None:
    samples = make_samples((3, 1), (9, 1), (25, 1), (45, 1))
    planned = plan(samples, {(8, ""): 4})
    by_age = sorted(planned, key=lambda item: samples[item.index].age)
    targets = [item.target_age for item in by_age]
    assert targets == sorted(targets)


def test_a_plan_depends_on_the_seed_alone() -> None:
    samples = make_samples((4, 50), (1, 20))
    needs = {(0, ""): 10}
    assert plan(samples, needs) == plan(samples, needs)
    assert plan(samples, needs, seed=1) != plan(samples, needs)


def test_a_plan_with_too_few_sources_is_refused() -> None:
    samples = make_samples((4, 3), gender="F") + make_samples((30, 20), gender="M")
    needs = {(0, "F"): 5, (0, "M"): 5}
    planned = plan(samples, needs)
    with pytest.raises(ConfigError, match="Only 3 of 5 pictures for 0-2") as caught:
        check_sources(needs, planned, samples, 4)
    assert "--max-per-person" in str(caught.value)
    check_sources({(0, "M"): 5}, planned, samples, 4)


def test_groups_are_known_where_ages_are_not() -> None:
    samples = [Sample("a.png", 5), Sample("b.png", 1)]
    (item,) = plan(samples, {(0, ""): 1})
    assert item.index == 1
    assert 0 <= item.target_age <= 2


def test_predicted_ages_become_the_nearest_whole_year() -> None:
    assert [to_label(age) for age in (2.49, 2.5, 29.6)] == [2, 3, 30]
