"""Patient facts as files spell them: id, age, sex, dates. What cannot be understood is unknown, never guessed."""

import re
from datetime import date, datetime
from typing import Any, NamedTuple

from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.recording import Sex

DAYS_PER_YEAR = 365.25
OLDEST_YEARS = 130.0  # our default: more is a typing error
# Dates that programs put in place of no date: the first day of their calendar (spreadsheets, databases).
_FILLERS = {date(1899, 12, 30), date(1899, 12, 31), date(1900, 1, 1)}
_FILLED_YEARS = 105.0  # a stated age above this beside such a date was computed from it; our default
_APART_YEARS = 1.5  # a stated age is whole years; half a year of rounding beside that is our default
AGES_DIFFER = "age by birth date differs from reported age"
NO_BIRTH = "birth date that gives no age, not used"
NO_CLOCK = "time of day not understood, midnight taken"
_YEARS_PER_UNIT = {
    "year": 1.0,
    "month": 1 / 12,
    "week": 7 / DAYS_PER_YEAR,
    "day": 1 / DAYS_PER_YEAR,
    "hour": 1 / 24 / DAYS_PER_YEAR,
}
_UNITS = {
    "y": "year",
    "yr": "year",
    "a": "year",
    "mo": "month",
    "m": "month",
    "w": "week",
    "wk": "week",
    "d": "day",
    "h": "hour",
}
# `U`, `UN`, `O` and codes that a cohort explains are not understood here: the cohort's description maps them.
_SEXES: dict[str, Sex] = {"male": "male", "m": "male", "female": "female", "f": "female"}


class Context(NamedTuple):
    """The facts of a recording beside its signal, named as in `Recording`."""

    patient_id: str | None
    age_years: float | None
    sex: Sex | None
    acquired_at: datetime | None
    device: str | None
    site: str | None
    mains_hz: float | None
    fields: dict[str, str]
    notes: tuple[str, ...]

    def facts(self, *notes: str) -> dict[str, Any]:
        """Return these facts as arguments of `Recording`, with the given notes before its own."""
        return self._asdict() | {"notes": (*notes, *self.notes)}


def known(text: str | None) -> str | None:
    """Return an id, or None for a placeholder such as `0000`: one person made of many strangers is worse than none."""
    # De-identified files keep one such text in place of every id (XXXX in Philips); hashed like an id, it would make
    # one patient of all of them, and every pair of their ECGs a positive one.
    return None if is_placeholder(text) else text


def sex_of(text: str) -> Sex | None:
    """Understand `male`, `M`, `Female` ... in any case; everything else, such as `U` or `UN`, is None."""
    return _SEXES.get(text.strip().casefold())


def age_in_years(age: float, unit: str) -> float | None:
    """Convert an age and its unit (`YEARS`, `months`, `D` ...) to years; None without a known unit."""
    folded = unit.strip().casefold()
    # NaN for an unknown unit: no unit is guessed.
    years = age * _YEARS_PER_UNIT.get(_UNITS.get(folded, folded.removesuffix("s")), float("nan"))
    return _plausible(years)


def stated_age(text: str, unit: str) -> float | None:
    """Return an age written as a whole number, in years; None without a known unit, which is not guessed."""
    return age_in_years(int(text), unit) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _age_between(born: date | None, acquired_at: datetime | None) -> float | None:
    """Compute the age in years on the day of recording; None if either day is unknown, or the birth date a filler."""
    if born is None or acquired_at is None or date(*born.timetuple()[:3]) in _FILLERS:
        return None
    return _plausible(_years(born, acquired_at))


def age_of(
    stated: float | None, born: datetime | None, acquired_at: datetime | None, by_birth: bool = False
) -> tuple[float | None, tuple[str, ...]]:
    """Return the age in years on the day of recording, and notes about dates that contradict it.

    stated: as the file says. It counts before the birth date, unless `by_birth`; where one is unknown, the other does.
    """
    if born is None:
        return stated, ()
    computed = _age_between(born, acquired_at)
    if computed is None:
        is_filler = born.date() in _FILLERS
        # Machines compute the stated age from the same date: 116 years in 2016, and 90 in 1990.
        by_filler = _FILLED_YEARS if acquired_at is None else _years(born, acquired_at) - _APART_YEARS
        repeated = is_filler and stated is not None and stated >= by_filler
        return None if repeated else stated, (NO_BIRTH,) if is_filler or acquired_at is not None else ()
    apart = stated is not None and abs(stated - computed) > _APART_YEARS
    return computed if by_birth or stated is None else stated, (AGES_DIFFER,) if apart else ()


def _years(born: date, acquired_at: date) -> float:
    """Return the years between two days, whatever their times of day."""
    days = date(*acquired_at.timetuple()[:3]) - date(*born.timetuple()[:3])
    return days.days / DAYS_PER_YEAR


def moment(*parts: str | int | None) -> datetime | None:
    """Make a moment of year, month, day and perhaps hour, minute, second; None if there is no such moment."""
    try:
        return datetime(*[int(part or 0) for part in parts])  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None


def _plausible(years: float) -> float | None:
    """Return the age, or None for one that nobody has. NaN fails the comparison, too."""
    return years if 0 <= years <= OLDEST_YEARS else None
