"""Lead from a store to its raw files and back, for whoever holds both.

A store knows recordings by pseudonym and row; paths are not in it. One pass over the headers of the source finds which file
is which. What is found names files, so it goes into a table outside the store that only its owner may read.
"""

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np

from ecgcohorts.cohorts.files import Found, SourceItem, without_suffix
from ecgcohorts.cohorts.spec import CohortSpec, Description
from ecgcohorts.cohorts.tables import Tables
from ecgcohorts.cohorts.values import id_text
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.ingest._aside import _drop_unfinished, _open_aside
from ecgcohorts.ingest.plan import Refusal
from ecgcohorts.io.durable import drop, machine_errors
from ecgcohorts.privacy.pseudonyms import PseudonymKey
from ecgcohorts.sources import open_source
from ecgcohorts.store.reader import Store, open_store

TraceKind = Literal["recording", "patient", "pseudonym", "row"]
_COLUMNS = ("line", "asked", "path", "entry", "cohort", "row", "recording_id", "patient_id", "status")
_STORED, _NEW, _UNKNOWN = "stored", "in the source, never ingested", "not found"


class _Traced(NamedTuple):
    """One recording of a source, and the pseudonym that a store knows it by."""

    item: SourceItem
    about: Description
    name: str  # pseudonym, hexadecimal


def _traced(files: Found, spec: CohortSpec, key: PseudonymKey) -> Iterator[_Traced]:
    """Yield every recording of a source in the order of ingest, under the pseudonym that it has or would get."""
    tables = Tables.load(files)
    met: set[bytes] = set()
    for item in files.scan():
        about = spec.describe(tables, item)
        name = key.pseudonym(about.cohort, "recording", about.recording_id)
        # Ingest keeps the first of equal ids and refuses the others under pseudonyms made of their places. What has no
        # readable header is refused before, under its own.
        if item.error is None and name in met:
            again = Refusal.of_repetition(about.cohort, about.recording_id, item.path, item.entry, key)
            name = again.recording_id
        if item.error is None:
            met.add(name)
        yield _Traced(item, about, name.hex())


def _check_out(out: Path, columns: Sequence[str], store: str | Path, source: str | Path) -> None:
    """Raise SpecError for a path inside store or source, or of a file that is no earlier table of these columns."""
    for inside in (store, source):
        if "://" not in str(inside) and out.resolve().is_relative_to(Path(inside).resolve()):
            raise SpecError(f"{out} is inside {inside}. A table that names files belongs outside of input and store.")
    if not out.parent.is_dir():
        raise SourceError(f"{out}: found no folder {out.parent}, expected one to write into. Make it.")
    if out.exists():
        with out.open("rb") as file:
            # Whatever else has this name is not ours to replace.
            if file.readline().strip() != ",".join(columns).encode():
                raise SpecError(f"{out}: found another file of this name. Delete it, or name another.")


def _write(out: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    _drop_unfinished(out)
    with machine_errors(out):
        aside, handle = _open_aside(out)
    try:
        with machine_errors(out):
            # Names of files need not be UTF-8.
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(rows)
            os.replace(aside, out)
    finally:
        drop(aside)


@dataclass(frozen=True)
class TraceReport:
    """How many ids led to a recording. Holds no id and no path."""

    out: Path
    asked: int  # 0: everything
    recordings: int  # rows of the table that name a file
    missing: tuple[int, ...]  # lines whose id leads nowhere

    def __str__(self) -> str:
        if not self.asked:
            return f"{self.out}: {self.recordings:,} recordings of the source, with their paths"
        return f"{self.out}: {self.asked - len(self.missing)} of {self.asked} ids, with the paths of {self.recordings:,} files"

    @classmethod
    def save(
        cls,
        places: tuple[str | Path, str | Path],
        description: str | CohortSpec,
        cohort: str,
        out: Path,
        asked: tuple[TraceKind, Sequence[str]] | None,
        key_file: Path | None = None,
    ) -> "TraceReport":
        """Write path, entry, row and pseudonyms of the recordings of a cohort that ids name, as CSV of mode 0600.

        places: store and source. asked: what the ids are, and the ids, empty ones left out; None for every recording.
        A recording is named by its id or its path, a pseudonym is of a recording or a patient. Reads headers only.
        Raises EcgError subclasses: KeyMismatch for another key than the store's.
        """
        _check_out(out, _COLUMNS, *places)
        store = open_store(places[0])
        store.index.cohort_code(cohort)  # raises for a name that the store does not have
        spec = description if isinstance(description, CohortSpec) else CohortSpec.load(description)
        spec.cohort(cohort)
        key = store.load_key(key_file)
        wanted = None if asked is None else _Wanted(*asked, str(places[1]))
        states = _States(store)
        found: list[tuple[int, bool, list[object]]] = []
        with open_source(places[1]) as opened:
            for one in _traced(spec.find(opened), spec, key):
                if one.about.cohort != cohort:
                    continue
                row, status = states.of(one)
                patient = one.about.patient_pseudonym(key).hex()
                fact: list[object] = [one.item.path, one.item.entry, cohort, row, one.name, patient, status]
                lines = [0] if wanted is None else wanted.lines(one, row, patient)
                found += [(line, True, fact) for line in lines]
                found += [] if wanted is None else [(line, False, fact) for line in wanted.loosely(one)]
        exact = {line for line, is_exact, _ in found if is_exact}
        # `12.34` is a recording of its own, or a file of the record `12`: only where it is not the one, it is the other.
        found = [row for row in found if row[1] or row[0] not in exact]
        met = {line for line, _, _ in found}
        lost = [] if wanted is None else [line for line in wanted.texts if line not in met]
        found += [(line, True, [*[""] * 6, _UNKNOWN]) for line in lost]
        found.sort(key=lambda row: row[0])
        texts = {0: ""} if wanted is None else wanted.texts
        _write(out, _COLUMNS, ([line or "", texts[line], *fact] for line, _, fact in found))
        return cls(out, 0 if wanted is None else len(wanted.texts), len(found) - len(lost), tuple(lost))


class _Wanted:
    """Ids by the text that a recording of the source must have."""

    def __init__(self, kind: TraceKind, ids: Sequence[str], source: str) -> None:
        self._kind, self._source = kind, source.rstrip("/") + "/"
        self.texts = {line: one for line, one in enumerate(ids, 1) if one.strip()}
        self._lines: dict[str, list[int]] = defaultdict(list)
        self._loose: dict[str, list[int]] = defaultdict(list)  # by a text that may mean another recording
        for line, one in self.texts.items():
            for text in self._spellings(one.strip()):
                self._lines[text].append(line)
            if kind == "recording" and "#" not in one and (stem := without_suffix(self._below(one))) != one:
                self._loose[stem].append(line)

    def _below(self, path: str) -> str:
        # `find SRC` prints paths with the source in front.
        return str(PurePosixPath(path.strip().removeprefix(self._source)))

    def _spellings(self, text: str) -> set[str]:
        if self._kind == "patient":
            return {id_text(text)}
        if self._kind == "pseudonym":
            return {text.casefold()}
        if self._kind == "row":
            return {str(int(text))} if text.isdecimal() else set()
        return {text, " ".join(id_text(text).split()), self._below(text)}

    def loosely(self, one: _Traced) -> list[int]:
        """Return the lines that may name another file of this record: its signals beside its header."""
        return self._loose.get(without_suffix(one.item.path), [])

    def lines(self, one: _Traced, row: int | str, patient: str) -> list[int]:
        """Return the lines whose id names this recording, ascending."""
        match self._kind:
            case "patient":
                names = {one.about.patient_id}
            case "pseudonym":
                names = {one.name, patient}
            case "row":
                names = {str(row)}
            case _:
                item = one.item
                names = {one.about.recording_id, item.path, item.location, item.stem, without_suffix(item.path)}
        return sorted({line for name in names if name for line in self._lines.get(name, ())})


class _States:
    """What became of each recording that a store has met."""

    def __init__(self, store: Store) -> None:
        index = store.index
        # Looked up by bisection: a dictionary of millions of ids would take several times their memory.
        ids = np.ascontiguousarray(index["recording_id"]).view("S16").ravel()
        self._order = np.argsort(ids)
        self._ids, self._rows = ids, index["row"]
        rejects = store.rejects()
        self._reasons = {
            str(one): str(why) for one, why in zip(rejects["recording_id"], rejects["reason"], strict=True)
        }

    def of(self, one: _Traced) -> tuple[int | str, str]:
        """Return the row of a recording, or "", and its state in words."""
        name = one.name
        # A readable recording of the same id may be stored under the name of one that was refused for its header.
        if one.item.error is not None and name in self._reasons:
            return "", self._reasons[name]
        wanted = np.array(bytes.fromhex(name), self._ids.dtype)
        at = int(np.searchsorted(self._ids, wanted, sorter=self._order))
        if at < len(self._ids) and self._ids[entry := int(self._order[at])] == wanted:
            return int(self._rows[entry]), _STORED
        return "", self._reasons.get(name, _NEW)
