"""The `ecgcohorts` command: parse, call one function, print."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict
from rich.table import Table

from ecgcohorts.console import EXIT_DAMAGED, Command, fail, output, progress, run

PROGRAM = "ecgcohorts"
EXIT_REJECTS = 3  # finished, but more was refused than --max-reject-frac allows

_out = output()


def _short(letter: str, name: str) -> AliasChoices:
    return AliasChoices(letter, name)


class Inspect(Command):
    """What is in a folder: formats, rates, leads, units, lengths, missing metadata. Writes nothing."""

    source: CliPositionalArg[Path] = Field(description="folder with raw recordings")
    sample: int = Field(200, gt=0, description="files to read, evenly spread")

    def cli_cmd(self) -> None:
        from ecgcohorts.ingest.inspect import inspect, render

        _out.print(render(inspect(self.source, sample=self.sample)))


class Ingest(Command):
    """Add a cohort to a store; resumes an interrupted run, and does nothing if there is nothing new."""

    source: CliPositionalArg[Path] = Field(description="folder with raw recordings")
    store: CliPositionalArg[Path] = Field(description="store to make or to add to")
    cohort: str = Field(description="preset (see `ecgcohorts cohorts`) or YAML description")
    recipe: str = Field("cape-v1", description="preprocessing recipe")
    workers: Annotated[int, Field(gt=0, validation_alias=_short("j", "workers"), description="processes")] = 1
    limit: int | None = Field(None, gt=0, description="inputs, for a trial")
    dry_run: bool = Field(False, description="plan only, write nothing")
    on_error: Literal["quarantine", "raise"] = Field("quarantine", description="what to do with a bad recording")
    key: Path | None = Field(None, description="pseudonym key file; default: one in the user's configuration folder")
    shard: int = Field(4096, gt=0, description="records in a shard file")
    quality: bool = Field(True, description="measure the quality of each strip")
    max_reject_frac: float = Field(0.1, ge=0, le=1, description="more refused than this: exit code 3")

    def cli_cmd(self) -> None:
        from ecgcohorts.ingest import IngestOptions, ingest

        options = IngestOptions(
            recipe=self.recipe,
            workers=self.workers,
            limit=self.limit,
            on_error=self.on_error,
            shard_records=self.shard,
            dry_run=self.dry_run,
            key_file=self.key,
            quality=self.quality,
        )
        with progress() as tell:
            report = ingest(self.source, self.store, self.cohort, options, progress=tell)
        if self.dry_run:
            _out.print(
                f"would decode {report.plan_rows} recordings; {report.known} are known already. Nothing written."
            )
            return
        if not report.written:
            _out.print(f"nothing new: {report.known} inputs were met before. Nothing written.")
            return
        if report.known:
            _out.print(f"{report.known} inputs were met before")
        for name, part in report.accounting.items():
            _out.print(f"{name}: {_account(part)}")
        _out.print(f"{self.store}: {_account(report.total)}; fingerprint {report.fingerprint[:16]}")
        if report.reject_fraction > self.max_reject_frac:
            fail(
                PROGRAM,
                f"{report.reject_fraction:.0%} of the inputs were refused, more than --max-reject-frac "
                f"{self.max_reject_frac:g}. Look at `ecgcohorts info {self.store}`.",
                EXIT_REJECTS,
            )


class Verify(Command):
    """Check every byte of a store against its manifest, and its index against its signals."""

    store: CliPositionalArg[Path]

    def cli_cmd(self) -> None:
        from ecgcohorts.store import verify

        with progress() as tell:
            report = verify(self.store, progress=lambda done, total: tell("verify", done, total))
        for problem in report.problems:
            _out.print(problem)
        if not report.ok:
            fail(PROGRAM, f"{self.store}: {len(report.problems)} problems.", EXIT_DAMAGED)
        size = report.bytes / 1e6
        _out.print(
            f"{self.store}: {report.files} files, {size:.1f} MB, {report.recordings} recordings: all as committed."
        )


class Info(Command):
    """Cohorts, patients, recordings, recipe and accounts of a store."""

    store: CliPositionalArg[Path]
    as_json: Annotated[bool, Field(validation_alias=AliasChoices("json"), description="for programs")] = False

    def cli_cmd(self) -> None:
        from ecgcohorts.store.info import describe, render

        facts = describe(self.store)
        if self.as_json:
            print(json.dumps(facts, indent=2))
        else:
            _out.print(render(facts))


class Table1(Command):
    """Who is in a store: patients, recordings, age, sex per cohort."""

    store: CliPositionalArg[Path]

    def cli_cmd(self) -> None:
        from ecgcohorts.report.table1 import table1, table1_text
        from ecgcohorts.store import open_store

        _out.print(table1_text(table1(open_store(self.store).index)))


class Plot(Command):
    """Draw one recording on ECG paper, as SVG."""

    store: CliPositionalArg[Path]
    record: CliPositionalArg[str] = Field(description="row, or recording id")
    out: Annotated[Path, Field(validation_alias=_short("o", "out"))]

    def cli_cmd(self) -> None:
        from ecgcohorts.report.paper import plot_record
        from ecgcohorts.store import open_store

        plot_record(open_store(self.store), self.record, self.out)
        _out.print(f"{self.out}")


class Report(Command):
    """One self-contained HTML page about a store."""

    store: CliPositionalArg[Path]
    out: Annotated[Path, Field(validation_alias=_short("o", "out"))]

    def cli_cmd(self) -> None:
        from ecgcohorts.report.html import report
        from ecgcohorts.store import open_store

        report(open_store(self.store), self.out)
        _out.print(f"{self.out}")


class Simulate(Command):
    """Write three raw cohorts (WFDB, MUSE XML, HDF5) with known physiology and one device signature each."""

    out: CliPositionalArg[Path]
    patients: int = Field(200, gt=0, description="per cohort")
    seed: int = 0

    def cli_cmd(self) -> None:
        from ecgcohorts.simulate import simulate

        with progress() as tell:
            report = simulate(
                self.out,
                patients_per_cohort=self.patients,
                seed=self.seed,
                progress=lambda done, total: tell("simulate", done, total),
            )
        _out.print(str(report))


class Formats(Command):
    """Raw formats this installation reads."""

    def cli_cmd(self) -> None:
        from ecgcohorts.plugins import load, names

        _print_plugins(
            (name, " ".join(load("ecgcohorts.readers", name).SUFFIXES), load("ecgcohorts.readers", name).__doc__)
            for name in names("ecgcohorts.readers")
        )


class Cohorts(Command):
    """Cohort presets this installation knows."""

    def cli_cmd(self) -> None:
        from ecgcohorts.plugins import load, names

        _print_plugins(
            (name, load("ecgcohorts.cohorts", name).SPEC.title, load("ecgcohorts.cohorts", name).SPEC.licence)
            for name in names("ecgcohorts.cohorts")
        )


def _print_plugins(rows: Iterator[tuple[str, str, str | None]]) -> None:
    table = Table(box=None, show_header=False)
    for name, middle, text in rows:
        table.add_row(name, middle, (text or "").strip().splitlines()[0])
    _out.print(table)


class Ecgcohorts(
    BaseSettings,
    cli_parse_args=False,
    cli_prog_name="ecgcohorts",
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_exit_on_error=True,
    cli_avoid_json=True,
):
    """ECG cohorts of any origin as one Zarr store."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix="ECGCOHORTS_CLI_")

    inspect: CliSubCommand[Inspect]
    ingest: CliSubCommand[Ingest]
    verify: CliSubCommand[Verify]
    info: CliSubCommand[Info]
    table1: CliSubCommand[Table1]
    plot: CliSubCommand[Plot]
    report: CliSubCommand[Report]
    simulate: CliSubCommand[Simulate]
    formats: CliSubCommand[Formats]
    cohorts: CliSubCommand[Cohorts]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def _account(part: object) -> str:
    from ecgcohorts.store.schema import Accounting

    assert isinstance(part, Accounting)
    reasons = ", ".join(f"{count} {reason}" for reason, count in part.rejected.items())
    refused = sum(part.rejected.values())
    return f"{part.inputs} inputs = {part.stored} stored + {part.duplicates} duplicates + {refused} rejected" + (
        f" ({reasons})" if reasons else ""
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    run(Ecgcohorts, PROGRAM, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
