"""The plan of one run, and the file that carries it to other processes and machines.

A plan file is Parquet. Row group I holds the rows of partition I; the groups after them hold what the plan refused, one
group for each cohort with refusals. The header is JSON in the metadata of the schema. Because the file names the paths of
the input, only its owner may read it (mode 0600). It holds pseudonyms and the key's fingerprint, never the key.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ecgcohorts import __version__
from ecgcohorts.cohorts.account import CellAccount, TableAccount
from ecgcohorts.cohorts.schema import Layout, Mains, Name
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.index.cohort_index import LABEL
from ecgcohorts.index.contradictions import PatientCheck
from ecgcohorts.ingest._aside import _drop_unfinished, _open_aside
from ecgcohorts.ingest._changes import _Changes
from ecgcohorts.ingest._ids import PSEUDONYM
from ecgcohorts.ingest._seen import _Seen
from ecgcohorts.io.durable import drop, machine_errors, sync_folder, write_file
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.privacy.pseudonyms import PseudonymKey
from ecgcohorts.sources.names import path_of
from ecgcohorts.store.schema import STAGING
from ecgcohorts.store.signals.array_metadata import SHARD_RECORDS_LIMIT
from ecgcohorts.store.signals.chunks import Codec

DUPLICATE, DUPLICATE_ID = "duplicate", "recording_id_twice"  # reasons
_FORMAT_VERSION = b"3"  # 2: state of each file, and signals taken over; 3: of all files of a recording
_VERSION, _HEADER, _SUM = b"ecgcohorts.plan", b"ecgcohorts.plan.header", b"ecgcohorts.plan.sha256"
_OF_REFUSALS = ("stage", "reason", "error", "duplicate_of", "state")
_LIBRARIES = ("numcodecs", "numpy", "pandas", "pcodec", "pyarrow", "scipy")
_MAGIC = b"PAR1"
_MARK = "plan"  # a file in a staging folder that belongs to a plan file; it names the snapshot the plan was made for


@dataclass(frozen=True, slots=True)
class Refusal:
    """One input that gets no row in the index: it was refused, or it is a copy of another recording."""

    cohort: str
    recording_id: bytes
    stage: str  # plan, read, recipe, or commit
    reason: str
    error: str  # class name
    duplicate_of: bytes = b""
    state: int = 0  # mark of its file, if there is one

    @classmethod
    def of_repetition(cls, cohort: str, name: str, path: str, entry: str, key: PseudonymKey) -> Self:
        """Refuse a recording whose id an earlier one has; its pseudonym is made of where it stands as well."""
        again = key.pseudonym(cohort, "recording", f"{name}\0{path}\0{entry}")
        return cls(cohort, again, "plan", DUPLICATE_ID, "SourceError")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@cache
def _code_here() -> str:
    """Return a digest of this package's source files. It tells commits apart, changes without a commit too, and needs no git."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


class Request(_Frozen):
    """What to ingest, into which snapshot of which store, and how."""

    source: str  # its address: an absolute file URI, which can spell any file name, or the URL of a bucket
    store: str
    spec: CohortSpec
    recipe: Recipe
    shard_records: Annotated[int, Field(gt=0, le=SHARD_RECORDS_LIMIT)]
    codec: Codec = "lz4"
    quality: bool
    on_error: Literal["quarantine", "raise"]
    key_fingerprint: str
    generation: Annotated[int, Field(gt=0)]  # of the snapshot that this run makes
    base: str  # SHA-256 of the manifest that it extends; empty for a new store
    beside: Literal["", "others", "store"] = ""  # what was in the store's parent folder
    update: bool = False  # lay out the cohorts of the source anew, instead of adding to them
    versions: dict[str, str]  # of the libraries that decide bytes
    code: str = Field(default_factory=_code_here)  # of this package: two commits share a version number

    @property
    def folder(self) -> Path:
        return path_of(self.store)

    def rules(self, layout: Layout) -> dict[str, str]:
        """Return, by cohort, all that decides a signal beside its file and the recipe of the store."""
        spec = self.spec
        same = (layout.reader, layout.arrays, layout.windows, spec.unit, spec.expected_gain_per_mv, self.quality)
        of = {name: spec.cohort(name) for name in spec.cohort_names}
        versions = sorted(self.versions.items())
        return {name: repr((*same, own.sentinel, own.mains_hz, versions)) for name, own in of.items()}

    @staticmethod
    def versions_here() -> dict[str, str]:
        """Return the versions of the libraries that may change a stored byte."""
        # pcodec is optional: where it is missing, no store with that codec can be written.
        names = [name for name in _LIBRARIES if name != "pcodec" or importlib.util.find_spec(name)]
        # Our own from the code: a checkout that was never installed has no metadata.
        return {"ecgcohorts": __version__} | {name: importlib.metadata.version(name) for name in names}

    def check_versions(self, path: Path) -> None:
        """Refuse to go on with a plan that was made with other versions. path: of the plan. Raises SpecError."""
        here = self.versions_here()
        for name, planned in self.versions.items():
            if here.get(name) != planned:
                raise SpecError(
                    f"{path}: planned with {name} {planned}, but {here.get(name, 'none')} is installed here. Versions "
                    "decide stored bytes: Use one environment everywhere, or plan again."
                )
        if self.code != _code_here():
            raise SpecError(
                f"{path}: planned with another commit of ecgcohorts {here['ecgcohorts']}: the code that is installed here "
                "differs. Use one commit everywhere, or plan again."
            )


class PlannedCohort(_Frozen):
    """How many rows and refusals one run adds to one cohort."""

    name: Name  # a folder of the store
    rows: Annotated[int, Field(ge=0)]
    refused: Annotated[int, Field(ge=0)]

    @property
    def inputs(self) -> int:
        return self.rows + self.refused


class PlanHeader(Request):
    """A plan without its rows. The same inputs, description, recipe, options and key give the same digest."""

    layout: Layout  # of all files
    cohorts: tuple[PlannedCohort, ...]
    known: int  # inputs that the store already holds or has refused
    sites: tuple[str, ...]
    devices: tuple[str, ...]
    mains: tuple[Mains, ...]
    labels: tuple[Name, ...]
    memory_key: str = ""  # derived from the key, for hashes of files; it undoes no pseudonym
    changes: _Changes | None = None  # of recordings met before
    removed: tuple[str, ...] = ()  # of an update: all patients who stay out
    patients: PatientCheck | None = None  # of the new recordings
    tables: tuple[TableAccount, ...] = ()  # of all inputs, also of those met before
    not_understood: tuple[CellAccount, ...] = ()
    left_out: dict[str, int] = {}  # what the source has beside files, by kind: links are not followed
    digest: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]

    @property
    def n_rows(self) -> int:
        return sum(cohort.rows for cohort in self.cohorts)

    @property
    def n_inputs(self) -> int:
        return sum(cohort.inputs for cohort in self.cohorts)

    def astray(self, limit: int | None) -> str:
        """Return a complaint about the first table that matches no recording; "" if there is none.

        In a trial of `limit` recordings it is no news that some table is about others, unless all are.
        """
        found = [table.complaint for table in self.tables if table.matches_nothing]
        is_trial = limit is not None and any(table.recordings_matched for table in self.tables)
        return found[0] if found and not is_trial else ""

    @cached_property
    def partitions(self) -> tuple["Partition", ...]:
        """All partitions, by number."""
        made: list[Partition] = []
        before = 0
        for cohort in self.cohorts:
            for shard, first in enumerate(range(0, cohort.rows, self.shard_records)):
                rows = min(self.shard_records, cohort.rows - first)
                made.append(Partition(len(made), cohort.name, shard, before + first, rows))
            before += cohort.rows
        return tuple(made)

    def partition(self, number: int) -> "Partition":
        """Return a partition by number. Raises SpecError if there is none of that number."""
        n = len(self.partitions)
        # A plan of refusals only has nothing to encode, but its refusals are to be committed.
        if not n:
            raise SpecError(f"Partition {number}: this plan has nothing to encode, commit it.")
        if not 0 <= number < n:
            raise SpecError(f"found partition {number}, expected 0 to {n - 1}: this plan has {n}.")
        return self.partitions[number]

    @property
    def staging(self) -> Path:
        """Folder of the store where shards wait for the commit. Its name is the digest: only this very plan resumes it."""
        return self.folder / STAGING / self.digest

    def segment_folder(self, cohort: str) -> Path:
        return self.folder / "signals" / cohort / f"{self.generation:06d}"

    def shard_path(self, partition: "Partition") -> Path:
        """Where the shard of a partition stands in the new snapshot."""
        return self.segment_folder(partition.cohort) / "c" / str(partition.shard) / "0" / "0"

    def mark_staging(self) -> None:
        """Mark the staged shards as this plan file's own, so that no ingest removes them as leftovers."""
        mark = self.staging / _MARK
        if not mark.exists():
            write_file(mark, self.base.encode())

    def plans_under_way(self, base: str) -> tuple[str, ...]:
        """Return the staging folders of plan files made for the snapshot `base`: relative, with a slash at the end.

        A plan made for an earlier snapshot can no longer be committed, so its folder is not among them.
        """
        marks = sorted((self.folder / STAGING).glob(f"*/{_MARK}"))
        return tuple(f"{STAGING}/{mark.parent.name}/" for mark in marks if mark.read_bytes() == base.encode())


@dataclass(frozen=True)
class Partition:
    """One shard of one cohort. One process at a time encodes it."""

    number: int
    cohort: str
    shard: int  # its number in the cohort's array
    first: int  # row of the plan
    rows: int

    @property
    def named_number(self) -> int:
        """Its number, printed with its cohort: schedulers list their tasks by what they print."""
        return _NamedNumber(self.number, f"{self.cohort}-{self.number}")


class _NamedNumber(int):
    _name: str

    # Unpickled from the number alone, and given its name afterwards.
    def __new__(cls, number: int, name: str = "") -> Self:
        made = super().__new__(cls, number)
        made._name = name
        return made

    def __str__(self) -> str:
        return self._name


class AnyPlan(ABC):
    """A plan, in memory or in a file: its header, and its rows on demand."""

    header: PlanHeader

    @abstractmethod
    def rows(self, partition: Partition, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of one partition, with all columns of `_row_schema` or some of them."""

    @abstractmethod
    def refused(self, cohort: str) -> tuple[Refusal, ...]:
        """Return what the plan refused of one cohort."""

    @staticmethod
    def open(path: Path) -> "AnyPlan":
        """Open a plan file and check its header against its content.

        Raises SpecError if there is no such file, or if it is damaged or of another version.
        """
        try:
            with path.open("rb") as start:
                is_parquet = start.read(len(_MAGIC)) == _MAGIC
        except OSError as error:
            raise SpecError(f"{path}: found no readable plan ({error.strerror}). Make one: ecgcohorts plan.") from None
        if not is_parquet:
            raise SpecError(f"{path}: this file is no plan. Name one that `ecgcohorts plan` wrote.")
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
            notes = file.schema_arrow.metadata or {}
            if notes.get(_VERSION, _FORMAT_VERSION) != _FORMAT_VERSION:
                raise SpecError(f"{path}: another version of this program made this plan. Plan again with this one.")
            # Page checksums cover the rows only; the header needs a sum of its own.
            data = notes.get(_HEADER, b"")
            if hashlib.sha256(data).hexdigest().encode() != notes.get(_SUM):
                raise _damaged(path)
            header = PlanHeader.model_validate_json(data)
            groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        except (pa.ArrowException, OSError, ValidationError):
            raise _damaged(path) from None
        expected = [one.rows for one in header.partitions] + [one.refused for one in header.cohorts if one.refused]
        if groups != expected or not file.schema_arrow.equals(_file_schema(header), check_metadata=False):
            raise _damaged(path)
        return _PlanFile(path, header, file)

    def write(self, path: Path) -> None:
        """Write the plan whole or not at all, readable by its owner only. An older plan of that name is replaced."""
        _refuse_other_content(path)
        header = self.header
        data = header.model_dump_json().encode()
        notes = {_VERSION: _FORMAT_VERSION, _HEADER: data, _SUM: hashlib.sha256(data).hexdigest().encode()}
        schema = _file_schema(header).with_metadata(notes)
        _drop_unfinished(path)
        with machine_errors(path):
            aside, handle = _open_aside(path)
        try:
            with machine_errors(path):
                with os.fdopen(handle, "wb") as file:
                    # No statistics: nobody reads them, and no checksum covers them.
                    with pq.ParquetWriter(
                        file, schema, compression="zstd", write_page_checksum=True, write_statistics=False
                    ) as writer:
                        for partition in header.partitions:
                            writer.write_table(_padded(self.rows(partition), schema), row_group_size=partition.rows)
                        for cohort in header.cohorts:
                            if refused := self.refused(cohort.name):
                                writer.write_table(_refused_table(refused, schema), row_group_size=len(refused))
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(aside, path)  # before the lock goes
                sync_folder(path.parent)
        finally:
            drop(aside)


@dataclass(frozen=True, eq=False)
class Plan(AnyPlan):
    """A plan in memory. Rows are in store order: patients are contiguous, their recordings in order of time."""

    header: PlanHeader
    _files: pa.Array = field(repr=False)
    _rows: pa.Table = field(repr=False)
    _refused: tuple[Refusal, ...] = field(repr=False)
    noted: _Seen = field(default_factory=_Seen, repr=False)  # files met before of which nothing was remembered

    def rows(self, partition: Partition, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = _row_schema(self.header)
        if columns is not None:
            wanted = pa.schema([wanted.field(name) for name in columns])
        # Files are kept once and numbered in the rows; the text of a path is made for one partition at a time.
        rows = self._rows.slice(partition.first, partition.rows)
        if "path" in wanted.names:
            rows = rows.append_column("path", self._files.take(rows["file"].combine_chunks()))
        return rows.select(wanted.names).cast(wanted)

    def refused(self, cohort: str) -> tuple[Refusal, ...]:
        return tuple(one for one in self._refused if one.cohort == cohort)

    def without_inputs(self) -> Self:
        """Return what a commit needs of it: no paths and entries, which are a third of its memory."""
        return replace(self, _files=pa.array([], self._files.type), _rows=self._rows.drop_columns(["file", "entry"]))


def _row_schema(header: PlanHeader) -> pa.Schema:
    """The columns of one partition. `path` and `entry` lead back to the input and never enter a store."""
    return pa.schema(
        [
            ("path", pa.binary()),  # below the source, UTF-8 with surrogateescape
            ("entry", pa.binary()),
            ("recording_id", PSEUDONYM),
            ("patient_id", PSEUDONYM),
            ("patient_known", pa.bool_()),
            ("age", pa.float32()),
            ("sex", pa.int8()),  # SEX_CODES
            ("days", pa.float32()),
            ("site", pa.int32()),  # index into the header's `sites`, -1: unknown
            ("device", pa.int32()),
            ("mains", pa.int8()),  # index into the header's `mains`
            ("state", pa.uint64()),  # of the file: another one after a change
            *([("stored", pa.int64())] if header.update else []),  # entry whose signal it has, -1: to be read
            *((LABEL + name, pa.float32()) for name in header.labels),
        ]
    )


def _refuse_other_content(path: Path) -> None:
    if not path.parent.is_dir():
        raise SourceError(f"{path}: found no folder {path.parent}, expected one to write the plan into. Make it.")
    # An older plan may be replaced, but no other file that happens to have this name.
    if path.exists():
        try:
            AnyPlan.open(path)
        except SpecError:
            raise SpecError(f"{path}: this file is no whole plan. Delete it, or name another.") from None


def _file_schema(header: PlanHeader) -> pa.Schema:
    schema = _row_schema(header)
    for name in _OF_REFUSALS[:-1]:
        kind = pa.binary() if name == "duplicate_of" else pa.string()
        schema = schema.append(pa.field(name, kind))  # null in rows to encode
    return schema


def _padded(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[name] if name in rows.column_names else pa.nulls(len(rows), schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(columns, schema=schema)


def _refused_table(refused: Sequence[Refusal], schema: pa.Schema) -> pa.Table:
    given = {name: [getattr(one, name) for one in refused] for name in ("recording_id", *_OF_REFUSALS)}
    return _padded(pa.table({name: pa.array(given[name], schema.field(name).type) for name in given}), schema)


@dataclass(frozen=True, eq=False)
class _PlanFile(AnyPlan):
    """A plan on disk. It reads its rows a partition at a time."""

    path: Path
    header: PlanHeader
    _file: pq.ParquetFile = field(repr=False)

    def rows(self, partition: Partition, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = _row_schema(self.header).names if columns is None else list(columns)
        return self._group(partition.number, wanted)

    def refused(self, cohort: str) -> tuple[Refusal, ...]:
        with_refusals = [one.name for one in self.header.cohorts if one.refused]
        if cohort not in with_refusals:
            return ()
        group = len(self.header.partitions) + with_refusals.index(cohort)
        return tuple(Refusal(cohort, **row) for row in self._group(group, ["recording_id", *_OF_REFUSALS]).to_pylist())

    def _group(self, number: int, columns: list[str]) -> pa.Table:
        try:
            return self._file.read_row_group(number, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError):
            raise _damaged(self.path) from None


def _damaged(path: Path) -> SpecError:
    return SpecError(f"{path}: this file is no plan, or it is damaged. Plan again: ecgcohorts plan.")
