"""What files say around the signal, age and sex as they spell them. What cannot be understood is unknown, never guessed."""

from datetime import date, datetime
from typing import NamedTuple

from ecgcohorts.recording import Sex

DAYS_PER_YEAR = 365.25
OLDEST_YEARS = 130.0  # our default: what is beyond is a typing error
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


def sex_of(text: str) -> Sex | None:
    """`male`, `M`, `Female` ... in any case; None for everything else, such as `U` or `UN`."""
    return _SEXES.get(text.strip().casefold())


def age_in_years(age: float, unit: str) -> float | None:
    """Age in years from a number and its unit (`YEARS`, `months`, `D` ...); None without a known unit."""
    folded = unit.strip().casefold()
    years = age * _YEARS_PER_UNIT.get(_UNITS.get(folded, folded.removesuffix("s")), float("nan"))
    return plausible(years)


def age_between(born: date | None, acquired_at: datetime | None) -> float | None:
    """Age in years on the day of recording; None if either day is unknown."""
    if born is None or acquired_at is None:
        return None
    day = born.date() if isinstance(born, datetime) else born
    return plausible((acquired_at.date() - day).days / DAYS_PER_YEAR)


def plausible(years: float) -> float | None:
    """The age itself, or None for one that nobody has (NaN included)."""
    return years if 0 <= years <= OLDEST_YEARS else None
