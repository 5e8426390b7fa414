"""A first cohort description of a folder, an archive or a bucket, for a person to finish: guesses and gaps are marked as such in it.

Nothing is guessed that would silently change a signal: mains frequency, rates, units and leads that no file states stay
open, and a layout of bare numbers is written so that `ingest` refuses it until it is filled in.
"""

import math
import os
import re
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from ecgcohorts.cohorts.files import SourceItem, wanted_by
from ecgcohorts.cohorts.schema import Files
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import RecordingError, SourceError, SpecError
from ecgcohorts.ingest import table_columns
from ecgcohorts.ingest.bare_arrays import ARRAY_KINDS, Mark, open_questions
from ecgcohorts.ingest.classify import ARRAYS, Census, FileClass, Kind, classify
from ecgcohorts.ingest.inspect import SAMPLE, spread
from ecgcohorts.ingest.table_columns import Columns, Key, Role
from ecgcohorts.io.durable import write_file
from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers import files_beside, open_reader
from ecgcohorts.recording import Recording
from ecgcohorts.sources import Archive, Folder, Source, open_source
from ecgcohorts.sources.windows import at_hand, local

_PACKED = re.compile(r"\.(?:zip|tar|tgz|tar\.\w+)$", re.IGNORECASE)
MAX_EXCLUDED = 20  # our default: more than that a person puts into a pattern
ROLES: tuple[Role, ...] = ("patient", "age", "sex", "acquired_at", "device", "site")


@dataclass(frozen=True)
class Draft:
    """The text of a cohort file, and what to tell the person who asked for it."""

    text: str
    reader: str
    n_files: int
    guesses: int
    unknowns: int
    left_out: tuple[str, ...] = ()


@dataclass
class _Page:
    """YAML under way, a value a line, with what is not certain marked in comments."""

    lines: list[str] = field(default_factory=list)
    guesses: int = 0
    unknowns: int = 0

    def put(self, key: str, value: Any, mark: Mark = "", why: str = "") -> None:
        """key: with its indentation."""
        self.guesses += mark == "guess"
        self.unknowns += mark == "unknown"
        comment = ": ".join(filter(None, (mark, why)))
        self.lines.append(f"{key}: {_flow(value)}" + (f"  # {comment}" if comment else ""))

    def say(self, text: str) -> None:
        self.lines.append(f"# {text}")


def draft(place: str | Path, table: Path | None = None, sample: int = SAMPLE) -> Draft:
    """Describe the commonest format in a folder, an archive or a bucket, with the facts that files and table are seen to
    hold.

    Raises SourceError if there is nothing to describe, or the table is no CSV.
    """
    with open_source(place) as source:
        top = source.top_folder() if isinstance(source, Archive) else None
        return _draft(source.inside(top) if isinstance(source, Archive) and top else source, table, sample)


def _draft(source: Source, table: Path | None, sample: int) -> Draft:
    census = classify(source)
    each, paths = _commonest(census)
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
    _put_cohort(page, source, items)
    page.lines.append("layouts:")
    page.put("  - reader", reader, why=_count(len(paths), "file"))
    _put_files(page, source, paths)
    if is_bare:
        page.lines.append("    arrays:")
        with local(source, paths[:1]) as folder:
            for question in open_questions(folder / paths[0], ARRAY_KINDS[each.what]):
                page.put(f"      {question.key}", question.value, question.mark, question.why)
    _put_table(page, source, table, key, len(items), census)
    headers = _headers(items)
    for role in ROLES:
        _put_role(page, role, columns if key else Columns(), headers, items)
    text = "\n".join(page.lines) + "\n"
    if not is_bare:
        _check(text)
    return Draft(text, reader, len(paths), page.guesses, page.unknowns, left_out)


def check_out(out: Path, force: bool) -> None:
    """Raises SpecError for a name that is no cohort file's, or a file that is there already."""
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise SpecError(f"{out}: found the suffix {out.suffix!r}, expected .yaml: cohort files are told by it.")
    if out.exists() and not force:
        raise SpecError(f"{out}: found a file there. Name another, or pass --force to replace it.")


def write_draft(made: Draft, out: Path, force: bool = False) -> None:
    """Write a draft, whole or not at all. Raises SpecError as `check_out` does."""
    check_out(out, force)
    write_file(out, made.text.encode())


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _flow(value: Any) -> str:
    dumped = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _commonest(census: Census) -> tuple[FileClass, list[str]]:
    found = census.of(Kind.RECORDING)
    found += [pair for pair in census.of(Kind.ARRAY) if pair[0].what in ARRAY_KINDS]
    if not found:
        raise SourceError(
            f"{census.source}: found no recordings among {census.n_files} files. See `ecgcohorts inspect "
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
    """Headers of recordings, evenly spread over the files. Payloads are not read."""
    opened = open_reader(reader)
    chosen = spread(paths, sample)
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
            f"{source}: found {len(chosen)} {reader} files of which none reads. See `ecgcohorts inspect {source}`."
        )
    return items


def _read_table(table: Path, items: list[SourceItem]) -> tuple[Columns, Key | None]:
    if not table.is_file():
        raise SourceError(f"found no file {table}, expected a CSV about the recordings. Check the path.")
    return table_columns.read_columns(table), table_columns.find_key(table, items)


def _put_cohort(page: _Page, source: Source, items: list[SourceItem]) -> None:
    given = str(source.path.resolve()) if isinstance(source, Folder) else _PACKED.sub("", str(source))
    name = re.sub(r"[^a-z0-9]+", "_", PurePosixPath(given).name.casefold()).strip("_")[:64]
    page.put("name", name or "cohort", "guess", "the folder's name; one word of a-z, 0-9 and _")
    page.put("title", "unknown", "unknown", "fill in")
    page.put("licence", "unknown", "unknown", "fill in, of the data")
    page.put("citation", "unknown", "unknown", "fill in, or say where the data come from")
    mains = {item.header.mains_hz for item in items if item.header is not None} - {None}
    if len(mains) == 1:
        page.put("mains_hz", int(mains.pop() or 0), "guess", "as the files say")
    else:
        page.put("mains_hz", None, "unknown", "fill in 50 or 60, of the country of recording; null: no notch filter")


def _put_files(page: _Page, source: Source, paths: list[str]) -> None:
    globs = sorted({f"**/*{_suffix(path)}" for path in paths})
    if all(path.casefold().endswith((".yaml", ".yml")) for path in paths):  # as cohort files do, this one among them
        globs = paths
    others = sorted(set(source.names(wanted_by(Files(include=tuple(globs))))) - set(paths))
    files: dict[str, list[str]] = {"include": globs}
    if 0 < len(others) <= MAX_EXCLUDED:
        files["exclude"] = others
    if len(others) > MAX_EXCLUDED:
        page.put("    files", files, "unknown", f"fits {len(others)} files of other content, too: exclude them")
    else:
        page.put("    files", files, "guess", "all files of this suffix")


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
    where = PurePosixPath("..", table.name)
    if isinstance(source, Folder):
        where = PurePosixPath(os.path.relpath(table.resolve(), source.path.resolve()))
    elif same := [
        name for _, names in census.of(Kind.TABLE) for name in names if name.rpartition("/")[2] == table.name
    ]:
        where = PurePosixPath(same[0])
    entry = {"file": str(where), "key": key.column, "match": key.match}
    if key.pattern is not None:
        entry = {"file": str(where), "key": key.column, "pattern": key.pattern}
    page.lines.append("    tables:")
    outside = "; it lies outside SRC, better put it there" if ".." in where.parts else ""
    text = f"its rows name {key.matched} of {n_items} recordings looked at{outside}"
    page.lines.append(f"      - {_flow(entry)}  # guess: {text}")
    page.guesses += 1


def _headers(items: list[SourceItem]) -> Columns:
    """Roles of the header texts that files themselves hold, by key."""
    values: dict[str, list[str]] = {}
    for item in items:
        for name, text in (item.header.fields if item.header else {}).items():
            values.setdefault(name, []).append(text)
    return table_columns.guess_columns(values)


def _put_role(page: _Page, role: Role, columns: Columns, headers: Columns, items: list[SourceItem]) -> None:
    """One rule: the table first, then the files. Patients come from one place only, or one becomes two."""
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
    if known and not (places and role == "patient"):
        places.append({"reader": True})
    rule = places[0] if len(places) == 1 else places
    if source is not None:
        page.put(f"    {role}", rule, "guess", "by its name")
        _put_meaning(page, role, source)
    elif places:
        page.put(f"    {role}", rule, why=f"found in {known} of {len(items)} recordings looked at")
    else:
        why = "fill in where it stands, if anywhere"
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


def _put_meaning(page: _Page, role: Role, source: Columns) -> None:
    """What the values of a column mean, where the name of the column is not enough."""
    name = source.by_role[role]
    if role == "age" and (unit := table_columns.age_unit(name)) != "years":
        page.put("    age_unit", unit, "guess", "by its name")
    elif role == "sex":
        known, open_codes = table_columns.sex_codes(name, source.of(role))
        if open_codes:
            why = f"found {', '.join(open_codes)}; fill in each code, in quotes, as male or female"
            page.put("    sex_codes", known, "unknown", why)
        elif known:
            page.put("    sex_codes", known, "guess", "beside m, f, male, female")
    elif role == "acquired_at":
        formats = table_columns.time_formats(source.of(role))
        if len(formats) > 1:
            page.put("    time_format", None, "unknown", f"fill in one of {', '.join(map(repr, formats))}")
        elif formats != [""]:
            page.put("    time_format", formats[0], "guess", "fits all values looked at")


def _check(text: str) -> None:
    """Raises SpecError if the draft would not load: a column's name may be one that YAML cannot hold in a line."""
    try:
        CohortSpec.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError):
        raise SpecError("found names in the table that make no cohort file. Rename its columns.") from None
