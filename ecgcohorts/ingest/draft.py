"""Draft a cohort description of a folder, an archive or a bucket for a person to finish. Guesses and gaps are marked.

Nothing is guessed that would silently change a signal. Mains frequency, rates, units and leads that no file states stay
open, and a draft of bare numbers holds placeholders that `ingest` refuses until they are filled in.
"""

import io
import math
import re
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import ValidationError

from ecgcohorts.cohorts.files import SourceItem
from ecgcohorts.cohorts.schema import Files
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import RecordingError, SourceError, SpecError, did_you_mean
from ecgcohorts.ingest.classify import ARRAYS, Census
from ecgcohorts.ingest.content import FileClass, Kind, Numbers
from ecgcohorts.ingest.inspect import SAMPLE, _spread
from ecgcohorts.ingest.table_columns import Columns, Key, Role
from ecgcohorts.io.durable import write_file
from ecgcohorts.io.regular import read_head
from ecgcohorts.leads import standard
from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers import HEAD_BYTES, files_beside, open_reader
from ecgcohorts.recording import Recording
from ecgcohorts.sources import Archive, Source, open_source
from ecgcohorts.sources.windows import at_hand, local

Mark = Literal["", "guess", "unknown"]

_PACKED = re.compile(r"\.(?:zip|tar|tgz|tar\.\w+)$", re.IGNORECASE)
_MAX_EXCLUDED = 20  # our default: for more names, a person writes a pattern
_MAX_FOLDERS = 5  # our default: of more, excluding names or a person's own pattern is easier to read
_MAX_LEADS_OF_A_GUESS = 24  # our default: a longer side of an array is time
_ROLES: tuple[Role, ...] = ("patient", "age", "sex", "acquired_at", "device", "site")
# No valid value of any field, so that a draft which was not finished is refused.
_FILL_IN = "FILL_IN"

# What a census calls a kind of array -> what the reader `arrays` calls it.
_ARRAY_KINDS = {
    "numbers as text": "csv",
    "numbers as text, gzipped": "csv",
    "NumPy": "npy",
    "NumPy archive": "npz",
    "HDF5 of no known layout": "hdf5",
    "MATLAB 4": "matlab",
    "MATLAB 5": "matlab",
    "MATLAB 7.3": "matlab",
}


@dataclass(frozen=True)
class Draft:
    """The text of a cohort file, and counts of what is left to a person."""

    text: str
    reader: str
    n_files: int
    guesses: int
    unknowns: int
    left_out: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # readers of further formats in the source, the commonest first

    def save(self, out: Path, force: bool = False) -> None:
        """Write the draft whole or not at all. Raises SpecError as `check_out` does."""
        self.check_out(out, force)
        write_file(out, self.text.encode())

    @staticmethod
    def check_out(out: Path, force: bool) -> None:
        """Refuse a file name without the suffix of a cohort file, or, without `force`, of an existing file."""
        # The suffix is what tells the path of a cohort file from the name of a preset.
        if out.suffix.lower() not in (".yaml", ".yml"):
            raise SpecError(f"{out}: found the suffix {out.suffix!r}, expected .yaml, by which cohort files are known.")
        if out.exists() and not force:
            raise SpecError(f"{out}: this file exists. Name another, or pass --force to replace it.")


@dataclass
class _Page:
    """A YAML text in the making: one value a line, with a comment where a value is not certain."""

    lines: list[str] = field(default_factory=list)
    guesses: int = 0
    unknowns: int = 0

    def put(self, key: str, value: Any, mark: Mark = "", why: str = "") -> None:
        """Add a line. key: with its indentation."""
        self.guesses += mark == "guess"
        self.unknowns += mark == "unknown"
        comment = ": ".join(filter(None, (mark, why)))
        self.lines.append(f"{key}: {_flow(value)}" + (f"  # {comment}" if comment else ""))

    def say(self, text: str) -> None:
        self.lines.append(f"# {text}")


def draft(source: str | Path, table: Path | None = None, sample: int = SAMPLE, reader: str | None = None) -> Draft:
    """Describe one format in a folder, an archive or a bucket, with facts found in its files and in a table.

    table: a CSV about the recordings. reader: of the format to describe; the commonest if None. Raises SourceError if there
    is nothing to describe, or the table is no CSV.
    """
    with open_source(source) as opened:
        top = opened.top_folder() if isinstance(opened, Archive) else None
        return _draft(opened.inside(top) if isinstance(opened, Archive) and top else opened, table, sample, reader)


def _draft(source: Source, table: Path | None, sample: int, wanted: str | None) -> Draft:
    census = Census.take(source)
    each, paths = _commonest(census, wanted)
    # Bare numbers have no headers to read: their draft asks a person for everything.
    is_bare = each.kind is Kind.ARRAY
    reader = ARRAYS if is_bare else each.what
    items = [SourceItem(name) for name in paths] if is_bare else _items(source, reader, paths, sample)
    columns, key = (Columns(), None) if table is None else _read_table(table, items)
    left_out = _left_out(census, each)
    if table is not None and key is None:
        left_out = (f"{table.name}: none of its columns names the recordings", *left_out)
    page = _Page()
    n_looked_at = 1 if is_bare else len(items)
    page.say(
        f"Drafted from {n_looked_at} recordings. Check every line, first those marked guess and unknown, then try it:"
    )
    page.say("ecgcohorts ingest SRC STORE --cohort THIS_FILE --dry-run")
    for what in left_out:
        page.say(f"left out: {what}")
    if any(other != each for other, _ in census.of(Kind.RECORDING)):
        page.say("As one cohort, each format is a layout of one file: several formats in docs/cohorts.md")
    _put_cohort(page, source, items, wanted or "")
    page.lines.append("layouts:")
    page.put("  - reader", reader, why=_count(len(paths), "file"))
    _put_files(page, source, paths)
    if is_bare:
        page.lines.append("    arrays:")
        with local(source, paths[:1]) as folder:
            _put_arrays(page, read_head(folder / paths[0], HEAD_BYTES), _ARRAY_KINDS[each.what])
    _put_table(page, source, table, key, len(items), census)
    headers = _headers(items)
    for role in _ROLES:
        _put_role(page, role, columns if key else Columns(), headers, items)
    text = "\n".join(page.lines) + "\n"
    # A draft of bare numbers holds placeholders, which are meant to be refused.
    if not is_bare:
        _check(text)
    others = tuple(name for name in census.recordings if name != reader)
    return Draft(text, reader, len(paths), page.guesses, page.unknowns, left_out, others)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _flow(value: Any) -> str:
    dumped = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _commonest(census: Census, wanted: str | None) -> tuple[FileClass, list[str]]:
    # Bare numbers only where nothing says that it is an ECG: beside recordings they are mostly trends and measures.
    arrays = [pair for pair in census.of(Kind.ARRAY) if pair[0].what in _ARRAY_KINDS]
    found = census.of(Kind.RECORDING) or arrays
    if found and wanted is not None:
        there = census.recordings
        found = [pair for pair in census.of(Kind.RECORDING) if pair[0].what == wanted]
        found = found or (arrays if wanted == ARRAYS else [])
        if not found:
            known = [*there, *([ARRAYS] if arrays and ARRAYS not in there else [])]
            raise SourceError(
                f"{census.source}: found no recordings of the format {wanted!r}, expected one of "
                f"{', '.join(known)}.{did_you_mean(wanted, known)}"
            )
    if not found:
        raise SourceError(
            f"{census.source}: none of its {census.n_files} files is a recording. See `ecgcohorts inspect "
            f"{census.source}`."
        )
    return max(found, key=lambda pair: len(pair[1]))


def _left_out(census: Census, chosen: FileClass) -> tuple[str, ...]:
    kinds = (Kind.RECORDING, Kind.ARRAY, Kind.UNKNOWN)
    return tuple(
        f"{_count(len(paths), 'file')}, {each.kind.value}: {each.what}"
        for kind in kinds
        for each, paths in census.of(kind)
        if each != chosen
    )


def _items(source: Source, reader: str, paths: list[str], sample: int) -> list[SourceItem]:
    """Return headers of recordings, evenly spread over the files. Signals are not read."""
    opened = open_reader(reader)
    chosen = _spread(paths, sample)
    share = -(-sample // len(chosen))
    items: list[SourceItem] = []
    beside = files_beside(reader, samples=False)
    for path, file in zip(chosen, at_hand(source, [(path, None) for path in chosen], beside), strict=True):
        try:
            for header in islice(opened.scan(file), share) if isinstance(file, Path) else ():
                items.append(SourceItem(path, header.source.entry if header.source else "", header))
        except RecordingError:
            continue
    if not items:
        raise SourceError(
            f"{source}: none of {len(chosen)} {reader} files can be read. See `ecgcohorts inspect {source}`."
        )
    return items


def _read_table(table: Path, items: list[SourceItem]) -> tuple[Columns, Key | None]:
    if not table.is_file():
        raise SourceError(f"found no file {table}, expected a CSV about the recordings. Check the path.")
    return Columns.read(table), Key.find(table, items)


def _put_cohort(page: _Page, source: Source, items: list[SourceItem], wanted: str) -> None:
    given = str(source.folder.resolve()) if source.folder else _PACKED.sub("", str(source))
    # Descriptions of several formats go into one store, where each is a cohort with a name of its own.
    given = f"{PurePosixPath(given).name} {wanted}".casefold()
    name = re.sub(r"[^a-z0-9]+", "_", given).strip("_")[:64]
    page.put("name", name or "cohort", "guess", "the folder's name; one word of a-z, 0-9 and _")
    page.put("title", "unknown", "unknown", "fill in")
    page.put("licence", "unknown", "unknown", "fill in, of the data")
    page.put("citation", "unknown", "unknown", "fill in, or say where the data come from")
    mains = {item.header.mains_hz for item in items if item.header is not None} - {None}
    if len(mains) == 1:
        page.put("mains_hz", int(mains.pop() or 0), "guess", "as the files say")
    else:
        page.put("mains_hz", None, "unknown", "fill in 50 or 60, of the country of recording; null: no notch filter")


def _put_arrays(page: _Page, head: bytes, kind: str) -> None:
    """Put the block about bare numbers. head: the first bytes of one file. kind: a value of _ARRAY_KINDS."""
    numbers = Numbers.in_head(head) if kind == "csv" else None
    page.put("      kind", kind)
    if kind in ("hdf5", "matlab", "npz"):
        names = {"hdf5": "path of the dataset", "npz": "name of the array"}
        what = names.get(kind, "name of the variable, or ECG.data for a field")
        page.put("      name", [_FILL_IN], "unknown", f"fill in the {what}, as text")
    page.put("      rate_hz", _FILL_IN, "unknown", "fill in the samples a second")
    why = "fill in nV, uV, mV or V; add steps_per_unit for integers of another step"
    page.put("      unit", _FILL_IN, "unknown", why)
    columns = [number for number, lead in enumerate(standard(numbers.names if numbers else ())) if lead]
    if numbers and columns:
        leads = [numbers.names[number] for number in columns]
        page.put("      leads", leads, "guess", "by the line above the numbers")
    else:
        page.put("      leads", _FILL_IN, "unknown", "fill in a list of names, in the order of the array")
    shape = (numbers.rows, numbers.columns) if numbers else _npy_shape(head) if kind == "npy" else ()
    if len(shape) == 2 and min(shape) <= _MAX_LEADS_OF_A_GUESS < max(shape):
        of_time = shape[1] < shape[0]
        why = f"{min(shape)} {'columns' if of_time else 'rows'}"
        page.put("      axes", "time_lead" if of_time else "lead_time", "guess", why)
    elif axes := _axes_of_records(shape):
        page.put("      axes", axes, "guess", f"shape {shape}: {shape[0]} recordings in a file")
    else:
        why = "fill in lead_time (one row per lead) or time_lead"
        if kind in ("npy", "npz", "hdf5"):
            why += ", record_ before it where a file holds many; one_ for an axis of length 1"
        page.put("      axes", _FILL_IN, "unknown", f"{why}, found {shape}" if shape else why)
    if numbers is None:
        return
    why = "as in the first file"
    if not columns and numbers.columns > 1:
        of = f"{numbers.columns} columns; list those with leads, from 0, if not all"
        page.put("      columns", None, "unknown", of)
    elif columns and len(columns) < numbers.columns:
        page.put("      columns", columns, "guess", "those with names of leads")
    if numbers.skip_lines:
        page.put("      skip_lines", numbers.skip_lines, "guess", why)
    page.put("      separator", numbers.separator, "guess", why)
    if numbers.decimal != ".":
        page.put("      decimal", numbers.decimal, "guess", why)


def _axes_of_records(shape: tuple[int, ...]) -> str:
    """Name the axes of an array of many recordings, the first axis; or "" if the others leave that open."""
    sizes = shape[1:]
    kinds = ["one" if size == 1 else "lead" if size <= _MAX_LEADS_OF_A_GUESS else "time" for size in sizes]
    is_clear = kinds.count("lead") == kinds.count("time") == 1 and len(kinds) <= 4
    return "_".join(["record", *kinds]) if is_clear else ""


def _npy_shape(head: bytes) -> tuple[int, ...]:
    """Return the shape of an NPY file by its header, or ()."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read(stream)[0]
    except ValueError:
        return ()
    return shape


def _put_files(page: _Page, source: Source, paths: list[str]) -> None:
    globs = sorted({f"**/*{_suffix(path)}" for path in paths})
    # Cohort files are YAML as well, this one among them, so manifests of arrays are named one by one.
    if all(path.casefold().endswith((".yaml", ".yml")) for path in paths):
        globs = paths
    others = sorted(set(source.names(Files(include=tuple(globs)).pattern())) - set(paths))
    files: dict[str, list[str]] = {"include": globs}
    own = _own_folders(paths, others) if others else []
    if 0 < len(own) <= _MAX_FOLDERS:
        page.put("    files", {"include": own}, "guess", "the folders that hold no other files of this suffix")
        return
    if 0 < len(others) <= _MAX_EXCLUDED:
        files["exclude"] = others
    if len(others) > _MAX_EXCLUDED:
        page.put("    files", files, "unknown", f"fits {len(others)} files of other content, too: exclude them")
    else:
        page.put("    files", files, "guess", "all files of this suffix")


def _own_folders(paths: list[str], others: list[str]) -> list[str]:
    """Return globs of the highest folders that hold all of `paths` and none of `others`; [] if there are no such folders."""
    shared = {folder for path in others for folder in PurePosixPath(path).parents}
    globs = set()
    for path in paths:
        own = [folder for folder in PurePosixPath(path).parents if folder not in shared]
        # A star in the name of a folder would fit other folders as well.
        if not own or re.search(r"[*?]", str(own[-1])):
            return []
        globs.add(f"{own[-1]}/**/*{_suffix(path)}")
    return sorted(globs)


def _suffix(path: str) -> str:
    name = PurePosixPath(path)
    return "".join(name.suffixes[-2:]) if name.suffix.casefold() == ".gz" else name.suffix


def _put_table(page: _Page, source: Source, table: Path | None, key: Key | None, n_items: int, census: Census) -> None:
    if table is None:
        if beside := [name for _, names in census.of(Kind.TABLE) for name in names]:
            shown = ", ".join(beside[:3]) + (" ..." if len(beside) > 3 else "")
            page.lines.append(
                f"    # unknown: whether a table says more about the recordings; found {len(beside)}: {shown}"
            )
        return
    if key is None:
        return
    # Paths of a description are relative to the source; of an archive or a bucket, the table may be a member.
    where, outside = PurePosixPath(table.name), "; copy it into SRC: tables are read there only"
    if source.folder is not None and table.resolve().is_relative_to(source.folder.resolve()):
        where, outside = PurePosixPath(table.resolve().relative_to(source.folder.resolve()).as_posix()), ""
    elif source.folder is None and (
        same := [name for _, names in census.of(Kind.TABLE) for name in names if name.rpartition("/")[2] == table.name]
    ):
        where, outside = PurePosixPath(same[0]), ""
    entry = {"file": str(where), "key": key.column, "match": key.match}
    if key.pattern is not None:
        entry = {"file": str(where), "key": key.column, "pattern": key.pattern}
    page.lines.append("    tables:")
    text = f"its rows name {key.matched} of {n_items} recordings looked at{outside}"
    page.lines.append(f"      - {_flow(entry)}  # guess: {text}")
    page.guesses += 1


def _headers(items: list[SourceItem]) -> Columns:
    """Return the roles of the header texts in the files themselves, by key."""
    values: dict[str, list[str]] = {}
    for item in items:
        for name, text in (item.header.fields if item.header else {}).items():
            values.setdefault(name, []).append(text)
    return Columns.guess(values)


def _put_role(page: _Page, role: Role, columns: Columns, headers: Columns, items: list[SourceItem]) -> None:
    """Put the rule for one role: the table first, then the files."""
    known = sum(item.header is not None and _has(item.header, role) for item in items)
    by_header = len(headers.of(role)) if role in headers.by_role else 0
    places: list[dict[str, Any]] = []
    source: Columns | None = None
    if role in columns.by_role:
        source = columns
        places.append({"column": columns.by_role[role]})
    elif by_header > known:
        source = headers
        places.append({"header": headers.by_role[role]})
    # Patients come from one place only: a patient named otherwise by table and file would become two.
    if known and not (places and role == "patient"):
        places.append({"reader": True})
    rule = places[0] if len(places) == 1 else places
    if source is not None:
        page.put(f"    {role}", rule, "guess", "by its name")
        _put_meaning(page, role, source, items if source is headers else [])
    elif places:
        page.put(f"    {role}", rule, why=f"found in {known} of {len(items)} recordings looked at")
    else:
        why = "fill in where to find it, if anywhere"
        if role == "patient":
            why += "; as it is, every recording is a patient of its own"
        page.put(f"    {role}", {"reader": True}, "unknown", why)


def _has(header: Recording, role: Role) -> bool:
    values = {
        "patient": None if is_placeholder(header.patient_id) else header.patient_id,
        "age": header.age_years,
        "sex": header.sex,
        "acquired_at": header.acquired_at,
        "device": header.device,
        "site": header.site,
    }
    return values[role] is not None


def _put_meaning(page: _Page, role: Role, source: Columns, items: list[SourceItem]) -> None:
    """Put what the values of a column mean, if its name alone does not say. items: with headers, if these are the column."""
    if role == "age" and (unit := source.age_unit) != "years":
        page.put("    age_unit", unit, "guess", "by its name")
    elif role == "sex":
        # Codes of a format that its reader knows (1 and 2 in MFER) beside some that it does not (0, 3).
        headers = [item.header for item in items if item.header and item.header.sex]
        said = {one.fields.get(source.by_role["sex"], "").casefold(): str(one.sex) for one in headers}
        known, open_codes = source.sex_codes(said)
        if open_codes:
            why = f"found {', '.join(open_codes)}; fill in each code, in quotes, as male or female"
            page.put("    sex_codes", known, "unknown", why)
        elif known:
            page.put("    sex_codes", known, "guess", "beside m, f, male, female")
    elif role == "acquired_at":
        formats = source.time_formats()
        if len(formats) > 1:
            page.put("    time_format", None, "unknown", f"fill in one of {', '.join(map(repr, formats))}")
        elif formats != [""]:
            page.put("    time_format", formats[0], "guess", "fits all values looked at")


def _check(text: str) -> None:
    # A column may have a name that YAML cannot hold in one line.
    try:
        CohortSpec.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError):
        raise SpecError("The names of the table's columns make no valid cohort file. Rename them.") from None
