"""The parts of a cohort's description: where its files are, and where each fact about a recording stands.

A rule (`patient`, `age` ...) is a list of `Where`, tried in turn: the first whose value means something wins, and an
empty list says "never known". A single one needs no list. `spec.CohortSpec` puts the parts together.
"""

import ast
import math
import re
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)  # fmt: skip

from ecgcohorts.cohorts.values import id_text, number, plain
from ecgcohorts.io.globs import any_of
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.recording import Sex
from ecgcohorts.sources.names import fault_of

MAX_CODES_CHARS = 10_000  # our default; the longest scp_codes text of PTB-XL has about 150
SEPARATOR = ",;+"  # characters between the codes of a list, unless a label names its own
_TRUTH = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


class Frozen(BaseModel):
    """Base of all parts: immutable, and an unknown key is an error."""

    # Numbers become texts: in YAML an id, a code or a key may stand without quotes.
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)
    # Keys that came after the first stores were made. Left out where they say nothing new, so that a store still knows
    # the description it was made with by its digest.
    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        dumped: dict[str, Any] = handler(self)
        unused = {
            name for name in self.LATER if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        }
        return {name: value for name, value in dumped.items() if name not in unused}


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"found a pattern that is not a regular expression ({error})") from None
    return text


def _regex_with_group(text: str) -> str:
    if re.compile(_regex(text)).groups < 1:
        raise ValueError("found a pattern without a group, expected one in brackets around the value")
    return text


def _below(path: str) -> str:
    # A description may come from a stranger, and what stands in a table is shown in messages.
    if fault := fault_of(path.removeprefix("./")):
        raise ValueError(f"found {fault}, expected a path below SRC")
    return path.removeprefix("./")


def _mains(value: Any) -> Any:
    if value not in (None, "auto", 50, 60):
        raise ValueError(f"found mains frequency {value!r:.20}, expected 50, 60, auto or null")
    return value


# One place needs no list: `patient: {column: id}`.
def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)]  # becomes a folder or column name
Pattern = Annotated[str, AfterValidator(_regex)]
Mains = Annotated[float | Literal["auto"] | None, BeforeValidator(_mains)]
Sentinel = Literal["missing", "clipping"]
LISTED = "listed"  # the one column of a table that is a bare list


class Where(Frozen):
    """Where a value may stand: exactly one of header, column, path, reader, constant."""

    LATER = frozenset({"pattern", "optional", "fillers", "usual_fillers"})

    header: str | None = None  # key of the file's own header text (Recording.fields); case does not matter
    column: str | None = None  # column of a table
    table: str | None = None  # name of that table, where there are several
    path: Annotated[str, AfterValidator(_regex_with_group)] | None = None  # searched in "path" or "path#entry"
    reader: bool = False  # what the reader itself understood, e.g. Recording.patient_id
    constant: str | None = None  # the same for all recordings
    # Searched in the text of a header or column, whose value is the first group: `572d`, `'Female'`.
    pattern: Annotated[str, AfterValidator(_regex_with_group)] | None = None
    optional: bool = False  # the column may be missing: some releases or extracts of a table have fewer
    fillers: tuple[str, ...] = ()  # texts that mean "nothing" here, in any case: the next place is asked
    usual_fillers: bool = True  # false, for `patient` only: 0000, UNKNOWN ... are ids of this cohort

    @model_validator(mode="after")
    def _exactly_one(self) -> "Where":
        given = [name for name in ("header", "column", "path", "constant") if getattr(self, name) is not None]
        given += ["reader"] * self.reader
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of header, column, path, reader, constant: give one"
            )
        if self.table is not None and self.column is None:
            raise ValueError("found table without column: name the column of that table")
        if self.optional and self.column is None:
            raise ValueError("found optional without column: only a column must be there otherwise")
        if self.pattern is not None and self.header is None and self.column is None:
            raise ValueError("found pattern without header or column: it is searched in the text of one")
        if not self.usual_fillers and self.reader:
            # Readers leave such ids out already.
            raise ValueError("found usual_fillers: false with reader: name the header or column in which the id stands")
        return self

    def is_filler(self, text: str) -> bool:
        """Tell whether the description says that this text means nothing."""
        return bool(self.fillers) and id_text(text).casefold() in {id_text(one).casefold() for one in self.fillers}


Rule = Annotated[tuple[Where, ...], BeforeValidator(_listed, json_schema_input_type=Where | list[Where])]
FROM_READER = (Where(reader=True),)


class Label(Frozen):
    """One numeric label column, NaN where the value is absent or means nothing.

    With `codes`: 1 if the value (a list "a,b" or a Python dict as text) holds one of them, else 0; `separator` holds the
    characters between the parts of a list, and with `prefix` a code stands for everything that begins with it.
    With `values`: the number of a text. Otherwise the text is read as a number or as true/false, yes/no.
    """

    LATER = frozenset({"separator", "prefix", "missing", "measured"})

    find: Rule
    codes: tuple[str, ...] = ()
    separator: Annotated[str, Field(min_length=1)] = SEPARATOR
    prefix: bool = False  # I48 is found in I48.0 and I4891
    values: dict[str, float] = Field(default_factory=dict)
    missing: tuple[str, ...] = ()  # texts that mean "not known", e.g. 29999
    # Some tables write 0 where nobody measured: the label is then known only where this place says something.
    measured: Rule = ()

    @model_validator(mode="after")
    def _one_meaning(self) -> "Label":
        if self.codes and self.values:
            raise ValueError("found codes and values: give one")
        if not self.codes and (self.prefix or self.separator != SEPARATOR):
            raise ValueError("found separator or prefix without codes: they are about a list of codes")
        if not self.find or any(place.reader for place in (*self.find, *self.measured)):
            raise ValueError("expected a header, column, path or constant to find the label in")
        return self

    def number(self, text: str) -> float:
        """Return what a text says: presence of a code, a named value, a truth value or a number; NaN if none of these."""
        if self.missing and plain(text).casefold() in {plain(one).casefold() for one in self.missing}:
            return math.nan
        if self.codes:
            found = _codes_in(text, self.separator)
            if found is None:
                return math.nan
            if self.prefix:
                return float(any(code.startswith(self.codes) for code in found))
            return float(not found.isdisjoint(self.codes))
        if self.values:
            by_text = {plain(name).casefold(): value for name, value in self.values.items()}
            return by_text.get(plain(text).casefold(), math.nan)
        return _TRUTH.get(text.strip().casefold(), number(text))


@lru_cache(maxsize=1024)  # a recording has one such text and several labels ask for it
def _codes_in(text: str, separator: str = SEPARATOR) -> frozenset[str] | None:
    """Split a list such as `426783006,164889003`, or a Python dict or list as text, into codes; None if it says nothing.

    A code with modifiers, `50+346`, counts as that code and as its modifiers. Quotes around a code are no part of it.

    >>> sorted(_codes_in("{'NORM': 100.0, 'SR': 0.0}")), sorted(_codes_in("'C22';'A1'")), _codes_in(" | ", "|")
    (['NORM', 'SR'], ['A1', 'C22'], None)
    """
    stripped = text.strip()
    # PTB-XL prints a Python dict. literal_eval builds literals only, and of a text this short.
    if stripped[:1] in ("{", "["):
        if len(stripped) > MAX_CODES_CHARS:
            return None
        try:
            parsed = ast.literal_eval(stripped)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
        return frozenset(str(code).strip() for code in parsed)
    parts = re.split(f"[{re.escape(separator)}]", stripped)
    found = frozenset(part.strip().strip("'\"").strip() for part in parts) - {""}
    return found if {code.casefold() for code in found} - {"nan", "unknown", "none", "n/a"} else None


class Files(Frozen):
    """Which files are recordings: globs over the path below SRC; `**/` is any folder or none."""

    LATER = frozenset({"exclude_entries"})

    include: tuple[str, ...] = Field(min_length=1)
    exclude: tuple[str, ...] = ()
    exclude_entries: tuple[str, ...] = ()  # of files with many recordings: fillers, e.g. the exam 0 of CODE-15%

    def pattern(self) -> re.Pattern[str]:
        """Compile a pattern that fully matches the paths that an include glob fits and no exclude glob does."""
        include = any_of(self.include).pattern
        return re.compile(f"(?!(?:{any_of(self.exclude).pattern})\\Z){include}" if self.exclude else include, re.DOTALL)


class Table(Frozen):
    """A CSV beside the recordings. `key` is its column that names the recording; `match` says by what.

    path: the path below SRC without suffix; stem: the file name without suffix; entry: the entry inside a
    multi-record file; row: the number of the entry, by row order (no key); or `pattern`, whose first group in the
    path is the key; or `by`, a rule that finds the key in a header or in a table before this one.
    Whole numbers match however they are printed (`7`, `7.0`, `007`).
    With `listed` the file is no CSV but a bare list of keys, one a line; each has that text in the column `listed`.
    """

    LATER = frozenset({"key_pattern", "by", "separator", "sheet", "repeated", "rows", "group"})

    name: str = "table"
    file: Annotated[
        str, AfterValidator(_below)
    ]  # path below SRC; a name ending in .gz is unpacked, one ending in .xlsx is a workbook
    key: str | None = None
    key_pattern: Annotated[str, AfterValidator(_regex_with_group)] | None = None  # its group in a key cell is the key
    match: Literal["path", "stem", "entry", "row"] = "stem"
    pattern: Annotated[str, AfterValidator(_regex_with_group)] | None = None
    by: Rule = ()
    # match: row, where rows of several files stand in one table: the column that names the file's group of rows. The
    # first group of `pattern` is what it says there.
    group: str | None = None
    # Some releases grade recordings by listing their names in a file for each grade.
    listed: str | None = None
    separator: Literal[",", ";", "|", "tab"] = ","
    sheet: str | None = None  # of a workbook; the first if not named
    repeated: bool = False  # a key may stand in several rows: a cell in which they differ counts as empty
    rows: Annotated[int, Field(ge=0)] | None = None  # any other number of rows is refused
    required: bool = True

    @model_validator(mode="after")
    def _one_way_to_match(self) -> "Table":
        if (self.match == "row") + (self.key is not None) + (self.listed is not None) != 1:
            raise ValueError("expected exactly one of a key column, match: row, and listed")
        if self.group is not None and (self.match != "row" or self.pattern is None):
            raise ValueError("found group without match: row and a pattern: it is about rows of several files")
        if self.by and (self.pattern is not None or self.match != "stem"):
            raise ValueError("found by beside match or pattern: give one way to find the key")
        if any(place.reader for place in self.by):
            raise ValueError("expected a header, column, path or constant to find the key in")
        return self

    @property
    def is_workbook(self) -> bool:
        return self.file.casefold().endswith(".xlsx")


class Windows(Frozen):
    """Which parts of a long recording are recordings of the store, each under an id of its own.

    Without this, a recipe takes the first stretch that it can use. Windows that a recording has no samples for are left
    out; a recording of less than one window is one.
    """

    NAME: ClassVar[re.Pattern[str]] = re.compile(r"@(\d+(?:\.\d+)?)\+(\d+(?:\.\d+)?)s\Z")  # start and length

    length_s: Annotated[float, Field(gt=0)]
    starts_s: tuple[Annotated[float, Field(ge=0)], ...] = ()  # chosen ones
    every_s: Annotated[float, Field(gt=0)] | None = None  # from the start to the end
    at_most: Annotated[int, Field(gt=0)] | None = None  # windows of one recording, the first of them

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> "Windows":
        if bool(self.starts_s) == (self.every_s is not None):
            raise ValueError("expected starts_s or every_s: the start of each window, or the time from one to the next")
        if len(set(self.starts_s)) < len(self.starts_s):
            raise ValueError("found one start twice in starts_s")
        return self

    @classmethod
    def named(cls, entry: str) -> str:
        """Return the end of an entry that names a window.

        >>> Windows.named("7@60+10s"), Windows.named("@2.5+10s"), Windows.named("a@b")
        ('@60+10s', '@2.5+10s', '')
        """
        # Asked for every recording of a scan, few of which have windows.
        found = cls.NAME.search(entry) if "@" in entry else None
        return found[0] if found else ""


class Layout(Frozen):
    """One published arrangement of the files, and where each fact stands in it."""

    LATER = frozenset({"windows", "age_at"})

    name: str = "files"
    reader: str  # a reader of `ecgcohorts formats`
    files: Files
    # A collection may hold the same recordings twice, as text and as WFDB; only one of the two may be read.
    fallback: bool = False  # used only where no other layout finds files: a copy of the same recordings
    arrays: ArrayDescription | None = None  # with the reader `arrays`, where no manifest lies beside the files
    windows: Windows | None = None  # of long recordings
    tables: tuple[Table, ...] = ()
    recording: Rule = ()  # empty: the path below SRC, which is unique
    patient: Rule = FROM_READER
    age: Rule = FROM_READER
    age_unit: Literal["years", "months", "weeks", "days"] = "years"
    age_codes: dict[str, float] = Field(default_factory=dict)  # e.g. {"300": 90}: codes that are no ages
    # The date or year to which `age` belongs, if that is not the recording's: the years between are added. A date of
    # birth is that of `age: {constant: 0}`.
    age_at: Rule = ()
    sex: Rule = FROM_READER
    sex_codes: dict[str, Sex] = Field(default_factory=dict)  # beside m, f, male, female in any case
    acquired_at: Rule = FROM_READER
    time_format: str | None = None  # strptime; None: ISO 8601
    device: Rule = FROM_READER
    site: Rule = FROM_READER
    labels: dict[Name, Label] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _only_ids_have_usual_fillers(self) -> "Layout":
        if any(not place.usual_fillers for place in self.looked_at() if place not in self.patient):
            raise ValueError("found usual_fillers outside of patient: remove it there, where no such rule applies")
        return self

    @model_validator(mode="after")
    def _arrays_have_their_reader(self) -> "Layout":
        if self.arrays is not None and self.reader != "arrays":
            raise ValueError(f"found arrays with the reader {self.reader}, expected the reader arrays")
        return self

    @model_validator(mode="after")
    def _tables_exist(self) -> "Layout":
        names = [table.name for table in self.tables]
        if len(set(names)) < len(names):
            raise ValueError("found two tables of one name: give each its own name")
        for at, table in enumerate(self.tables):
            for place in table.by:
                if place.column is not None and place.table not in names[:at]:
                    raise ValueError(f"found table {place.table} in by of {table.name}, expected one before it")
        for place in self.looked_at():
            if place.column is None:
                continue
            if place.table is None and len(names) != 1:
                raise ValueError(f"found column {place.column} and {len(names)} tables: say which table")
            if place.table is not None and place.table not in names:
                raise ValueError(f"found table {place.table}, expected one of {', '.join(names) or 'none'}")
            table = self.tables[names.index(place.table)] if place.table is not None else self.tables[0]
            if table.listed is not None and place.column != LISTED:
                raise ValueError(f"found column {place.column} of the list {table.name}, which has only {LISTED}")
        return self

    def rules(self) -> dict[str, Rule]:
        """Return where each fact is looked for, by its name."""
        facts = ("recording", "patient", "age", "sex", "acquired_at", "device", "site", "age_at")
        rules: dict[str, Rule] = {name: getattr(self, name) for name in facts}
        rules |= {f"the rows of {table.name}": table.by for table in self.tables}
        return rules | {f"label {name}": (*label.find, *label.measured) for name, label in self.labels.items()}

    def looked_at(self) -> list[Where]:
        """List everything that the rules of this layout look at."""
        return [place for rule in self.rules().values() for place in rule]


class Cohort(Frozen):
    """One of several cohorts in a collection: the recordings whose path (without suffix) holds `path`."""

    name: Name
    path: Pattern
    title: str = ""
    mains_hz: Mains  # of the country of recording
    sentinel: Sentinel = "missing"
    # In a collection of several sources one list of labels serves all, and not every source was annotated for each.
    unlabelled: tuple[str, ...] = ()  # labels nobody annotated here: NaN, where 0 would be a claim


class About(Frozen):
    """What a person chooses a cohort by, as its publishers state it. Numbers are of the whole release."""

    country: str = ""
    # open: no account needed; registration: an account; credentialed: training, too; restricted: an application;
    # agreement: a contract; own: your own data
    access: Literal["open", "registration", "credentialed", "restricted", "agreement", "own"] | None = None
    records: Annotated[int, Field(ge=0)] | None = None
    patients: Annotated[int, Field(ge=0)] | None = None
    repeated_patients: Annotated[int, Field(ge=0)] | None = None  # with two or more recordings
    notes: tuple[str, ...] = ()  # traps, and what is unconfirmed


class Overlap(Frozen):
    """Recordings that another cohort holds too, so that nobody trains on the one and tests on the other."""

    cohort: Name  # the other, as it is called in a store
    of: Name | None = None  # the own one; in a collection of several, the one of them
    what: str  # how many, and how the copies differ
    found: bool  # whether ingest finds the copies, because their waveforms have one digest
