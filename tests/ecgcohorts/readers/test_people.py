"""Age and birth date: which counts, which is nobody's, and a note where they contradict each other."""

from datetime import datetime
from typing import Any

import pytest

from ecgcohorts.readers._shared.people import AGES_DIFFER, NO_BIRTH, age_of

DAY = datetime(2016, 3, 25, 11, 18)


@pytest.mark.parametrize(
    ("stated", "born", "years", "notes"),
    [
        (60.0, None, 60.0, ()),
        (None, None, None, ()),
        (None, datetime(1956, 3, 25), 60.0, ()),
        (60.0, datetime(1955, 12, 5), 60.0, ()),  # 60.3
        (60.0, datetime(1956, 12, 5), 60.0, ()),  # 59.3, rounded
        (61.0, datetime(1956, 3, 25), 61.0, ()),
        (60.0, datetime(1950, 3, 25), 60.0, (AGES_DIFFER,)),
        (6.0, datetime(1956, 3, 25), 6.0, (AGES_DIFFER,)),
        (None, datetime(1900, 1, 1), None, (NO_BIRTH,)),
        (None, datetime(1899, 12, 30), None, (NO_BIRTH,)),
        (116.0, datetime(1900, 1, 1), None, (NO_BIRTH,)),  # computed from it
        (60.0, datetime(1900, 1, 1), 60.0, (NO_BIRTH,)),
        (None, datetime(1900, 1, 2), 116.2, ()),
        (None, datetime(1753, 1, 1), None, (NO_BIRTH,)),
        (None, datetime(2020, 1, 1), None, (NO_BIRTH,)),
        (60.0, datetime(2020, 1, 1), 60.0, (NO_BIRTH,)),
    ],
)
def test_the_age_of_a_person(stated: float | None, born: datetime | None, years: float | None, notes: Any) -> None:
    found, said = age_of(stated, born, DAY)
    assert found == (None if years is None else pytest.approx(years, abs=0.03))
    assert said == notes


def test_without_a_day_of_recording() -> None:
    assert age_of(60.0, datetime(1956, 3, 25), None) == (60.0, ())
    assert age_of(None, datetime(1956, 3, 25), None) == (None, ())
    assert age_of(116.0, datetime(1900, 1, 1), None) == (None, (NO_BIRTH,))
    assert age_of(60.0, datetime(1900, 1, 1), None) == (60.0, (NO_BIRTH,))


def test_the_birth_date_may_count_first() -> None:
    assert age_of(60.0, datetime(1950, 3, 25), DAY, by_birth=True)[0] == pytest.approx(66, abs=0.01)
    assert age_of(60.0, datetime(1900, 1, 1), DAY, by_birth=True)[0] == 60.0
