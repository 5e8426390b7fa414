"""A plan as one file, so that its steps can run in other processes and on other machines.

Parquet: row group I holds the rows of partition I, the groups behind them what the plan refused, one for each cohort that
has any; the header stands as JSON in the metadata of the schema. The file names the paths of the input, so only its owner
may read it (mode 0600). It holds pseudonyms and the fingerprint of the key, never the key.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.ingest.plan import AnyPlan, Part, PlanHeader, Refusal
from ecgcohorts.ingest.plan_table import row_schema
from ecgcohorts.io.durable import drop, machine_errors, name_aside, sync_folder

FORMAT_VERSION = b"1"
_VERSION, _HEADER, _SUM = b"ecgcohorts.plan", b"ecgcohorts.plan.header", b"ecgcohorts.plan.sha256"
_OWNER_ONLY = 0o600
_MAGIC = b"PAR1"


def write_plan(plan: AnyPlan, path: Path) -> None:
    """Write a plan whole or not at all, readable by its owner only. An older plan of that name is replaced."""
    _refuse_other_content(path)
    header = plan.header
    data = header.model_dump_json().encode()
    notes = {_VERSION: FORMAT_VERSION, _HEADER: data, _SUM: hashlib.sha256(data).hexdigest().encode()}
    schema = _schema(header).with_metadata(notes)
    aside = name_aside(path)
    try:
        with machine_errors(path):
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
            with os.fdopen(handle, "wb") as file:
                with pq.ParquetWriter(
                    file, schema, compression="zstd", write_page_checksum=True, write_statistics=False
                ) as writer:
                    for part in header.parts:
                        writer.write_table(_padded(plan.rows(part), schema), row_group_size=part.rows)
                    for cohort in header.cohorts:
                        refused = plan.refused(cohort.name)
                        if refused:
                            writer.write_table(_refused_table(refused, schema), row_group_size=len(refused))
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            sync_folder(path.parent)
    finally:
        drop(aside)


def _refuse_other_content(path: Path) -> None:
    if not path.parent.is_dir():
        raise SourceError(f"{path}: found no folder {path.parent}, expected one to write the plan into. Make it.")
    if path.exists():
        try:
            open_plan(path)
        except SpecError:
            raise SpecError(f"{path}: found a file that is no whole plan. Delete it, or name another.") from None


def _schema(header: PlanHeader) -> pa.Schema:
    schema = row_schema(header.labels)
    for name in ("reason", "error"):
        schema = schema.append(pa.field(name, pa.string()))  # of what the plan refused; null for rows to come
    return schema


def _padded(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[name] if name in rows.column_names else pa.nulls(len(rows), schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(columns, schema=schema)


def _refused_table(refused: Sequence[Refusal], schema: pa.Schema) -> pa.Table:
    given = {name: [getattr(one, name) for one in refused] for name in ("recording_id", "reason", "error")}
    return _padded(pa.table({name: pa.array(given[name], schema.field(name).type) for name in given}), schema)


@dataclass(frozen=True, eq=False)
class PlanFile:
    """A plan on disk. Rows are read a partition at a time."""

    path: Path
    header: PlanHeader
    _file: pq.ParquetFile = field(repr=False)

    @cached_property
    def _refused_groups(self) -> dict[str, int]:
        names = [cohort.name for cohort in self.header.cohorts if cohort.refused]
        return {name: len(self.header.parts) + place for place, name in enumerate(names)}

    def rows(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = row_schema(self.header.labels).names if columns is None else list(columns)
        return self._group(part.number, wanted)

    def refused(self, cohort: str) -> tuple[Refusal, ...]:
        if cohort not in self._refused_groups:
            return ()
        rows = self._group(self._refused_groups[cohort], ["recording_id", "reason", "error"]).to_pylist()
        return tuple(Refusal(cohort, row["recording_id"], "plan", row["reason"], row["error"]) for row in rows)

    def _group(self, number: int, columns: list[str]) -> pa.Table:
        try:
            return self._file.read_row_group(number, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError):
            raise _damaged(self.path) from None


def open_plan(path: Path) -> PlanFile:
    """Open a plan file and check its header against its content.

    Raises SpecError if there is none, it is damaged, or of another version.
    """
    try:
        with path.open("rb") as start:
            is_parquet = start.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise SpecError(f"{path}: found no readable plan ({error.strerror}). Make one: ecgcohorts plan.") from None
    if not is_parquet:
        raise SpecError(f"{path}: found another file, expected a plan. Name one that `ecgcohorts plan` wrote.")
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
        notes = file.schema_arrow.metadata or {}
        if notes.get(_VERSION, FORMAT_VERSION) != FORMAT_VERSION:
            raise SpecError(f"{path}: found a plan of another version. Plan again with this one.")
        data = notes.get(_HEADER, b"")
        if hashlib.sha256(data).hexdigest().encode() != notes.get(_SUM):
            raise _damaged(path)
        header = PlanHeader.model_validate_json(data)
        groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValidationError):
        raise _damaged(path) from None
    expected = [part.rows for part in header.parts] + [one.refused for one in header.cohorts if one.refused]
    if groups != expected or not file.schema_arrow.equals(_schema(header), check_metadata=False):
        raise _damaged(path)
    return PlanFile(path, header, file)


def _damaged(path: Path) -> SpecError:
    return SpecError(f"{path}: this is no plan, or it is damaged. Plan again: ecgcohorts plan.")
