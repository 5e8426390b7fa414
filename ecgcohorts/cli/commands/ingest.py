"""From raw recordings to a store."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecgcohorts.cli import parameters
from ecgcohorts.cli.console import EXIT_REJECTED, Answer, progress
from ecgcohorts.cli.parameters import COUNT, FILE, FOLDER, FRACTION, NATURAL, OneOf, argument, option
from ecgcohorts.cli.program import command
from ecgcohorts.errors import EcgError, SpecError

if TYPE_CHECKING:
    from ecgcohorts.cohorts.spec import CohortSpec
    from ecgcohorts.ingest.plan import PlanHeader
    from ecgcohorts.ingest.run import IngestOptions, IngestReport
    from ecgcohorts.ingest.trial import Trial

ORDER = 2
_RECIPE = parameters.Name("NAME|FILE", lambda: _recipes(), or_file=True)

max_reject_frac = option(
    "--max-reject-frac", type=FRACTION, default=0.1, help="end with exit code 3 if a larger share was refused"
)
_max_contradictions = option(
    "--max-contradictions",
    type=FRACTION,
    help="refuse, with exit code 3, if the sexes or ages of a larger share of the patients with several recordings contradict "
    "each other; default: the description's, or 0.01",
)
plan_file = argument("plan", FILE, "file made by `ecgcohorts plan`")


def _request(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `ingest` and `plan` are asked for."""
    # Decorators add from the last to the first: reversed, help lists them as they stand here.
    for declare in reversed(
        (
            argument("source", parameters.SOURCE, "folder, tar or zip with raw recordings, or s3://bucket/folder"),
            argument("store", parameters.STORE, "store to make or to add to: folder or URL"),
            option("--cohort", type=parameters.COHORT, required=True, help="preset, or YAML description of the cohort"),
            option("--recipe", type=_RECIPE, default="cape-v1", help="preprocessing, by name or as a YAML file"),
            option("--limit", type=COUNT, help="stop after N inputs, for a trial"),
            option(
                "--on-error",
                type=OneOf("quarantine", "raise"),
                default="quarantine",
                help="set bad recordings aside, or stop at the first",
            ),
            parameters.key,
            option("--shard", type=COUNT, default=4096, help="records in a shard file"),
            option(
                "--codec",
                type=OneOf("lz4", "pcodec"),
                help="compression of the signals: lz4 reads fastest, pcodec takes half the space; default: the store's, "
                "or lz4",
            ),
            _max_contradictions,
            option(
                "--incremental",
                is_flag=True,
                help="open only files that are new or changed since earlier runs, by path, size and time",
            ),
            option(
                "--files",
                type=FILE,
                help="list of the files to look at, a path in SOURCE a line; - reads standard input",
            ),
            option(
                "--update",
                is_flag=True,
                help="take over what the source says now of recordings that the store has met: corrected facts, refused and "
                "replaced files",
            ),
            option("-j", "--workers", type=COUNT, default=1, help="processes"),
            option("--quality/--no-quality", default=True, help="measure the quality of each strip, or leave it out"),
        )
    ):
        function = declare(function)
    return function


@command(
    "ingest",
    "ecgcohorts ingest ptb-xl/ store.zarr --cohort ptb_xl -j 4",
    "ecgcohorts ingest export.zip store.zarr --cohort mine.yaml --dry-run",
)
@_request
@option("--scheduler", type=parameters.Name("URL"), help="Dask scheduler to encode on, such as tcp://host:8786")
@option("--dry-run", is_flag=True, help="plan from headers and tables only: decode nothing, write nothing")
@option("--check", type=COUNT, help="with --dry-run: decode N recordings, spread over folders; names the files refused")
@option(
    "--rejects", type=FILE, help="CSV to write of what was refused, with paths, for your eyes only; outside of store"
)
@option("--work", type=FOLDER, help="folder for new files of a store at a URL; default: your cache folder")
@max_reject_frac
def _ingest(
    *,
    source: str,
    store: str,
    cohort: str,
    scheduler: str | None,
    dry_run: bool,
    check: int | None,
    rejects: Path | None,
    work: Path | None,
    max_reject_frac: float,
    **options: Any,
) -> Answer:
    """Add a cohort to a store; resume an interrupted run.

    Recordings that the store knows are not read again: without new ones, nothing is written.
    """
    from ecgcohorts.cohorts.spec import CohortSpec
    from ecgcohorts.ingest.remarks import Remarks
    from ecgcohorts.ingest.run import ingest
    from ecgcohorts.ingest.runners import Dask

    if rejects is not None and dry_run:
        raise SpecError("found --rejects and --dry-run, which reads no recording. Give one of them.")
    if rejects is not None:
        from ecgcohorts.ingest.refused import RefusedReport

        RefusedReport.check(rejects, store, source)
    if check is not None and not dry_run:
        raise SpecError("found --check without --dry-run, expected both: a run decodes all. Add --dry-run.")
    runner = None if scheduler is None else Dask(scheduler)
    asked = replace(_options(**options), dry_run=dry_run, check=check or 0, runner=runner, work=work)
    with progress() as tell:
        report = ingest(source, store, cohort, asked, progress=tell)
    spec = CohortSpec.load(cohort)
    if report.trial is not None:
        answer = _tried(report, report.trial, Remarks.about(spec), max_reject_frac)
        if asked.update and report.changes is not None:
            answer = replace(answer, text=f"would take over: {report.changes}\n{answer.text}")
        return _behind(report, answer, asked.update)
    if report.written:
        key = "" if asked.key_file is None else f" --key {asked.key_file}"
        see = rejects or f"ecgcohorts rejects {store} {source} --cohort {cohort}{key} -o FILE.csv"
        answer = _ingested(report, max_reject_frac, spec, str(see))
    else:
        text = f"nothing new: {report.known} inputs were met before. Nothing written."
        if asked.update:
            text = "nothing changed: the store has all that the source says. Nothing written."
        answer = Answer(_facts(report), _with_tables(report, text))
    answer = _behind(report, answer, asked.update)
    if rejects is None:
        return answer
    from ecgcohorts.ingest.refused import RefusedReport

    listed = RefusedReport.save(store, source, cohort, rejects, asked.key_file)
    return replace(answer, facts=answer.facts | {"rejects": listed}, text=f"{answer.text}\n{listed}")


@command(
    "plan",
    "ecgcohorts plan ptb-xl/ store.zarr --cohort ptb_xl -o run.plan",
    "ecgcohorts plan export/ store.zarr --cohort mine.yaml -o run.plan --shard 1024",
)
@_request
@option("-o", "--out", type=FILE, required=True, help="plan to write; it names the paths of the input")
def _plan(*, source: str, store: str, cohort: str, out: Path, **options: Any) -> Answer:
    """Lay out the partitions of an ingest on many machines.

    The first of three steps: `ecgcohorts encode` and `ecgcohorts commit` follow. Writes the plan only.
    """
    from ecgcohorts.ingest.run import plan_to_file

    header = plan_to_file(source, store, cohort, out, _options(**options))
    count = len(header.partitions)
    which = f"partitions, 0 to {count - 1}" if count > 1 else "partition, 0" if count else "partitions"
    text = f"{out}: {header.n_rows} recordings in {count} {which}; {header.known} are known already"
    facts = {"out": out, "recordings": header.n_rows, "partitions": count, "known": header.known}
    facts |= {"tables": header.tables, "not_understood": header.not_understood, "changes": header.changes}
    return _behind(header, Answer(facts, _with_tables(header, text)), header.update)


class _Range(click.ParamType):
    """Whole numbers from one to another."""

    name = "N-N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        first, _, last = str(value).partition("-")
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise click.BadParameter(
                f"found {str(value)!r}, expected the first and the last, such as 0-63.", ctx, param
            )
        return range(int(first), int(last) + 1)


@command("encode", "ecgcohorts encode run.plan --partition 0", "ecgcohorts encode run.plan --partitions 64-127 --json")
@plan_file
@option("--partition", type=NATURAL, help="number of the partition, from 0")
@option("--partitions", type=_Range(), help="several in turn: their numbers, which may reach beyond the last one")
@option("--again", is_flag=True, help="also if it is encoded already")
@max_reject_frac
def _encode(
    *, plan: Path, partition: int | None, partitions: range | None, again: bool, max_reject_frac: float
) -> Answer:
    """Encode partitions of a plan: the second step.

    Any number may run at once, anywhere.
    """
    from ecgcohorts.ingest.encode import Staged
    from ecgcohorts.ingest.run import encode_partition
    from ecgcohorts.store.schema import Accounting

    if (partition is None) == (partitions is None):
        raise SpecError("found neither or both of --partition and --partitions, expected one of them.")
    many = partitions is not None
    wanted = list(partitions or ()) if many else [partition or 0]
    header = _header_of(plan)
    if many:
        # A job array of even strides asks for more than there is in its last task. What is missing, the commit says.
        wanted = wanted[: 1 + max(0, len(header.partitions) - 1 - wanted[0])]
    written, parts = [], []
    with progress() as tell:
        for done, number in enumerate(wanted):
            if many:
                tell("encode", done, len(wanted))
            if encode_partition(plan, number, again=again):
                written.append(number)
            parts.append(Staged(header.staging, header.partition(number)).account())
    account = Accounting.total(parts)
    if many:
        text = f"{plan}: partitions {wanted[0]} to {wanted[-1]}: {len(written)} encoded"
        text += f", {len(wanted) - len(written)} were encoded already" if len(written) < len(wanted) else ""
    else:
        text = f"{plan}: partition {partition} {'encoded' if written else 'was encoded already'}"
    facts = {"partitions": wanted, "written": written} if many else {"partition": partition, "written": bool(written)}
    refused = sum(account.rejected.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in account.rejected.items())
    text += f": {account.inputs} recordings = {account.stored} usable + {refused} refused{f' ({reasons})' if reasons else ''}"
    answer = Answer({"plan": plan, **facts, "account": account}, text)
    if refused <= max_reject_frac * account.inputs:
        return answer
    complaint = (
        f"{refused / account.inputs:.0%} of the recordings were refused, more than --max-reject-frac {max_reject_frac:g}. "
        "Does this machine see the whole source? If it did not, mend that and encode again: --again."
    )
    return replace(answer, complaint=complaint, code=EXIT_REJECTED)


def _header_of(plan: Path) -> "PlanHeader":
    from ecgcohorts.ingest.plan import AnyPlan

    return AnyPlan.open(plan).header


@command("commit", "ecgcohorts commit run.plan", "ecgcohorts commit run.plan --max-reject-frac 0.5")
@plan_file
@max_reject_frac
def _commit(*, plan: Path, max_reject_frac: float) -> Answer:
    """Make the encoded partitions of a plan a snapshot: the third step.

    All of them are taken in, or none.
    """
    from ecgcohorts.ingest.run import commit_plan

    report = commit_plan(plan)
    if report.written:
        return _ingested(report, max_reject_frac)
    return Answer(_facts(report), f"{plan}: committed already. Nothing written.")


def _options(*, key: Path | None, shard: int, files: Path | None, **options: Any) -> "IngestOptions":
    from ecgcohorts.ingest.run import IngestOptions

    listed = None
    if files is not None:
        try:
            # Names of files need not be UTF-8.
            text = sys.stdin.buffer.read() if str(files) == "-" else files.read_bytes()
        except OSError as error:
            raise SpecError(f"{files}: found no readable list ({error.strerror}), expected one path a line.") from None
        listed = tuple(line for line in os.fsdecode(text).splitlines() if line.strip())
    return IngestOptions(key_file=key, shard_records=shard, files=listed, **options)


def _recipes() -> list[str]:
    from ecgcohorts.preprocess.recipes import recipe_names

    return recipe_names()


def _facts(report: "IngestReport") -> dict[str, Any]:
    return {
        "store": report.store,
        "written": report.written,
        "to_decode": report.plan_rows,
        "known": report.known,
        "changes": report.changes,
        "lost": report.lost,
        "patients": report.patients,
        "cohorts": report.accounting,
        "total": report.total,
        "reject_fraction": report.reject_fraction,
        "fingerprint": report.fingerprint,
        "tables": report.tables,
        "not_understood": report.not_understood,
        "left_out": report.left_out,
    }


def _tried(report: "IngestReport", trial: "Trial", remarks: list[str], max_reject_frac: float) -> Answer:
    """Give what a dry run found out, with the exit code that a run would have."""
    signals = "Signals of the others were not looked at" if trial.sampled else "Signals were not looked at"
    last = f"would decode {report.plan_rows} recordings; {report.known} are known already. {signals}; nothing written."
    text = _with_tables(report, "\n".join([*_patients(report), *trial.lines(), *remarks, last]))
    facts = _facts(report) | {"trial": trial, "remarks": remarks}
    if trial.astray:
        return Answer(facts, text, trial.astray, EXIT_REJECTED)
    if trial.expected_fraction <= max_reject_frac:
        return Answer(facts, text)
    see = "" if trial.sampled or any(one.path for one in trial.headers_refuse) else " See an example: --check 1."
    about = "about " if trial.sampled < trial.to_decode and trial.decoding_refuses else ""
    complaint = (
        f"a run would refuse {about}{trial.expected_fraction:.0%} of the new inputs, more than --max-reject-frac "
        f"{max_reject_frac:g}.{see}"
    )
    return Answer(facts, text, complaint, EXIT_REJECTED)


def _behind(found: "IngestReport | PlanHeader", answer: Answer, is_update: bool) -> Answer:
    """Add the complaint that the store is behind its source, with exit code 3, unless the run took that over."""
    complaint = answer.complaint
    if found.changes and not is_update:
        complaint = " ".join(
            filter(None, [complaint, f"{found.changes}: the store is behind. Take it over: --update."])
        )
    return replace(answer, complaint=complaint, code=EXIT_REJECTED if complaint else answer.code)


def _with_tables(found: "IngestReport | PlanHeader", text: str) -> str:
    """Put what became of tables, texts and links of the source before the last word of a run."""
    kinds = ", ".join(f"{count:,} x {kind}" for kind, count in found.left_out.items())
    left_out = [f"in the source, but no files: {kinds}"] if kinds else []
    return "\n".join([*map(str, found.tables), *map(str, found.not_understood), *left_out, text])


def _ingested(
    report: "IngestReport", max_reject_frac: float, spec: "CohortSpec | None" = None, see: str = ""
) -> Answer:
    """Give the accounts of a run and what stands out; exit code 3 if more than a fraction was refused.

    see: file or command that says which.
    """
    lines = [f"{report.known} inputs were met before"] if report.known else []
    lines += [*_patients(report), *report.lost]
    lines += [f"{name}: {_account(part)}" for name, part in report.accounting.items()]
    lines.append(f"{report.store}: {_account(report.total)}; fingerprint {report.fingerprint[:16]}")
    remarks = _remarks(report, spec) if report.written else []
    facts, text = _facts(report) | {"remarks": remarks}, _with_tables(report, "\n".join([*lines, *remarks]))
    if report.reject_fraction <= max_reject_frac:
        return Answer(facts, text)
    complaint = (
        f"{report.reject_fraction:.0%} of the inputs were refused, more than --max-reject-frac {max_reject_frac:g}. "
        f"See which: {see or f'ecgcohorts rejects {report.store} SOURCE --cohort NAME -o FILE.csv'}."
    )
    return Answer(facts, text, complaint, EXIT_REJECTED)


def _remarks(report: "IngestReport", spec: "CohortSpec | None") -> list[str]:
    from ecgcohorts.ingest.remarks import Remarks
    from ecgcohorts.store.reader import open_store

    said = Remarks.about(spec) if spec is not None else []
    # The snapshot is in force: whatever hinders another look at it, the run has succeeded.
    with suppress(EcgError):
        said += Remarks.on(open_store(report.store), list(report.accounting), spec)
    return said


def _patients(report: "IngestReport") -> list[str]:
    """Return what was found about patients with two or more recordings, if there are any."""
    return [str(report.patients)] if report.patients is not None and report.patients.repeated else []


def _account(part: Any) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in part.rejected.items())
    refused = sum(part.rejected.values())
    return f"{part.inputs} inputs = {part.stored} stored + {part.duplicates} duplicates + {refused} rejected" + (
        f" ({reasons})" if reasons else ""
    )
