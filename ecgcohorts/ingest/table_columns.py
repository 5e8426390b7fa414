"""Guess what the columns of a table mean, by their names, and check the guess against their values.

Values are health data and stay in this module. The only exception are codes of sex, which a person has to see to say what
they mean.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Self

from ecgcohorts.cohorts import values as cohort_values
from ecgcohorts.cohorts.files import SourceItem
from ecgcohorts.cohorts.schema import Table
from ecgcohorts.cohorts.tables import load_table
from ecgcohorts.errors import SourceError

Role = Literal["patient", "age", "sex", "acquired_at", "device", "site"]

# Column names as people write them, without spaces, signs and case. The first that fits is taken.
_NAMES: dict[Role, tuple[str, ...]] = {
    "patient": (
        "patientid", "patient", "subjectid", "subject", "personid", "person", "participantid", "participant", "eid",
        "mrn", "patid", "pid", "patientno", "patientnumber", "patientnr", "patnr", "subjectno", "caseid",
    ),
    "age": (
        "age", "ageyears", "ageinyears", "patientage", "ageatecg", "ageatexam", "ageatrecording", "agey", "alter",
        "edad", "idade", "agemonths", "ageinmonths", "ageweeks", "ageinweeks", "agedays", "ageindays",
    ),
    "sex": ("sex", "gender", "patientsex", "patientgender", "geschlecht", "sexo", "sexe", "ismale", "isfemale"),
    "acquired_at": (
        "acquiredat", "acquisitiondatetime", "acquisitiondate", "recordedat", "recorded", "recordingdatetime",
        "recordingdate", "ecgdatetime", "ecgtime", "ecgdate", "examdatetime", "examdate", "testdate", "studydate",
        "datetime", "timestamp", "date",
    ),
    "device": (
        "device", "devicename", "devicemodel", "acquisitiondevice", "machine", "ecgmachine", "recorder", "equipment",
        "model", "cart", "cartid",
    ),
    "site": ("site", "sitename", "siteid", "hospital", "centre", "center", "clinic", "institution", "location"),
}  # fmt: skip
_MALE = frozenset(
    ("m", "male", "man", "boy", "mann", "männlich", "maennlich", "homme", "masculino", "masculin", "hombre")
)
_FEMALE = frozenset(("f", "female", "woman", "girl", "w", "frau", "weiblich", "femme", "femenino", "feminino", "mujer"))
_NOTHING = frozenset(("", "nan", "na", "n/a", "none", "null", "unknown", "u", "-"))
# Our defaults. More codes, or longer ones, are no codes of sex and are never shown.
MAX_CODES, MAX_CODE = 6, 12
# Our default: the share of values that must be ages or dates in a column of that name.
MIN_MEANINGFUL = 0.5
# Our default: the share of recordings that a key must name. A column of small numbers names some by chance.
MIN_MATCHED = 0.1
# Our default: the share of different numbers in file names. With fewer, they number visits or persons.
MIN_DISTINCT = 0.75
VALUES_KEPT = 1000  # our default: of each column, for the checks above
KEYS_TRIED = 5

# First and last number of a file name: `00001_hr.hea` is recording 1 of a table.
_NUMBER_PATTERNS = (r"([0-9]+)[^/]*$", r"([0-9]+)[^/0-9]*$")
_DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d-%b-%Y")
_TIMES = ("", " %H:%M", " %H:%M:%S")
_TIME_FORMATS = (*(date + time for date in _DATES for time in _TIMES), "%Y%m%d%H%M%S")

_Way = tuple[Literal["path", "stem", "entry"], str | None]  # match and pattern of a Table


class Key(NamedTuple):
    """The column by which a table names the recordings."""

    column: str
    match: Literal["path", "stem", "entry"]
    pattern: str | None
    matched: int  # number of the sampled recordings that have a row

    @classmethod
    def find(cls, path: Path, items: Sequence[SourceItem]) -> "Key | None":
        """Find the column that names most of the recordings, each once. None if no column does.

        Raises SourceError for text that is no CSV.
        """
        candidates = _candidates(path, items)
        header = next(_rows(path), [])
        # A column with repeated values names patients or visits, not recordings.
        unique = _unique_columns(path, {header.index(key.column) for key in candidates})
        for key in candidates:
            if header.index(key.column) not in unique:
                continue
            table = Table(file=path.name, key=key.column, match=key.match, pattern=key.pattern)
            # Counted by the code that ingest uses, so that the draft promises only what ingest will find.
            loaded = load_table(table, (), path.parent, str(path.parent))
            matched = 0 if loaded is None else sum(loaded.row(item) is not None for item in items)
            if matched >= max(1, MIN_MATCHED * len(items)):
                return key._replace(matched=matched)
        return None


@dataclass(frozen=True)
class Columns:
    """The columns of a table, or of header texts, that say something about the recordings."""

    by_role: dict[Role, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict, repr=False)  # never printed

    @classmethod
    def guess(cls, values: dict[str, list[str]]) -> Self:
        """Give every role the first column whose name fits it and whose values make sense. values: some of each column."""
        folded: dict[str, str] = {}
        for name in values:
            folded.setdefault(_fold(name), name)
        found: dict[Role, str] = {}
        for role, candidates in _NAMES.items():
            fitting = (folded[name] for name in candidates if name in folded)
            chosen = next((name for name in fitting if _makes_sense(role, values[name])), None)
            if chosen is not None:
                found[role] = chosen
        return cls(found, values)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Guess the roles of a table's columns. Raises SourceError for text that is no CSV in UTF-8."""
        values: dict[str, list[str]] = {}
        for number, row in enumerate(_rows(path)):
            if number == 0:
                values = {name: [] for name in row}
                names = row
            elif number > VALUES_KEPT:
                break
            else:
                for name, cell in zip(names, row, strict=False):
                    values[name].append(cell)
        if len(values) < 2:
            raise SourceError(f"{path}: found no columns separated by commas, expected a CSV. Save it as one.")
        return cls.guess(values)

    def of(self, role: Role) -> list[str]:
        return self.values.get(self.by_role[role], [])

    @property
    def age_unit(self) -> str:
        """The unit in the name of the age column, years if there is none."""
        folded = _fold(self.by_role["age"])
        return next((unit for unit in ("months", "weeks", "days") if unit in folded), "years")

    def sex_codes(self, said: Mapping[str, str] | None = None) -> tuple[dict[str, str], list[str]]:
        """Return known codes of the sex column with their meaning, and codes whose meaning only a person can tell.

        said: meanings that are known from elsewhere, such as what the reader of a format makes of its codes. The values m, f, male and female need no code, so they are in neither.
        """
        column = _fold(self.by_role["sex"])
        folded = {cohort_values.plain(text).casefold() for text in self.of("sex")} - _NOTHING
        # More or longer values are free text, which may name a person: none of it is shown.
        if len(folded) > MAX_CODES or any(len(code) > MAX_CODE or not code.isalnum() for code in folded):
            return {}, []
        known: dict[str, str] = {}
        for code in sorted(folded):
            yes, no = ("female", "male") if column == "isfemale" else ("male", "female")
            if column in ("ismale", "isfemale") and code in ("true", "false", "1", "0", "yes", "no"):
                known[code] = yes if code in ("true", "1", "yes") else no
            elif said and code in said and cohort_values.sex(code) is None:
                known[code] = said[code]
            elif code in _MALE | _FEMALE and cohort_values.sex(code) is None:
                known[code] = "male" if code in _MALE else "female"
        return known, sorted(code for code in folded - set(known) if cohort_values.sex(code) is None)

    def time_formats(self) -> list[str]:
        """Return the formats that fit all times: [""] for ISO 8601, which needs none; several if they are ambiguous."""
        return _time_formats(self.of("acquired_at"))


def _time_formats(values: Iterable[str]) -> list[str]:
    # Formats such as day/month and month/day may both fit; then a person has to choose.
    texts = [text.strip() for text in values if text.strip().casefold() not in _NOTHING]
    if all(cohort_values.moment(text) is not None for text in texts):
        return [""]
    return [each for each in _TIME_FORMATS if all(_is_moment(text, each) for text in texts)]


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _makes_sense(role: Role, values: list[str]) -> bool:
    filled = [text for text in values if text.strip().casefold() not in _NOTHING]
    if not filled:
        return False
    if role == "age":
        meaningful = sum(cohort_values.number(text) == cohort_values.number(text) for text in filled)
    elif role == "acquired_at":
        meaningful = len(filled) if _time_formats(filled) else 0
    elif role == "sex":
        meaningful = len(filled) if len(set(filled)) <= MAX_CODES else 0
    else:
        return True
    return meaningful >= MIN_MEANINGFUL * len(filled)


def _is_moment(text: str, time_format: str) -> bool:
    try:
        datetime.strptime(text, time_format)
    except ValueError:
        return False
    return True


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from (row for row in csv.reader(file, strict=True) if row)
    except (UnicodeDecodeError, csv.Error):
        raise SourceError(f"{path}: this file is no CSV in UTF-8. Save it as one.") from None


def _candidates(path: Path, items: Sequence[SourceItem]) -> list[Key]:
    """Return columns by the number of recordings they seem to name; `Key.find` counts exactly."""
    wanted: dict[_Way, set[str]] = {}
    if any(item.entry for item in items):
        wanted[("entry", None)] = {cohort_values.plain(item.entry) for item in items}
    else:
        paths = [PurePosixPath(item.path) for item in items]
        wanted[("path", None)] = {text for each in paths for text in (str(each), str(each.with_suffix("")))}
        wanted[("stem", None)] = {text for each in paths for text in (cohort_values.plain(each.stem), each.name)}
        for pattern in _NUMBER_PATTERNS:
            numbers = (re.search(pattern, item.location) for item in items)
            keys = {cohort_values.plain(found.group(1)) for found in numbers if found}
            if len(keys) >= MIN_DISTINCT * len(items):
                wanted[("stem", pattern)] = keys
    hits: dict[tuple[int, _Way], set[str]] = defaultdict(set)
    rows = _rows(path)
    header = next(rows, [])
    for row in rows:
        for number, cell in enumerate(row[: len(header)]):
            key = cohort_values.plain(cell)
            for way, keys in wanted.items():
                if key in keys:
                    hits[(number, way)].add(key)
    order = list(wanted)
    ranked = sorted(hits.items(), key=lambda pair: (-len(pair[1]), order.index(pair[0][1]), pair[0][0]))
    return [Key(header[number], *way, len(keys)) for (number, way), keys in ranked[:KEYS_TRIED]]


def _unique_columns(path: Path, numbers: set[int]) -> set[int]:
    """Return those of the columns in which no value comes twice: no other can name recordings."""
    seen: dict[int, set[str]] = {number: set() for number in numbers}
    for row_number, row in enumerate(_rows(path)):
        for number in list(seen):
            key = cohort_values.plain(row[number]) if number < len(row) else ""
            if row_number and key in seen[number]:
                del seen[number]
            elif row_number:
                seen[number].add(key)
    return set(seen)
