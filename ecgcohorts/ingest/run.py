"""Plan, encode every shard, commit: in one call, or in three steps that share a plan file."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ecgcohorts.cohorts.account import CellAccount, TableAccount
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import EcgError, KeyMismatch, NothingMatched, RecipeMismatch, SourceError, SpecError
from ecgcohorts.index.contradictions import MAX_FRACTION, PatientCheck
from ecgcohorts.ingest._changes import _Changes
from ecgcohorts.ingest._memory import _note
from ecgcohorts.ingest._pace import _pace
from ecgcohorts.ingest._staging import (
    _beside,
    _cause_of_death,
    _clear,
    _fingerprint_of,
    _is_done,
    _partition_of,
    _refuse_stale,
    _refuse_unmounted,
)
from ecgcohorts.ingest._update import _is_committed, _refuse_another_description
from ecgcohorts.ingest.commit import commit
from ecgcohorts.ingest.encode import EncodeTask, Staged
from ecgcohorts.ingest.plan import AnyPlan, Partition, Plan, PlanHeader, Request
from ecgcohorts.ingest.planning import Known, _Look, make_plan
from ecgcohorts.ingest.runners import InProcess, ProcessPool, Runner, WorkerDied
from ecgcohorts.ingest.trial import Trial
from ecgcohorts.io.durable import machine_errors, make_folder
from ecgcohorts.io.place import Bucket, Folder
from ecgcohorts.preprocess.recipes import CAPE_V1, load_recipe
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.privacy.pseudonyms import load_key
from ecgcohorts.sources import Source, open_source
from ecgcohorts.sources.names import uri_of
from ecgcohorts.store.commit import folder_of, refuse_foreign, refuse_nested
from ecgcohorts.store.reader import Store
from ecgcohorts.store.remote.destination import Destination
from ecgcohorts.store.schema import DEFAULT_SHARD_RECORDS, Accounting
from ecgcohorts.store.signals.array_metadata import SHARD_RECORDS_LIMIT
from ecgcohorts.store.signals.chunks import Codec
from ecgcohorts.store.upkeep.lookup import REMOVED

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class IngestOptions:
    """How to ingest. Stored bytes depend on `recipe`, `shard_records`, `codec`, `quality` and the key only."""

    recipe: str | Path = CAPE_V1.name  # a name, or a YAML file of one's own
    workers: int = 1  # processes of this machine, to read headers and to decode; 1: in this one, with plain tracebacks
    limit: int | None = None  # inputs, for a trial
    on_error: Literal["quarantine", "raise"] = "quarantine"
    shard_records: int = DEFAULT_SHARD_RECORDS
    codec: Codec | None = None  # None: that of the store, or lz4 for a new one
    dry_run: bool = False
    check: int = 0  # with `dry_run`: recordings to decode
    key_file: Path | None = None
    quality: bool = True  # False: quality measures stay unknown, which saves about half of the time
    runner: Runner | None = None  # instead of `workers`
    plan_file: Path | None = None  # where runners on other machines find the plan; None: beside the store
    max_contradictions: float | None = None  # None: that of the description, or 0.01
    files: tuple[str, ...] | None = None  # look at these files only: paths below the source
    incremental: bool = False  # leave files closed that were met as they are now, by path, size and time
    update: bool = False  # take over what the source says now of recordings that the store has met
    work: Path | None = None  # for a store in a bucket: folder in which its files are made; None: in the user's cache

    def __post_init__(self) -> None:
        if self.shard_records > SHARD_RECORDS_LIMIT:
            raise SpecError(f"found shard_records={self.shard_records}, expected at most {SHARD_RECORDS_LIMIT}.")
        for name in ("workers", "shard_records"):
            if getattr(self, name) < 1:
                raise SpecError(f"found {name}={getattr(self, name)}, expected 1 or more.")
        if self.limit is not None and self.limit < 1:
            raise SpecError(f"found limit={self.limit}, expected 1 or more.")
        if self.incremental and self.update:
            raise SpecError("found incremental and update: an update compares all files. Give one of them.")
        if self.limit is not None and self.update:
            raise SpecError("found limit and update: what a trial leaves out cannot be updated. Give one of them.")


@dataclass(frozen=True)
class IngestReport:
    """The result of one run. For each cohort, inputs = stored + duplicates + rejected. `known`: inputs of earlier runs."""

    accounting: dict[str, Accounting]
    known: int
    fingerprint: str  # of the store afterwards; empty after a dry run into nothing
    written: bool
    store: Path | str  # a URL is text
    plan_rows: int = field(default=0)
    patients: PatientCheck | None = None  # of the new recordings
    tables: tuple[TableAccount, ...] = ()  # of all inputs of the source
    not_understood: tuple[CellAccount, ...] = ()  # cells and header texts without the meaning that a rule looks for
    left_out: dict[str, int] = field(default_factory=dict)  # beside files, by kind: links are not followed
    trial: Trial | None = None  # of a dry run: what is known without a run
    changes: _Changes | None = None  # of recordings met before; after an update, what it took over
    lost: tuple[str, ...] = ()  # what an update had to take out of the store, in words

    @property
    def total(self) -> Accounting:
        return Accounting.total(self.accounting.values())

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
    """Add the recordings of a folder, a tar or zip, or a bucket to a store. The store is made if there is none.

    source: a path, or the URL of a bucket. store: a folder, or a URL such as "s3://bucket/store.zarr", whose new files
    are made on this machine first. cohort: name of a preset, path of a YAML description, or a CohortSpec. The same call
    resumes an interrupted run; after a finished run it finds nothing to do and writes nothing. Raises EcgError
    subclasses.
    """
    destination = Destination(store, options.work)
    with open_source(source) as opened:
        job = _Job(opened, destination, cohort, options)
        if options.dry_run:
            before = job.open_before()
            plan = job.plan(before)
            trial = Trial.of(plan, job.files, options.check, options.limit)
            return replace(_nothing_written(plan, before, destination), trial=trial)
        return _ingest(job, destination, options, progress)


def _ingest(job: "_Job", destination: Destination, options: IngestOptions, progress: Progress | None) -> IngestReport:
    with destination.lock():
        # Opened under the lock, so that no other writer comes between this snapshot and the one that extends it.
        before = job.open_before()
        plan = job.plan(before)
        _note(destination.memory, plan)
        under_way = plan.header.plans_under_way(plan.header.base)
        if not plan.header.n_inputs:
            destination.clear(before.manifest if before else None, under_way)
            return _nothing_written(plan, before, destination)
        done = [one for one in plan.header.partitions if _is_done(plan.header, one)]
        _clear(plan.header, before, done, under_way)
        _encode(plan, job.files.source, before, done, options, progress)
        plan = plan.without_inputs()
        return _commit(plan, before, destination)


def plan_to_file(
    source: str | Path,
    store: str | Path,
    cohort: str | CohortSpec,
    path: str | Path,
    options: IngestOptions = IngestOptions(),
) -> PlanHeader:
    """Write a plan of what `ingest` would do: the first of three steps. The store is left as it is.

    The file names the paths of the input, so only its owner may read it. `len(header.partitions)` is the number of
    partitions; `encode_partition` is called once for each. Raises EcgError subclasses; SourceError if there is nothing
    new.
    """
    folder = folder_of(store)
    with open_source(source) as opened:
        # Inside the input, a later scan would find the plan; inside the store, it would not belong to any snapshot.
        for inside in (folder, *([] if opened.folder is None else [opened.folder])):
            if Path(path).resolve().is_relative_to(inside.resolve()):
                raise SpecError(f"{path} is inside {inside}. Write the plan to a file outside of input and store.")
        _refuse_unseen(opened)
        job = _Job(opened, Destination(folder), cohort, options)
        plan = job.plan(job.open_before())
    if not plan.header.n_inputs:
        raise SourceError(f"{source}: found nothing new: all {plan.header.known} inputs were met before.")
    plan.write(Path(path))
    return plan.header


def encode_partition(path: str | Path, partition: int, *, again: bool = False) -> bool:
    """Encode one partition of a plan file: the second step. Return False if it was encoded already, unless `again`.

    Any number of these may run at once, on any machine that sees input and store under the same paths. Readers of the
    store see nothing of it. Raises SpecError for a partition that the plan does not have, or for another version of a
    library that decides bytes; StoreError if the store has changed since the plan was made, or is not seen here;
    SourceError for a file that has changed since, MachineError for one that is gone or may not be read.
    """
    plan = AnyPlan.open(Path(path))
    header = plan.header
    own = header.partition(partition)
    header.check_versions(Path(path))
    with machine_errors(header.folder):
        _refuse_unmounted(header)
        _refuse_stale(header)
        refuse_foreign(Folder(header.folder))
        make_folder(header.staging)
        header.mark_staging()
        if again:
            Staged(header.staging, own).forget()
        elif _is_done(header, own):
            return False
        try:
            before = Destination(header.folder).open_before() if header.update else None
            with open_source(header.source) as source:
                EncodeTask.of(plan, own, source, before).encode()
        finally:
            # Another writer's commit in the meantime has cleared staging; what was written since would remain there.
            if _fingerprint_of(header.folder) != header.base:
                Staged(header.staging, own).remove()
        _refuse_stale(header)
    return True


def commit_plan(path: str | Path) -> IngestReport:
    """Make a snapshot of all partitions of a plan file: the third step.

    `written` is False if the store has all of it already. Raises StoreError naming the partitions that are missing, or if
    another writer changed the store first; LockHeld if a writer is at work.
    """
    plan = AnyPlan.open(Path(path))
    header = plan.header
    header.check_versions(Path(path))
    destination = Destination(header.folder)
    _refuse_unmounted(header)
    with destination.lock():
        before = destination.open_before()
        if _fingerprint_of(header.folder) != header.base:
            # A commit that is repeated after it succeeded is no error.
            if before is not None and _is_committed(plan, before):
                under_way = header.plans_under_way(before.fingerprint)
                destination.clear(before.manifest, under_way)
                return _nothing_written(plan, before, destination)
            _refuse_stale(header)
        _clear(header, before, header.partitions, header.plans_under_way(header.base))
        return _commit(plan, before, destination)


class _Job:
    """One run, with description, recipe and key looked up and checked before anything is read."""

    def __init__(
        self, source: Source, destination: Destination, cohort: str | CohortSpec, options: IngestOptions
    ) -> None:
        if source.folder is not None:
            refuse_nested(source.folder, destination.folder)
        # Also for a dry run, which takes no lock and so would not notice.
        refuse_foreign(Folder(destination.folder))
        if options.runner is not None and options.runner.elsewhere:
            _refuse_unseen(source)
            if isinstance(destination.place, Bucket):
                raise SpecError(
                    f"{destination.place.path}: other machines cannot encode into a bucket. Ingest into a folder that all of "
                    "them see, then send it: ecgcohorts copy FOLDER URL."
                )
        self.destination, self.options = destination, options
        self.spec = cohort if isinstance(cohort, CohortSpec) else CohortSpec.load(cohort)
        self.recipe = self._recipe()
        if options.key_file is not None:
            load_key(options.key_file, for_new_store=False)
        # Raises if there is nothing to read, before the store's folder is made.
        self.files = self.spec.find(source)

    def _recipe(self) -> Recipe:
        """Return the recipe asked for; one's own by name, without its file, if the store carries it."""
        try:
            return load_recipe(self.options.recipe)
        except SpecError:
            store = self.destination.open_before()
            if store is None or store.recipe.name != self.options.recipe:
                raise
            return store.recipe

    @property
    def _look(self) -> _Look:
        only = None if self.options.files is None else tuple(self.files.listed(self.options.files))
        return _Look(self.options.limit, only, self.options.incremental, self.options.workers)

    def open_before(self) -> Store | None:
        """Return the snapshot to extend. Raises RecipeMismatch or KeyMismatch if this run cannot extend it."""
        store = self.destination.open_before()
        # Only now: a key is made for a store, and not for a run that finds nothing to read.
        self.key = load_key(self.options.key_file, for_new_store=store is None)
        if store is None:
            return None
        if store.recipe != self.recipe:
            theirs, mine = store.recipe.told_from(self.recipe)
            raise RecipeMismatch(
                f"{store.path}: found a store of recipe {theirs}, expected {mine}. "
                f"Name another store, or pass --recipe {store.recipe.name}."
            )
        if store.manifest.key_fingerprint != self.key.fingerprint:
            raise KeyMismatch(
                f"{store.path}: made with another pseudonym key. Pass that key: --key FILE, or name another store."
            )
        if self.options.codec not in (None, store.manifest.codec):
            raise SpecError(
                f"{store.path}: found a store of codec {store.manifest.codec}, expected {self.options.codec}. "
                f"Name another store, or pass --codec {store.manifest.codec}."
            )
        return store

    def plan(self, before: Store | None) -> Plan:
        request = Request(
            source=self.files.source.address,
            store=uri_of(self.destination.folder),
            spec=self.spec,
            recipe=self.recipe,
            shard_records=self.options.shard_records,
            codec=before.manifest.codec if before else self.options.codec or "lz4",
            quality=self.options.quality,
            on_error=self.options.on_error,
            update=self.options.update and before is not None,
            key_fingerprint=self.key.fingerprint,
            beside=_beside(self.destination.folder),
            generation=before.manifest.generation + 1 if before else 1,
            base=before.fingerprint if before else "",
            versions=Request.versions_here(),
        )
        look = self._look
        plan = make_plan(request, self.files, self.key, Known.of(before, self.destination.memory), look)
        if before is None and not plan.header.n_inputs:
            raise SourceError(f"{self.files.source}: its files hold no recordings. Check the path.")
        if not plan.header.update:
            _refuse_another_description(before, plan.header)
        if not self.options.dry_run:
            # New recordings that no table has yet are no news.
            complaint = "" if look.is_partial and not look.limit else plan.header.astray(self.options.limit)
            if complaint:
                raise NothingMatched(complaint)
            _raise_first_refusal(plan)
        if plan.header.patients is not None:
            limits = (self.options.max_contradictions, self.spec.max_contradictions, MAX_FRACTION)
            plan.header.patients.refuse(next(limit for limit in limits if limit is not None), str(self.files.source))
        return plan


def _refuse_unseen(source: Source) -> None:
    # A compressed tar is unpacked for the processes of one run; other machines do not see those files.
    if source.only_here:
        raise SpecError(
            f"{source}: each process would unpack this compressed tar again. Unpack it first, for example with gunzip, or "
            "run ingest on one machine."
        )


def _raise_first_refusal(plan: Plan) -> None:
    if plan.header.on_error == "quarantine":
        return
    for cohort in plan.header.cohorts:
        for refusal in plan.refused(cohort.name):
            if refusal.reason != REMOVED:  # nothing is wrong with it
                raise SourceError(
                    f"recording {refusal.recording_id.hex()}: {refusal.reason}. Fix it, or use on_error='quarantine'."
                )


def _nothing_written(plan: AnyPlan, before: Store | None, destination: Destination) -> IngestReport:
    return _report(plan.header, {}, before.fingerprint if before else "", destination, written=False)


def _report(
    header: PlanHeader, accounting: dict[str, Accounting], fingerprint: str, destination: Destination, *, written: bool
) -> IngestReport:
    return IngestReport(
        accounting,
        header.known,
        fingerprint,
        written,
        store=destination.place.path,
        plan_rows=header.n_rows,
        changes=header.changes,
        patients=header.patients,
        tables=header.tables,
        not_understood=header.not_understood,
        left_out=header.left_out,
    )


def _encode(
    plan: Plan,
    source: Source,
    before: Store | None,
    done: Sequence[Partition],
    options: IngestOptions,
    progress: Progress | None,
) -> None:
    header = plan.header
    numbers = {partition.number for partition in done}
    left = [partition for partition in header.partitions if partition.number not in numbers]
    runner = options.runner
    if runner is None:
        # A pool larger than the work would only start processes that wait.
        several = options.workers > 1 and len(left) > 1
        runner = ProcessPool(min(options.workers, len(left))) if several else InProcess()
    try:
        with (
            _handed_out(plan, left, (source, before), runner, options) as (tasks, work),
            _pace(header, done, progress) as finish,
        ):
            for task in runner.run(tasks, work):
                finish(_partition_of(header, task))
    except WorkerDied as death:
        raise EcgError(_cause_of_death(header, death)) from None


@contextmanager
def _handed_out(
    plan: Plan, left: list[Partition], inputs: tuple[Source, Store | None], runner: Runner, options: IngestOptions
) -> Iterator[tuple[Iterable[Any], Callable[[Any], object]]]:
    """Yield the tasks for a runner and the function that does them. Other machines get a plan file while they work."""
    if not runner.elsewhere:
        yield (EncodeTask.of(plan, partition, *inputs) for partition in left), EncodeTask.encode
        return
    # A task names thousands of inputs; where the plan is at hand, the number of a partition is enough.
    folder = plan.header.folder
    path = options.plan_file or folder.with_name(f"{folder.name}.plan")
    # With nothing left to hand out, too: a run killed before its commit left a plan here, which then goes.
    plan.write(path)
    try:
        yield (partition.named_number for partition in left), partial(encode_partition, Path(path).absolute())
    finally:
        path.unlink(missing_ok=True)


def _commit(plan: AnyPlan, before: Store | None, destination: Destination) -> IngestReport:
    made = commit(plan, before, destination)
    report = _report(plan.header, made.accounting, made.fingerprint, destination, written=made.written)
    return replace(report, lost=made.lost)
