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
