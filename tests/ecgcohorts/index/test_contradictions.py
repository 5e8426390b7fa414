"""Ids of strangers are found by sexes and ages that one person cannot have."""

import re

import numpy as np
import pytest

from ecgcohorts.errors import ContradictoryPatients
from ecgcohorts.index.contradictions import PatientCheck

MALE, FEMALE, UNKNOWN = 0, 1, -1
NO = float("nan")


def check(*patients: list[tuple[int, float, float]]) -> PatientCheck:
    """Check patients, each a list of (sex, age, days)."""
    rows = [row for patient in patients for row in patient]
    starts = np.cumsum([0, *map(len, patients)])[:-1]
    sex, age, days = zip(*rows, strict=True)
    return PatientCheck.of_columns(
        starts, np.array(sex, np.int8), np.array(age, np.float32), np.array(days, np.float64)
    )


@pytest.mark.parametrize(
    ("rows", "by_sex", "by_age"),
    [
        ([(MALE, 30, 0), (FEMALE, 80, 0)], 1, 1),
        ([(MALE, 30, 0), (FEMALE, 30, 10)], 1, 0),
        ([(MALE, 30, 0), (UNKNOWN, 80, 0)], 0, 1),
        ([(MALE, 30, 0), (MALE, 30, 9_000)], 0, 1),  # 25 years later of the same age
        ([(MALE, 30, NO), (MALE, 80, NO)], 0, 1),
        ([(MALE, 30, 0), (UNKNOWN, NO, 0), (FEMALE, NO, 1)], 1, 0),
        ([(MALE, 90, 0), (MALE, 40, 0)], 0, 1),
        # One person:
        ([(MALE, 30, 0), (MALE, 55, 9_000)], 0, 0),
        ([(MALE, 30, 0), (MALE, 32, 0)], 0, 0),  # rounded, or corrected later
        ([(MALE, 90, 0), (MALE, 90, 4_000)], 0, 0),  # 90 stands for any higher age
        ([(MALE, 80, 0), (MALE, 90, 8_000)], 0, 0),
        ([(MALE, 30, NO), (MALE, 60, NO)], 0, 0),
        ([(UNKNOWN, NO, NO), (UNKNOWN, NO, NO)], 0, 0),
        ([(MALE, 30, NO), (MALE, 80, 0)], 0, 0),  # nothing to compare: one has no date
    ],
)
def test_recordings_of_one_person_and_of_two(rows: list[tuple[int, float, float]], by_sex: int, by_age: int) -> None:
    other = [(FEMALE, 20, 0.0)]
    found = check(other, rows, other)
    assert (found.by_sex, found.by_age) == (by_sex, by_age)
    assert (found.repeated, found.contradicting) == (1, max(by_sex, by_age))


def test_neighbours_are_not_mixed_and_single_recordings_do_not_count() -> None:
    found = check([(MALE, 30, 0)], [(FEMALE, 80, 0)], [(MALE, 30, 0), (MALE, 30, 1)])
    assert (found.repeated, found.contradicting, found.fraction) == (1, 0, 0.0)
    assert PatientCheck.of_columns(np.zeros(0, np.int64), *[np.zeros(0)] * 3).repeated == 0  # type: ignore[list-item]


def test_the_largest_patients_are_counted_by_day() -> None:
    crowded = [(MALE, 30, day) for day in (0, 0.2, 0.9, 1.1, NO)]
    found = check([(MALE, 30, 5)], crowded, [(MALE, 30, NO)] * 2)
    assert [(one.recordings, one.days, one.most_a_day) for one in found.largest] == [(5, 2, 3), (2, 0, 0)]
    assert [str(one) for one in found.largest] == ["5 recordings on 2 days, up to 3 a day", "2 recordings, undated"]


def test_too_many_contradictions_are_refused_but_never_a_single_one() -> None:
    good, bad = [(MALE, 30, 0.0), (MALE, 30, 1.0)], [(MALE, 30, 0.0), (FEMALE, 80, 0.0)]
    check(bad).refuse(0.01, "SRC")
    check(*[bad] * 2, *[good] * 198).refuse(0.01, "SRC")  # exactly 1 %
    check(*[bad] * 2, *[good] * 8).refuse(0.2, "SRC")
    with pytest.raises(ContradictoryPatients, match=re.escape("SRC: found 2 of 199 patient ids")):
        check(*[bad] * 2, *[good] * 197).refuse(0.01, "SRC")


YEAR = 365.25


def test_one_age_a_patient_is_told_apart_from_strangers() -> None:
    """A common export: the age today beside every recording of ten years."""
    rng = np.random.default_rng(0)
    static = [[(MALE, age, day) for day in sorted(rng.uniform(0, 10 * YEAR, 5))] for age in range(30, 60)]
    found = check(*static)
    assert (found.repeated, found.contradicting, found.by_age) == (30, 0, 0)
    assert found.one_age == found.over_years > 25
    found.refuse(0.01, "SRC")
    assert f"ages: {found.one_age} of {found.over_years} patients are of one age" in str(found)
    assert "age_at" in str(found)
    # A few who grow older or are young change nothing; strangers under one id are still found.
    grown = [[(MALE, 30, 0.0), (MALE, 36, 6 * YEAR)], [(MALE, 90, 0.0), (MALE, 90, 6 * YEAR)]]
    assert check(*static, *grown).contradicting == 0
    strangers = [[(MALE, 30, 0.0), (FEMALE, 80, 1.0)]] * 3
    found = check(*static, *strangers)
    assert (found.contradicting, found.by_sex, found.by_age) == (3, 3, 3)
    with pytest.raises(ContradictoryPatients, match="found 3 of 33"):
        found.refuse(0.01, "SRC")


def test_ages_at_the_recording_are_no_such_export() -> None:
    grown = [[(MALE, age, 0.0), (MALE, age + 8, 8 * YEAR)] for age in range(30, 60)]
    kept = [(MALE, 40, 0.0), (MALE, 40, 8 * YEAR)]
    assert check(*grown).one_age == 0
    found = check(*grown, *[kept] * 5)
    assert (found.one_age, found.by_age, found.over_years) == (0, 5, 35)
    assert "ages:" not in str(found)


def strangers_of(n: int, seed: int = 0, with_age: bool = True) -> list[tuple[int, float, float]]:
    rng = np.random.default_rng(seed)
    ages = rng.integers(20, 85, n).tolist() if with_age else [NO] * n
    return [(int(rng.integers(0, 2)), age, float(day)) for age, day in zip(ages, rng.uniform(0, 900, n), strict=True)]


@pytest.mark.parametrize("with_age", [True, False])
def test_one_id_for_everybody_is_refused_although_it_is_one(with_age: bool) -> None:
    good = [[(MALE, 30, 0.0), (MALE, 30, 1.0)]] * 2000
    found = check(*good, strangers_of(300, with_age=with_age), *good)
    assert (found.contradicting, found.fraction < 0.01) == (1, True)
    [(n, odd)] = found.crowds
    assert n == 300
    assert odd > 100
    with pytest.raises(ContradictoryPatients, match="an id with 300 recordings, of which"):
        found.refuse(0.01, "SRC")
    found.refuse(1, "SRC")
    # Most of a small folder under one id.
    small = check(strangers_of(8, with_age=True), *[[(MALE, 40, 0.0)]] * 4)
    with pytest.raises(ContradictoryPatients, match="an id with 8 recordings"):
        small.refuse(0.01, "SRC")


def test_a_person_with_mistakes_is_no_crowd() -> None:
    good = [[(MALE, 30, 0.0), (MALE, 30, 1.0)]] * 200
    visits = [(FEMALE, 50 + day / YEAR, float(day)) for day in range(0, 3000, 30)]
    mistyped = [
        (MALE, age, day) if place in (3, 40) else (sex, age, day) for place, (sex, age, day) in enumerate(visits)
    ]
    born_twice = [(sex, age + 20 * (place in (5, 6, 7)), day) for place, (sex, age, day) in enumerate(visits)]
    changed = [(FEMALE if day < 1500 else MALE, age, day) for sex, age, day in visits]
    for one in (mistyped, born_twice, changed):
        found = check(*good, one)
        assert found.contradicting == 1
        assert found.crowds == ()
        found.refuse(0.01, "SRC")
    # One age beside 100 recordings of eight years, in a cohort where it is the only patient of years.
    found = check(*good, [(FEMALE, 50.0, day) for _, _, day in visits])
    assert found.crowds == ()
    found.refuse(0.01, "SRC")
