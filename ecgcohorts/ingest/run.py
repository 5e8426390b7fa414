"""plan -> encode every shard -> commit, in one process or several, resumed where it stopped."""

import hashlib
import importlib.metadata
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from ecgcohorts.cohort_files import find_layout
from ecgcohorts.cohort_spec import CohortSpec, load_spec
from ecgcohorts.errors import EcgError, KeyMismatch, RecipeMismatch, SourceError, SpecError
from ecgcohorts.ingest.assemble import EncodedCohort, SettledCohort, extend_index, extend_rejects, settle
from ecgcohorts.ingest.encode import EncodeTask, encode, is_done, load_result, start_worker
from ecgcohorts.ingest.plan import CohortPlan, Known, Plan, make_plan
from ecgcohorts.pseudonyms import PseudonymKey, load_key
from ecgcohorts.recipes import CAPE_V1, Recipe, get_recipe
from ecgcohorts.store.columns import write_index
from ecgcohorts.store.commit import (
    describe_files,
    publish,
    refuse_foreign_folder,
    refuse_nested,
    remove_unlisted,
    writer_lock,
)
from ecgcohorts.store.durable import write_file
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.schema import (
    CURRENT,
    DEFAULT_SHARD_RECORDS,
    STAGING,
    Accounting,
    Manifest,
    Segment,
    group_metadata,
    index_folder,
    rejects_name,
    signals_metadata,
)
from ecgcohorts.store.shards import SHARD_RECORDS_LIMIT

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class IngestOptions:
    """How to ingest, beside what. Stored bytes depend on `recipe`, `shard_records`, `quality` and the key only."""

    recipe: str = CAPE_V1.name
    workers: int = 1  # 1: in this process, with plain tracebacks
    limit: int | None = None  # inputs, for a trial
    on_error: Literal["quarantine", "raise"] = "quarantine"
    shard_records: int = DEFAULT_SHARD_RECORDS
    dry_run: bool = False
    key_file: Path | None = None
    quality: bool = True  # False: quality measures are left unknown, which saves about half of the time

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
    root, folder = Path(source), Path(store)
    if not root.is_dir():
        what = "a file" if root.exists() else "no such folder"
        raise SourceError(f"{root}: found {what}, expected the folder with the recordings.")
    refuse_nested(root, folder)
    spec = cohort if isinstance(cohort, CohortSpec) else load_spec(cohort)
    recipe = get_recipe(options.recipe)
    key = load_key(options.key_file)
    refuse_foreign_folder(folder)
    if options.dry_run:
        before = _open_before(folder, recipe, key)
        plan = make_plan(root, spec, recipe, key, _known(before), options.limit)
        return _nothing_written(plan, before)
    find_layout(spec.layouts, root)  # is there anything to read? Before the store's folder is made
    with writer_lock(folder):
        before = _open_before(folder, recipe, key)
        plan = make_plan(root, spec, recipe, key, _known(before), options.limit)
        if not plan.n_inputs:
            if before is None:
                raise SourceError(f"{root}: found files but no recordings in them, expected some.")
            remove_unlisted(folder, before.manifest)
            return _nothing_written(plan, before)
        _refuse_another_description(before, plan, spec)
        if options.on_error == "raise":
            _raise_first_refusal(plan)
        return _Run(folder, root, spec, recipe, key, options, before, plan, progress).execute()


def _open_before(folder: Path, recipe: Recipe, key: PseudonymKey) -> Store | None:
    if not (folder / CURRENT).exists():
        return None
    store = open_store(folder)
    if store.recipe != recipe:
        raise RecipeMismatch(
            f"{folder}: found a store of recipe {store.recipe.name}, expected {recipe.name}. "
            f"Name another store, or pass --recipe {store.recipe.name}."
        )
    if store.manifest.key_fingerprint != key.fingerprint:
        raise KeyMismatch(
            f"{folder}: made with another pseudonym key. Pass that key: --key FILE, or name another store."
        )
    return store


def _known(store: Store | None) -> Known:
    if store is None:
        return Known()
    refused = {bytes.fromhex(text) for text in store.rejects()["recording_id"]}
    stored = {row.tobytes() for row in store.index["recording_id"]}
    return Known(frozenset(stored | refused), frozenset(row.tobytes() for row in store.index["patient_id"]))


def _refuse_another_description(before: Store | None, plan: Plan, spec: CohortSpec) -> None:
    """Two descriptions of one name would make one person of two patients with the same number."""
    mine = _digest_of(spec)
    for segment in before.segments if before else ():
        if segment.cohort in {cohort.cohort for cohort in plan.cohorts} and segment.spec_sha256 != mine:
            raise SpecError(
                f"cohort {segment.cohort!r}: the store has it by another description. Give the new cohort a name of its "
                "own, or ingest with the description of the first."
            )


def _digest_of(spec: CohortSpec) -> str:
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


def _raise_first_refusal(plan: Plan) -> None:
    for cohort in plan.cohorts:
        for refusal in cohort.refused:
            raise SourceError(f"recording {refusal.recording_id.hex()}: {refusal.reason}. Mend it, or quarantine it.")


def _nothing_written(plan: Plan, before: Store | None) -> IngestReport:
    return IngestReport({}, plan.n_known, before.fingerprint if before else "", written=False, plan_rows=plan.n_rows)


@dataclass(frozen=True, eq=False)
class _Run:
    """One run under the write lock."""

    folder: Path
    root: Path
    spec: CohortSpec
    recipe: Recipe
    key: PseudonymKey
    options: IngestOptions
    before: Store | None
    plan: Plan
    progress: Progress | None

    @property
    def generation(self) -> int:
        return self.before.manifest.generation + 1 if self.before else 1

    @cached_property
    def staging(self) -> Path:
        parts = (self.plan.digest, self.generation, self.options.shard_records, self.options.quality, _versions())
        run = hashlib.sha256(repr(parts).encode()).hexdigest()
        return self.folder / STAGING / run[:32]

    def execute(self) -> IngestReport:
        tasks = [task for cohort_tasks in self._tasks for task in cohort_tasks]
        finished = [is_done(task) for task in tasks]
        done = [task for task, whole in zip(tasks, finished, strict=True) if whole]
        self._clear_except(done)
        self.staging.mkdir(parents=True, exist_ok=True)
        left = [task for task, whole in zip(tasks, finished, strict=True) if not whole]
        self._encode(left, len(done), len(tasks))
        settled = self._settle()
        manifest = self._write_snapshot(settled)
        fingerprint = publish(self.folder, manifest)
        accounting = {one.encoded.plan.cohort: one.accounting for one in settled}
        return IngestReport(accounting, self.plan.n_known, fingerprint, written=True, plan_rows=self.plan.n_rows)

    def _segment_folder(self, cohort: CohortPlan) -> Path:
        return self.folder / "signals" / cohort.cohort / f"{self.generation:06d}"

    @cached_property
    def _tasks(self) -> list[list[EncodeTask]]:
        """The shards to write, per cohort of the plan."""
        return [self._tasks_of(cohort) for cohort in self.plan.cohorts]

    def _tasks_of(self, cohort: CohortPlan) -> list[EncodeTask]:
        size = self.options.shard_records
        tasks = []
        for number, first in enumerate(range(0, len(cohort.records), size)):
            records = cohort.records[first : first + size]
            tasks.append(
                EncodeTask(
                    root=self.root,
                    spec=self.spec,
                    recipe=self.recipe,
                    cohort=cohort.cohort,
                    layout=self.plan.layout,
                    inputs=tuple((record.path, record.entry, record.mains_hz) for record in records),
                    names=tuple(record.recording_id.hex() for record in records),
                    shard_file=self._segment_folder(cohort) / "c" / str(number) / "0" / "0",
                    result_file=self.staging / f"{cohort.cohort}-{number}.npz",
                    shard_records=size,
                    raise_errors=self.options.on_error == "raise",
                    with_quality=self.options.quality,
                )
            )
        return tasks

    def _clear_except(self, done: list[EncodeTask]) -> None:
        """Remove what an interrupted run left, except the shards it finished for this very plan."""
        files = [path for task in done for path in (task.shard_file, task.result_file)]
        keep = frozenset(path.relative_to(self.folder).as_posix() for path in files)
        remove_unlisted(self.folder, self.before.manifest if self.before else None, keep)

    def _encode(self, tasks: list[EncodeTask], done: int, total: int) -> None:
        def tell() -> None:
            if self.progress:
                self.progress("encode", done, total)

        tell()
        if self.options.workers == 1 or len(tasks) < 2:
            for task in tasks:
                encode(task)
                done += 1
                tell()
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.options.workers, len(tasks)), context, start_worker) as pool:
            futures = [pool.submit(encode, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    future.result()
                    done += 1
                    tell()
            except BrokenProcessPool:
                raise EcgError(
                    "a worker process died, probably for lack of memory. Run again with fewer: -j 1."
                ) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _settle(self) -> list[SettledCohort]:
        seen = {}
        if self.before is not None:
            index = self.before.index
            pairs = zip(index["waveform_digest"], index["recording_id"], strict=True)
            seen = {digest.tobytes(): recording.tobytes() for digest, recording in pairs}
        first_row = self.before.n_rows if self.before else 0
        settled = []
        for cohort, tasks in zip(self.plan.cohorts, self._tasks, strict=True):
            shards = tuple(load_result(task.result_file) for task in tasks)
            encoded = EncodedCohort(cohort, self._segment_folder(cohort), shards, first_row, self.options.shard_records)
            settled.append(settle(encoded, seen, self.recipe))
            first_row += len(cohort.records)
        return settled

    def _write_snapshot(self, settled: list[SettledCohort]) -> Manifest:
        """Write metadata, index and rejects of the new generation; return the manifest that names them all."""
        write_file(self.folder / "zarr.json", group_metadata({"recipe": self.recipe.model_dump(mode="json")}))
        files = dict(self.before.manifest.files) if self.before else {}
        if self.before:
            replaced = (index_folder(self.before.manifest.generation) + "/", "rejects-")
            files = {name: entry for name, entry in files.items() if not name.startswith(replaced)}
        written = ["zarr.json", "signals/zarr.json", "index/zarr.json", rejects_name(self.generation)]
        for name in ("signals/zarr.json", "index/zarr.json"):
            write_file(self.folder / name, group_metadata())
        for one in settled:
            written += self._write_segment_metadata(one)
            for number, entry in enumerate(one.entries):
                shard = one.encoded.folder / "c" / str(number) / "0" / "0"
                files[shard.relative_to(self.folder).as_posix()] = entry
        index = extend_index(self.before.index if self.before else None, settled)
        written += write_index(self.folder, self.generation, index)
        rejects = extend_rejects(self.before.rejects() if self.before else None, settled)
        write_file(self.folder / rejects_name(self.generation), rejects.to_parquet(index=False))
        files |= describe_files(self.folder, written)
        return Manifest(
            generation=self.generation,
            recipe=self.recipe,
            key_fingerprint=self.key.fingerprint,
            segments=(*(self.before.segments if self.before else ()), *(self._segment(one) for one in settled)),
            cohorts=index.cohorts,
            sites=index.sites,
            devices=index.devices,
            index_columns=tuple(sorted(index.columns)),
            versions=_versions(),
            files=dict(sorted(files.items())),
        )

    def _write_segment_metadata(self, one: SettledCohort) -> list[str]:
        array = one.encoded.folder / "zarr.json"
        group = one.encoded.folder.parent / "zarr.json"
        write_file(array, signals_metadata(len(one.live), one.encoded.shard_records, self.recipe))
        write_file(group, group_metadata())
        return [path.relative_to(self.folder).as_posix() for path in (array, group)]

    def _segment(self, one: SettledCohort) -> Segment:
        return Segment(
            cohort=one.encoded.plan.cohort,
            name=f"{self.generation:06d}",
            first_row=one.encoded.first_row,
            rows=len(one.live),
            shard_records=one.encoded.shard_records,
            accounting=one.accounting,
            licence=self.spec.licence,
            spec_sha256=_digest_of(self.spec),
        )


def _versions() -> dict[str, str]:
    """Of the libraries whose version may change a stored byte."""
    return {
        name: importlib.metadata.version(name)
        for name in ("ecgcohorts", "numcodecs", "numpy", "pandas", "pyarrow", "scipy")
    }
