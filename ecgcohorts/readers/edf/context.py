"""What an EDF header says about patient, time and filters.

Only EDF+ gives its two 80-byte fields a grammar. In plain EDF they are free text, and the patient field usually holds a
name, so nothing of it is taken. Of EDF+, names and the codes of hospital and staff are never taken.
"""

import re
from datetime import datetime

from ecgcohorts.readers._shared.people import NO_CLOCK, Context, age_of, known, moment, sex_of
from ecgcohorts.readers.edf.header import Header, Signal

MAINS_HZ = (50.0, 60.0)
FIRST_YEAR = 1985  # a two-digit year below 85 is of this century
NO_DATE = "01.01.85"  # written where the date was removed
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

_LONG_DATE = re.compile(r"([0-9]{2})-([A-Z]{3})-([0-9]{4})")
_SHORT_DATE = re.compile(r"([0-9]{2})\.([0-9]{2})\.([0-9]{2})")
_TIME = re.compile(r"([0-9]{2})[.:]([0-9]{2})[.:]([0-9]{2})")  # the specification has points, some writers colons
_FILTER = re.compile(r"\b(HP|LP|N|Notch):\s*([0-9]{1,6}(?:[.,][0-9]{1,6})?)\s*Hz", re.IGNORECASE)
_FILTER_NAMES = {"hp": "high-pass", "lp": "low-pass", "n": "AC filter", "notch": "AC filter"}


def read_context(header: Header, signals: tuple[Signal, ...]) -> Context:
    """Collect patient, time and filters of the signals that are read."""
    fields = _plus_fields(header) if header.kind else {}
    fields |= {"StartDate": header.start_date, "StartTime": header.start_time} if header.start_date else {}
    acquired_at = _acquired_at(header, fields.get("Startdate", ""))
    filters = _filters(signals)
    mains = [hz for hz in filters.get("AC filter", []) if hz in MAINS_HZ]
    age_years, notes = age_of(None, _long_date(fields.get("Birthdate", "")), acquired_at)
    if acquired_at is not None and not _TIME.fullmatch(header.start_time):
        notes += (NO_CLOCK,)
    return Context(
        patient_id=known(fields.get("PatientCode")),
        age_years=age_years,
        sex=sex_of(fields.get("Sex", "")),
        acquired_at=acquired_at,
        device=None,
        site=None,
        mains_hz=mains[0] if len(mains) == 1 else None,
        fields=fields,
        notes=(*(f"{name} {' and '.join(f'{hz:g}' for hz in found)} Hz" for name, found in filters.items()), *notes),
    )


def _plus_fields(header: Header) -> dict[str, str]:
    """Split the subfields of EDF+: code, sex and birth date of the patient, start date with its full year. X is unknown."""
    recording = header.recording.split(" ")
    found = dict(zip(("PatientCode", "Sex", "Birthdate"), _patient(header.patient.split(" ")), strict=False))
    if len(recording) >= 2 and recording[0] == "Startdate":
        found["Startdate"] = recording[1]
    return {key: text for key, text in found.items() if text and text != "X"}


def _patient(parts: list[str]) -> list[str]:
    """Return code, sex and birth date, each empty if it is left out; nothing of a text that is not of this grammar."""
    if len(parts) >= 4:  # code, sex, birth date, name
        return parts[:3]
    if len(parts) > 1 and _long_date(parts[1]):
        parts = ["", *parts] if _is_sex(parts[0]) else [parts[0], "", *parts[1:]]
    code, sex, born = (*parts, "", "", "")[:3]
    # Alone, a code can be told from a name by its digits only.
    if not (_is_sex(sex) or _long_date(born) or (len(parts) == 1 and re.search("[0-9]", code))):
        return []
    return [code, sex, born if _long_date(born) else ""]


def _is_sex(text: str) -> bool:
    return text == "X" or sex_of(text) is not None


def _acquired_at(header: Header, startdate: str) -> datetime | None:
    """Return the start; None where the date was removed. The four-digit year of EDF+ takes precedence."""
    time, short = _TIME.fullmatch(header.start_time), _SHORT_DATE.fullmatch(header.start_date)
    clock = time.groups() if time else ()
    day = _long_date(startdate)
    if day is not None:
        return moment(day.year, day.month, day.day, *clock)
    if short is None or header.start_date == NO_DATE:
        return None
    year = FIRST_YEAR // 100 * 100 + int(short[3])
    return moment(year if year >= FIRST_YEAR else year + 100, short[2], short[1], *clock)


def _long_date(text: str) -> datetime | None:
    """Parse a day such as 02-MAR-2002."""
    found = _LONG_DATE.fullmatch(text.upper())
    # Month names are matched here: strptime would read those of the machine's language.
    if found is None or found[2] not in _MONTHS:
        return None
    return moment(found[3], _MONTHS.index(found[2]) + 1, found[1])


def _filters(signals: tuple[Signal, ...]) -> dict[str, list[float]]:
    """Map kinds of filter to frequencies in Hz, from prefiltering texts such as `HP:0.05Hz LP:150Hz N:50Hz`."""
    found: dict[str, set[float]] = {}
    for text in {signal.prefilter for signal in signals}:
        for kind, written in _FILTER.findall(text):
            if hz := float(written.replace(",", ".")):
                found.setdefault(_FILTER_NAMES[kind.casefold()], set()).add(hz)
    return {name: sorted(found[name]) for name in dict.fromkeys(_FILTER_NAMES.values()) if name in found}
