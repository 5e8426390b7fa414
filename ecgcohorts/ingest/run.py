"""plan -> encode every shard -> commit: in one call, or as three steps that share a plan file."""

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ecgcohorts.cohort_files import find_layout
from ecgcohorts.cohort_spec import CohortSpec, load_spec
from ecgcohorts.errors import EcgError, KeyMismatch, RecipeMismatch, SourceError, SpecError, StoreError
from ecgcohorts.ingest.commit import (
    commit,
    digest_of_spec,
    fingerprint_of,
    is_committed,
    known_to,
    mark_staging,
    plans_under_way,
    shard_path,
)
from ecgcohorts.ingest.encode import EncodeTask, Staged, encode, is_done, staging_of, task_of
from ecgcohorts.ingest.plan import AnyPlan, Part, Plan, PlanHeader, Target, make_plan, part_named, uri_of
from ecgcohorts.ingest.plan_file import open_plan, write_plan
from ecgcohorts.ingest.runners import InProcess, ProcessPool, Runner, WorkerDied
from ecgcohorts.pseudonyms import load_key
from ecgcohorts.recipes import CAPE_V1, get_recipe
from ecgcohorts.store.commit import refuse_foreign_folder, refuse_nested, remove_unlisted, writer_lock
from ecgcohorts.store.durable import machine_errors, make_folder
from ecgcohorts.store.lookup import REMOVED
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.schema import CURRENT, DEFAULT_SHARD_RECORDS, Accounting
from ecgcohorts.store.shards import SHARD_RECORDS_LIMIT

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class IngestOptions:
    """How to ingest, beside what. Stored bytes depend on `recipe`, `shard_records`, `quality` and the key only."""

    recipe: str = CAPE_V1.name
    workers: int = 1  # processes of this machine; 1: in this one, with plain tracebacks
    limit: int | None = None  # inputs, for a trial
    on_error: Literal["quarantine", "raise"] = "quarantine"
    shard_records: int = DEFAULT_SHARD_RECORDS
    dry_run: bool = False
    key_file: Path | None = None
    quality: bool = True  # False: quality measures are left unknown, which saves about half of the time
    runner: Runner | None = None  # instead of `workers`
    plan_file: Path | None = None  # where a runner on other machines finds the plan; None: beside the store

    def __post_init__(self) -> None:
        if self.shard_records > SHARD_RECORDS_LIMIT:
            raise SpecError(f"found shard_records={self.shard_records}, expected at most {SHARD_RECORDS_LIMIT}.")
        for name in ("workers", "shard_records"):
            if getattr(self, name) < 1:
                raise SpecError(f"found {name}={getattr(self, name)}, expected 1 or more.")
        if self.limit is not None and self.limit < 1:
            raise SpecError(f"found limit={self.limit}, expected 1 or more.")


@dataclass(frozen=True)
class IngestReport:
    """What one run did: per cohort, inputs = stored + duplicates + rejected. `known`: inputs met in earlier runs."""

    accounting: dict[str, Accounting]
    known: int
    fingerprint: str  # of the store afterwards; empty after a dry run into nothing
    written: bool
    store: Path
    plan_rows: int = field(default=0)

    @property
    def total(self) -> Accounting:
        reasons: dict[str, int] = {}
        for one in self.accounting.values():
            for reason, count in one.rejected.items():
                reasons[reason] = reasons.get(reason, 0) + count
        return Accounting(
            inputs=sum(one.inputs for one in self.accounting.values()),
            stored=sum(one.stored for one in self.accounting.values()),
            duplicates=sum(one.duplicates for one in self.accounting.values()),
            rejected=dict(sorted(reasons.items())),
        )

    @property
    def reject_fraction(self) -> float:
        total = self.total
        return sum(total.rejected.values()) / total.inputs if total.inputs else 0.0


def ingest(
    source: str | Path,
    store: str | Path,
    cohort: str | CohortSpec,
    options: IngestOptions = IngestOptions(),
    *,
    progress: Progress | None = None,
) -> IngestReport:
    """Add the recordings below `source` to a store, which is made if it is not there.

    cohort: name of a preset, path of a YAML description, or a CohortSpec. An interrupted run is resumed by the
    same call; a finished one finds nothing to do and writes nothing. Raises EcgError subclasses.
    """
    folder = Path(store)
    job = _Job(Path(source), folder, cohort, options)
    if options.dry_run:
        before = job.open_before()
        return _nothing_written(job.plan(before), before)
    find_layout(job.spec.layouts, job.root)  # is there anything to read? Before the store's folder is made
    with writer_lock(folder):
        before = job.open_before()
        plan = job.plan(before)
        under_way = plans_under_way(folder, plan.header.base)
        if not plan.header.n_inputs:
            remove_unlisted(folder, before.manifest if before else None, keep_folders=under_way)
            return _nothing_written(plan, before)
        done = [part for part in plan.header.parts if is_done(*_files(plan.header, part))]
        _clear(plan.header, before, done, under_way)
        _encode(plan, {part.number for part in done}, options, progress)
        return _commit(plan, before)


def plan_to_file(
    source: str | Path,
    store: str | Path,
    cohort: str | CohortSpec,
    path: str | Path,
    options: IngestOptions = IngestOptions(),
) -> PlanHeader:
    """The first of three steps: what `ingest` would do, into a file. Nothing is written to the store.

    The file names the paths of the input: only its owner may read it. `len(header.parts)` is the number of partitions,
    each for one call of `encode_partition`. Raises EcgError subclasses; SourceError if there is nothing new.
    """
    folder = Path(store)
    job = _Job(Path(source), folder, cohort, options)
    for inside in (folder, job.root):
        if Path(path).resolve().is_relative_to(inside.resolve()):
            raise SpecError(f"{path}: found the plan inside {inside}, expected it outside of input and store.")
    plan = job.plan(job.open_before())
    if not plan.header.n_inputs:
        raise SourceError(f"{source}: found nothing new: all {plan.header.known} inputs were met before.")
    write_plan(plan, Path(path))
    return plan.header


def encode_partition(path: str | Path, partition: int) -> bool:
    """The second step, for one partition of a plan file. False if it was done already.

    Any number of these may run at once, on any machine that sees input and store under the same paths. Nothing that a
    reader sees is written. Raises SpecError for a number the plan has not, or another version of a library that decides
    bytes; StoreError if the store is no longer the one planned for.
    """
    plan = open_plan(Path(path))
    header = plan.header
    part = part_named(header, partition)
    _check_versions(Path(path), header)
    with machine_errors(header.folder):
        _refuse_stale(header)
        refuse_foreign_folder(header.folder)
        make_folder(staging_of(header))
        mark_staging(header)
        if is_done(*_files(header, part)):
            return False
        try:
            encode(task_of(plan, part))
        finally:
            # Who commits in the meantime clears staging away; what was written since would stay as litter.
            if fingerprint_of(header.folder) != header.base:
                Staged(staging_of(header), part).remove()
        _refuse_stale(header)
    return True


def commit_plan(path: str | Path) -> IngestReport:
    """The third step: all partitions of a plan file into a snapshot that readers see.

    `written` is False if the store has all of it already. Raises StoreError naming the partitions that are missing, or if
    another writer was faster; LockHeld if one is at work.
    """
    plan = open_plan(Path(path))
    header = plan.header
    _check_versions(Path(path), header)
    refuse_foreign_folder(header.folder)
    with writer_lock(header.folder):
        before = open_store(header.folder) if (header.folder / CURRENT).exists() else None
        if fingerprint_of(header.folder) != header.base:
            if before is not None and is_committed(plan, known_to(before)):
                under_way = plans_under_way(header.folder, before.fingerprint)
                remove_unlisted(header.folder, before.manifest, keep_folders=under_way)
                return _nothing_written(plan, before)
            _refuse_stale(header)
        _clear(header, before, header.parts, plans_under_way(header.folder, header.base))
        return _commit(plan, before)


class _Job:
    """One request, its parts looked up and checked before anything is read."""

    def __init__(self, source: Path, folder: Path, cohort: str | CohortSpec, options: IngestOptions) -> None:
        if not source.is_dir():
            what = "a file" if source.exists() else "no such folder"
            raise SourceError(f"{source}: found {what}, expected the folder with the recordings.")
        refuse_nested(source, folder)
        self.root, self.folder, self.options = source, folder, options
        self.spec = cohort if isinstance(cohort, CohortSpec) else load_spec(cohort)
        self.recipe = get_recipe(options.recipe)
        self.key = load_key(options.key_file)
        refuse_foreign_folder(folder)

    def open_before(self) -> Store | None:
        """The snapshot to extend. Raises RecipeMismatch or KeyMismatch if it is of another kind."""
        if not (self.folder / CURRENT).exists():
            return None
        store = open_store(self.folder)
        if store.recipe != self.recipe:
            raise RecipeMismatch(
                f"{self.folder}: found a store of recipe {store.recipe.name}, expected {self.recipe.name}. "
                f"Name another store, or pass --recipe {store.recipe.name}."
            )
        if store.manifest.key_fingerprint != self.key.fingerprint:
            raise KeyMismatch(
                f"{self.folder}: made with another pseudonym key. Pass that key: --key FILE, or name another store."
            )
        return store

    def plan(self, before: Store | None) -> Plan:
        target = Target(
            source=uri_of(self.root),
            store=uri_of(self.folder),
            spec=self.spec,
            recipe=self.recipe,
            shard_records=self.options.shard_records,
            quality=self.options.quality,
            on_error=self.options.on_error,
            key_fingerprint=self.key.fingerprint,
            generation=before.manifest.generation + 1 if before else 1,
            base=before.fingerprint if before else "",
            versions=_versions(),
        )
        plan = make_plan(target, self.key, known_to(before), self.options.limit)
        if before is None and not plan.header.n_inputs:
            raise SourceError(f"{self.root}: found files but no recordings in them, expected some.")
        if not self.options.dry_run:
            _refuse_another_description(before, plan.header)
            _raise_first_refusal(plan)
        return plan


def _refuse_another_description(before: Store | None, header: PlanHeader) -> None:
    """Two descriptions of one name would make one person of two patients with the same number."""
    mine = digest_of_spec(header)
    for segment in before.segments if before else ():
        if segment.cohort in {cohort.name for cohort in header.cohorts} and segment.spec_sha256 != mine:
            raise SpecError(
                f"cohort {segment.cohort!r}: the store has it by another description. Give the new cohort a name of its "
                "own, or ingest with the description of the first."
            )


def _raise_first_refusal(plan: Plan) -> None:
    if plan.header.on_error == "quarantine":
        return
    for cohort in plan.header.cohorts:
        for refusal in plan.refused(cohort.name):
            if refusal.reason != REMOVED:  # nothing is wrong with it
                raise SourceError(
                    f"recording {refusal.recording_id.hex()}: {refusal.reason}. Mend it, or quarantine it."
                )


def _nothing_written(plan: AnyPlan, before: Store | None) -> IngestReport:
    fingerprint = before.fingerprint if before else ""
    header = plan.header
    return IngestReport({}, header.known, fingerprint, written=False, store=header.folder, plan_rows=header.n_rows)


def _files(header: PlanHeader, part: Part) -> tuple[Staged, int, Path]:
    return Staged(staging_of(header), part), part.rows, shard_path(header, part)


def _clear(header: PlanHeader, before: Store | None, done: Iterable[Part], under_way: tuple[str, ...]) -> None:
    """Remove what an interrupted run left, except the shards it finished for this very plan, and plan files' own."""
    keep = set()
    for part in done:
        staged, _, moved = _files(header, part)
        keep |= {path.relative_to(header.folder).as_posix() for path in (staged.shard, staged.result, moved.absolute())}
    remove_unlisted(header.folder, before.manifest if before else None, frozenset(keep), under_way)


def _encode(plan: Plan, done: set[int], options: IngestOptions, progress: Progress | None) -> None:
    header = plan.header
    left = [part for part in header.parts if part.number not in done]
    runner = options.runner
    if runner is None:
        several = options.workers > 1 and len(left) > 1
        runner = ProcessPool(min(options.workers, len(left))) if several else InProcess()
    finished = len(done)

    def tell() -> None:
        if progress:
            progress("encode", finished, len(header.parts))

    tell()
    try:
        with _handed_out(plan, left, runner, options) as (tasks, work):
            for _ in runner.run(tasks, work):
                finished += 1
                tell()
    except WorkerDied as death:
        raise EcgError(_obituary(header, death)) from None


@contextmanager
def _handed_out(
    plan: Plan, left: list[Part], runner: Runner, options: IngestOptions
) -> Iterator[tuple[Iterable[Any], Callable[[Any], object]]]:
    """The tasks for a runner and what carries them out. Other machines get a plan file, for as long as they need it."""
    if not runner.elsewhere or not left:
        yield (task_of(plan, part) for part in left), encode
        return
    folder = plan.header.folder
    path = options.plan_file or folder.with_name(f"{folder.name}.plan")
    write_plan(plan, path)
    try:
        yield (part.number for part in left), partial(encode_partition, Path(path).absolute())
    finally:
        path.unlink(missing_ok=True)


def _obituary(header: PlanHeader, death: WorkerDied) -> str:
    part = death.task.part if isinstance(death.task, EncodeTask) else part_named(header, int(str(death.task)))
    stopped = Staged(staging_of(header), part).stopped_at()
    where = f", at recording {stopped}" if stopped else ""
    return (
        f"partition {part.number}{where}: its process {death.how}. Run again, with fewer processes if memory is short: "
        "finished partitions are kept."
    )


def _commit(plan: AnyPlan, before: Store | None) -> IngestReport:
    accounting, fingerprint = commit(plan, before)
    header = plan.header
    return IngestReport(
        accounting, header.known, fingerprint, written=True, store=header.folder, plan_rows=header.n_rows
    )


def _refuse_stale(header: PlanHeader) -> None:
    if fingerprint_of(header.folder) != header.base:
        raise StoreError(
            f"{header.folder}: this plan was made for another snapshot than the store has now: it is committed, or another "
            "writer was faster. Plan again: ecgcohorts plan."
        )


def _check_versions(path: Path, header: PlanHeader) -> None:
    here = _versions()
    for name, planned in header.versions.items():
        if here.get(name) != planned:
            raise SpecError(
                f"{path}: planned with {name} {planned}, found {here.get(name, 'none')} here, expected the same: versions "
                "decide stored bytes. Use one environment everywhere, or plan again."
            )


def _versions() -> dict[str, str]:
    """Of the libraries whose version may change a stored byte."""
    return {
        name: importlib.metadata.version(name)
        for name in ("ecgcohorts", "numcodecs", "numpy", "pandas", "pyarrow", "scipy")
    }
