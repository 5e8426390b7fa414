"""The `ecgcohorts` command: parse, call one function, print."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict
from rich.table import Table

from ecgcohorts.cli.console import EXIT_DAMAGED, Command, fail, output, progress, run, short
from ecgcohorts.cli.keyed import Compact, Id, Label, Remove
from ecgcohorts.cli.remote import Copy, Unlock
from ecgcohorts.cli.splits import Split
from ecgcohorts.cli.views import Export, Info, Plot, Report, Table1

if TYPE_CHECKING:
    from ecgcohorts.ingest import IngestOptions, IngestReport

PROGRAM = "ecgcohorts"
SOURCE = "folder, tar or zip with raw recordings, or s3://bucket/folder"
EXIT_REJECTS = 3  # finished, but more was refused than --max-reject-frac allows

_out = output()


class Inspect(Command):
    """What is in a folder: every file by class; formats, rates, leads, lengths of its recordings. Writes nothing."""

    source: CliPositionalArg[str] = Field(description=SOURCE)
    sample: int = Field(200, gt=0, description="recordings to decode, spread over formats and folders")
    as_json: Annotated[bool, Field(validation_alias=AliasChoices("json"), description="for programs")] = False

    def cli_cmd(self) -> None:
        from ecgcohorts.ingest.inspect import as_json, inspect, render

        with progress() as tell:
            found = inspect(self.source, self.sample, lambda done: tell("files", done, done))
        if self.as_json:
            print(json.dumps(as_json(found), indent=2))
        else:
            _out.print(render(found), soft_wrap=False)


class Draft(Command):
    """Write a first description of a cohort, its guesses and gaps marked, for you to finish."""

    source: CliPositionalArg[str] = Field(description=SOURCE)
    table: CliPositionalArg[Path | None] = Field(None, description="CSV with a row per recording")
    out: Annotated[Path, Field(validation_alias=short("o", "out"), description="cohort file to write, .yaml")]
    sample: int = Field(200, gt=0, description="recordings to look at")
    force: bool = Field(False, description="replace the cohort file")

    def cli_cmd(self) -> None:
        from ecgcohorts.ingest.draft import check_out, draft, write_draft

        check_out(self.out, self.force)
        made = draft(self.source, self.table, self.sample)
        write_draft(made, self.out, self.force)
        for what in made.left_out:
            _out.print(f"left out: {what}")
        _out.print(f"{self.out}: describes {made.n_files:,} {made.reader} files.")
        _out.print(f"Check {made.guesses} lines marked guess, fill in {made.unknowns} marked unknown, then try")
        _out.print(f"ecgcohorts ingest {self.source} STORE --cohort {self.out} --dry-run")


class _Request(Command):
    """What `ingest` and `plan` are asked for."""

    source: CliPositionalArg[str] = Field(description=SOURCE)
    store: CliPositionalArg[str] = Field(description="store to make or to add to: folder or URL")
    cohort: str = Field(description="preset (see `ecgcohorts cohorts`) or YAML description")
    recipe: str = Field("cape-v1", description="preprocessing recipe")
    limit: int | None = Field(None, gt=0, description="inputs, for a trial")
    on_error: Literal["quarantine", "raise"] = Field("quarantine", description="what to do with a bad recording")
    key: Path | None = Field(None, description="pseudonym key file; default: one in the user's configuration folder")
    shard: int = Field(4096, gt=0, description="records in a shard file")
    codec: Literal["lz4", "pcodec"] | None = Field(
        None, description="of the signals: lz4 reads fastest, pcodec takes half the space; default: the store's, or lz4"
    )
    quality: bool = Field(True, description="measure the quality of each strip")

    def options(self) -> "IngestOptions":
        from ecgcohorts.ingest import IngestOptions

        return IngestOptions(
            recipe=self.recipe,
            limit=self.limit,
            on_error=self.on_error,
            shard_records=self.shard,
            codec=self.codec,
            key_file=self.key,
            quality=self.quality,
        )


class Ingest(_Request):
    """Add a cohort to a store; resumes an interrupted run, and does nothing if there is nothing new."""

    workers: Annotated[int, Field(gt=0, validation_alias=short("j", "workers"), description="processes")] = 1
    scheduler: str | None = Field(None, description="Dask scheduler to encode on, such as tcp://host:8786")
    dry_run: bool = Field(False, description="plan only, write nothing")
    work: Path | None = Field(None, description="folder for new files of a store at a URL; default: the user's cache")
    max_reject_frac: float = Field(0.1, ge=0, le=1, description="more refused than this: exit code 3")

    def cli_cmd(self) -> None:
        from ecgcohorts.ingest import ingest
        from ecgcohorts.ingest.runners import Dask

        runner = None if self.scheduler is None else Dask(self.scheduler)
        options = replace(self.options(), workers=self.workers, dry_run=self.dry_run, runner=runner, work=self.work)
        with progress() as tell:
            report = ingest(self.source, self.store, self.cohort, options, progress=tell)
        if self.dry_run:
            _out.print(
                f"would decode {report.plan_rows} recordings; {report.known} are known already. Nothing written."
            )
        elif not report.written:
            _out.print(f"nothing new: {report.known} inputs were met before. Nothing written.")
        else:
            _print_ingested(self.store, report, self.max_reject_frac)


class Plan(_Request):
    """The first of three steps of an ingest on many machines: lay out the partitions. Writes the plan only."""

    out: Annotated[Path, Field(validation_alias=short("o", "out"), description="plan to write; names input paths")]

    def cli_cmd(self) -> None:
        from ecgcohorts.ingest import plan_to_file

        header = plan_to_file(self.source, self.store, self.cohort, self.out, self.options())
        last = len(header.partitions) - 1
        which = f"partitions, 0 to {last}" if last > 0 else "partition, 0" if last == 0 else "partitions"
        _out.print(f"{self.out}: {header.n_rows} recordings in {last + 1} {which}; {header.known} are known already")


class Encode(Command):
    """The second step: encode one partition of a plan. Any number may run at once, anywhere."""

    plan: CliPositionalArg[Path] = Field(description="file from `ecgcohorts plan`")
    partition: int = Field(ge=0, description="number of the partition, from 0")

    def cli_cmd(self) -> None:
        from ecgcohorts.ingest import encode_partition

        wrote = encode_partition(self.plan, self.partition)
        _out.print(f"{self.plan}: partition {self.partition} {'encoded' if wrote else 'was encoded already'}")


class Commit(Command):
    """The third step: make the encoded partitions of a plan a snapshot, all of them or none."""

    plan: CliPositionalArg[Path] = Field(description="file from `ecgcohorts plan`")
    max_reject_frac: float = Field(0.1, ge=0, le=1, description="more refused than this: exit code 3")

    def cli_cmd(self) -> None:
        from ecgcohorts.ingest import commit_plan

        report = commit_plan(self.plan)
        if report.written:
            _print_ingested(report.store, report, self.max_reject_frac)
        else:
            _out.print(f"{self.plan}: committed already. Nothing written.")


def _print_ingested(store: Path | str, report: "IngestReport", max_reject_frac: float) -> None:
    """The accounts of a run; ends with exit code 3 if more than a fraction was refused."""
    if report.known:
        _out.print(f"{report.known} inputs were met before")
    for name, part in report.accounting.items():
        _out.print(f"{name}: {_account(part)}")
    _out.print(f"{store}: {_account(report.total)}; fingerprint {report.fingerprint[:16]}")
    if report.reject_fraction > max_reject_frac:
        fail(
            PROGRAM,
            f"{report.reject_fraction:.0%} of the inputs were refused, more than --max-reject-frac "
            f"{max_reject_frac:g}. Look at `ecgcohorts info {store}`.",
            EXIT_REJECTS,
        )


class Verify(Command):
    """Check every byte of a store against its manifest, its index against its signals, and both against the source."""

    store: CliPositionalArg[str]
    against: str | None = Field(None, description="raw recordings, as for ingest: decode them again, compare all")
    cohort: str = Field("", description="with --against: preset or YAML description they were ingested with")
    key: Path | None = Field(None, description="with --against: pseudonym key file")

    def cli_cmd(self) -> None:
        from ecgcohorts.store import verify

        if (self.against is None) == bool(self.cohort):
            fail(PROGRAM, "found one of --against and --cohort, expected both or neither.")

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
        if self.against is not None:
            self._compare(self.against)

    def _compare(self, source: str) -> None:
        from ecgcohorts.ingest.against import verify_against

        with progress() as tell:
            report = verify_against(
                self.store, source, self.cohort, self.key, lambda done, total: tell("compare", done, total)
            )
        for problem in report.problems:
            _out.print(problem)
        if not report.ok:
            counts = f"{report.differing} differ, {report.gone} gone from the source, {report.unknown} never ingested"
            fail(PROGRAM, f"{self.store}: {counts}.", EXIT_DAMAGED)
        refused = ", ".join(f"{count} {reason}" for reason, count in report.refused.items()) or "none"
        _out.print(f"{self.store}: {report.compared} recordings equal their source; not stored: {refused}")


class Gc(Command):
    """Delete the snapshots before the one in force; until then they stay readable."""

    store: CliPositionalArg[Path]

    def cli_cmd(self) -> None:
        from ecgcohorts.store.upkeep.garbage import collect_garbage

        files, size = collect_garbage(self.store)
        _out.print(f"{self.store}: {files} files, {size / 1e6:.1f} MB deleted")


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
    """Raw formats this installation reads, and which of their variants."""

    def cli_cmd(self) -> None:
        from ecgcohorts.plugins import load, names

        table = Table(box=None, pad_edge=False)
        for title in ("format", "files", "read"):
            table.add_column(title, overflow="fold", no_wrap=title == "format")
        for name in names("ecgcohorts.readers"):
            module = load("ecgcohorts.readers", name)
            variants = "".join(f"\n- {variant}" for variant in getattr(module, "VARIANTS", ()))
            table.add_row(name, "\n".join(module.SUFFIXES), _first_line(module.__doc__) + variants)
        _out.print(table, soft_wrap=False)


class Cohorts(Command):
    """Cohort presets this installation knows."""

    def cli_cmd(self) -> None:
        from ecgcohorts.plugins import load, names

        _print_plugins(
            (
                name,
                load("ecgcohorts.cohorts.presets", name).SPEC.title,
                load("ecgcohorts.cohorts.presets", name).SPEC.licence,
            )
            for name in names("ecgcohorts.cohorts.presets")
        )


def _print_plugins(rows: Iterator[tuple[str, str, str | None]]) -> None:
    table = Table(box=None, show_header=False)
    for name, middle, text in rows:
        table.add_row(name, middle, _first_line(text))
    _out.print(table)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


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
    draft: CliSubCommand[Draft]
    ingest: CliSubCommand[Ingest]
    plan: CliSubCommand[Plan]
    encode: CliSubCommand[Encode]
    commit: CliSubCommand[Commit]
    verify: CliSubCommand[Verify]
    id: CliSubCommand[Id]
    label: CliSubCommand[Label]
    remove: CliSubCommand[Remove]
    compact: CliSubCommand[Compact]
    gc: CliSubCommand[Gc]
    split: CliSubCommand[Split]
    copy_: CliSubCommand[Copy] = Field(validation_alias="copy")  # `copy` is a method of every model
    unlock: CliSubCommand[Unlock]
    info: CliSubCommand[Info]
    table1: CliSubCommand[Table1]
    plot: CliSubCommand[Plot]
    report: CliSubCommand[Report]
    export: CliSubCommand[Export]
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
