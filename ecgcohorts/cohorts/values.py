"""Turn texts of headers and tables into ages, sexes and times. Unknown is None or NaN, never a guess."""

import math
import re
from collections.abc import Mapping
from datetime import datetime

from ecgcohorts.recording import Sex

AGE_CAP_YEARS = 90.0  # ages above 89 identify: HIPAA safe harbour, 45 CFR 164.514(b)(2)(i)(C)
AGE_LIMIT_YEARS = 130.0  # our default: nobody has been older than 122, so more is a code or a mistake
YEARS_PER_UNIT = {"years": 1.0, "months": 1 / 12, "weeks": 7 / 365.25, "days": 1 / 365.25}

_SEXES: dict[str, Sex] = {"m": "male", "male": "male", "f": "female", "female": "female"}
_WHOLE = re.compile(r"^0*(\d+)(?:\.0*)?$")


def plain(text: str) -> str:
    """Strip a text, and a whole number of leading zeros and an empty fraction, so that 7, 7.0 and 007 agree.

    >>> plain(" 15709.0 "), plain("007"), plain("s0010_re")
    ('15709', '7', 's0010_re')
    """
    stripped = text.strip()
    whole = _WHOLE.match(stripped)
    return whole.group(1) if whole else stripped


def id_text(text: str) -> str:
    """Return an id as printed, except that a float loses its empty fraction. Leading zeros are part of an id.

    >>> id_text("15709.0"), id_text("007")
    ('15709', '007')
    """
    return re.sub(r"^(\d+)\.0*$", r"\1", text.strip())


def number(text: str) -> float:
    """Parse a finite number; NaN for anything else."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def age_years(text: str, unit: str = "years", codes: Mapping[str, float] | None = None) -> float:
    """Parse an age in years, capped at 90; NaN if unknown, negative or above 130. codes: values that stand for an age.

    >>> age_years("57.0"), age_years("300", codes={"300": 90.0}), age_years("NaN")
    (57.0, 90.0, nan)
    """
    # Codes come first: PTB-XL writes 300 for "over 89", which would be no age.
    by_code = {plain(code): years for code, years in (codes or {}).items()}
    years = by_code.get(plain(text))
    if years is None:
        years = number(text) * YEARS_PER_UNIT[unit]
    return min(years, AGE_CAP_YEARS) if 0 <= years <= AGE_LIMIT_YEARS else math.nan


def sex(text: str, codes: Mapping[str, Sex] | None = None) -> Sex | None:
    """Understand the cohort's own codes, and m, f, male, female in any case; None for anything else."""
    folded = plain(text).casefold()
    own = {plain(code).casefold(): value for code, value in (codes or {}).items()}
    return own.get(folded) or _SEXES.get(folded)


def moment(text: str, time_format: str | None = None) -> datetime | None:
    """Parse a wall-clock time by `time_format` (strptime) or ISO 8601. A zone is dropped: most sources have none."""
    stripped = text.strip()
    try:
        found = datetime.strptime(stripped, time_format) if time_format else datetime.fromisoformat(stripped)
    except ValueError:
        return None
    return found.replace(tzinfo=None)
