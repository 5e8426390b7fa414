"""Commands for whoever holds the pseudonym key: what they do to a store starts from an id of the source.

Ids go in and never come out; what is printed are pseudonyms and counts.
"""

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from ecgcohorts.cli.console import Command, output, progress

EXIT_NOT_FOUND = 1

_out = output()


class _Keyed(Command):
    """What all of them need."""

    store: CliPositionalArg[str]
    key: Path | None = Field(None, description="pseudonym key file; default: one in the user's configuration folder")


class Id(_Keyed):
    """Find a recording, or all of a patient's, by the id in the source."""

    cohort: CliPositionalArg[str]
    original: CliPositionalArg[str] = Field(description="id as the source has it")
    kind: Literal["recording", "patient"] = "recording"

    def cli_cmd(self) -> None:
        from ecgcohorts.store import open_store
        from ecgcohorts.store.upkeep.lookup import find_by_id

        found = find_by_id(open_store(self.store), self.cohort, self.original, self.kind, self.key)
        _out.print(str(found))
        if not len(found.rows):
            sys.exit(EXIT_NOT_FOUND)


class Label(_Keyed):
    """Add number columns of a CSV to the index of a store, joined by the ids of the source."""

    table: CliPositionalArg[Path] = Field(description="CSV in UTF-8 with a header line")
    cohort: str
    id_column: str = Field(description="column with the ids")
    kind: Literal["recording", "patient"] = Field("recording", description="whose ids they are")
    column: list[str] = Field(description="COLUMN or COLUMN=label; may be repeated")
    replace: bool = Field(False, description="overwrite labels that are there already")

    def cli_cmd(self) -> None:
        from ecgcohorts.store.upkeep.labels import add_labels

        columns = {name: label or name for name, _, label in (text.partition("=") for text in self.column)}
        report = add_labels(
            self.store,
            self.table,
            self.cohort,
            self.key,
            id_column=self.id_column,
            kind=self.kind,
            columns=columns,
            replace=self.replace,
        )
        known = ", ".join(f"{label} {count}" for label, count in report.known.items())
        _out.print(
            f"{report.rows_matched} rows matched, {report.rows_unmatched} not; {report.recordings_matched} recordings "
            f"matched, {report.recordings_unmatched} not; known: {known}; fingerprint {report.fingerprint[:16]}"
        )


class Remove(_Keyed):
    """Take a patient out of a store for good (consent withdrawn): signals, index, splits, and later ingests."""

    cohort: CliPositionalArg[str]
    original: CliPositionalArg[str] = Field(description="patient id as the source has it")

    def cli_cmd(self) -> None:
        from ecgcohorts.store.upkeep.remove import remove_patient

        report = remove_patient(self.store, self.cohort, self.original, self.key)
        if not report.written:
            _out.print("removed before. Nothing written.")
            return
        _out.print(
            f"patient {report.patient}: {report.recordings} recordings removed, {report.shards} shards and "
            f"{report.splits} splits rewritten; {report.copies} refused copies under other ids"
        )


class Compact(_Keyed):
    """Bring the recordings of each patient together again after several ingests; row numbers change."""

    cohort: str | None = Field(None, description="only this one; default: all")

    def cli_cmd(self) -> None:
        from ecgcohorts.store.upkeep.compact import compact

        with progress() as tell:
            report = compact(self.store, self.cohort, self.key, lambda done, total: tell("compact", done, total))
        if not report.written:
            _out.print("nothing to do: one segment a cohort, no empty rows. Nothing written.")
            return
        _out.print(
            f"{', '.join(report.cohorts)}: {report.recordings} recordings of {report.segments} segments in "
            f"{len(report.cohorts)}, {report.empty_rows} empty rows left out; fingerprint {report.fingerprint[:16]}"
        )
        _out.print(f"what was there before stays readable, and takes room, until: ecgcohorts gc {self.store}")
