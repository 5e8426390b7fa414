"""Encode one partition into one shard: read, check, filter, pack. The bytes are the same on any machine, in any order."""

import errno
import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from ecgcohorts.cohorts.files import Found
from ecgcohorts.cohorts.schema import Layout, Mains
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import (
    EcgError,
    MachineError,
    Reason,
    RecordingError,
    SourceError,
    SpecError,
    UnreadableRecording,
    is_of_machine,
    machine_error,
)
from ecgcohorts.index.cohort_index import QUALITY, STATISTICS
from ecgcohorts.ingest._copies import _Copies
from ecgcohorts.ingest._gathered import _mark
from ecgcohorts.ingest.plan import AnyPlan, Partition
from ecgcohorts.io.durable import make_folder, sha256_of, write_file
from ecgcohorts.io.texts import decoded
from ecgcohorts.preprocess.flags import QUALITY_COLUMNS
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.preprocess.strip import Strip, make_strip
from ecgcohorts.readers import Reader, files_beside
from ecgcohorts.recording import DIGEST_BYTES, Recording
from ecgcohorts.sources.source import Source
from ecgcohorts.sources.windows import at_hand
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import Accounting, FileEntry
from ecgcohorts.store.signals.chunks import Codec
from ecgcohorts.store.writer import ShardWriter

# Codes of the result file; outcome 0 means stored. They need not be stable: versions are part of a plan's digest, so another
# version of this package stages in another folder.
_CODES = ["", *Reason]
_KEEP_SECONDS = 30.0  # our default: what a kill costs at most; keeping a shard's rows takes some 20 ms
_STAGES = ("", "read", "recipe")


class Staged:
    """The files of one partition before the commit."""

    def __init__(self, staging: Path, partition: Partition) -> None:
        name = f"{partition.cohort}-{partition.shard}"
        self.shard, self.result, self.now = (staging / f"{name}.{kind}" for kind in ("shard", "npz", "on"))
        # What a killed process leaves of the two: the encoded rows, and the facts about them.
        self.begun, self.rows = (staging / f"{name}.{kind}" for kind in ("begun", "rows"))

    def is_done(self, rows: int, moved: Path) -> bool:
        """Tell whether the shard of `rows` rows is whole on disk, with the bytes that its result names.

        moved: where a commit that was killed may have put the shard.
        """
        try:
            result = ShardResult(self.result)
            shard = self.shard if self.shard.exists() else moved
            return len(result) == rows and sha256_of(shard) == result.entry.sha256
        except (OSError, ValueError, KeyError, BadZipFile):
            return False

    def account(self) -> Accounting:
        """Count what became of the rows; which of those stored are duplicates, the commit finds out."""
        result = ShardResult(self.result)
        reasons = Counter(result.refusal(row)[1] for row in np.flatnonzero(result.outcome).tolist())
        stored = len(result) - sum(reasons.values())
        return Accounting(inputs=len(result), stored=stored, duplicates=0, rejected=dict(sorted(reasons.items())))

    def stopped_at(self) -> str | None:
        """Return the pseudonym of the recording at which a process was killed; None if none was."""
        return self._under_way()[0]

    def rows_under_way(self) -> int:
        """Return how many rows a process at work has encoded; 0 if none is at work."""
        return self._under_way()[1]

    def _under_way(self) -> tuple[str | None, int]:
        try:
            name, row = self.now.read_text("ascii").split()
            return name, int(row)
        except (OSError, ValueError):  # not there, or not yet written
            return None, 0

    def forget(self) -> None:
        """Have the partition encoded anew. What another process is writing at the moment stays."""
        for path in (self.result, self.shard, self.rows):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the files, and the folders of staging where nothing else is in them."""
        for path in (self.result, self.shard, self.now, self.begun, self.rows):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.shard.parent.rmdir()
            self.shard.parent.parent.rmdir()


@dataclass(frozen=True)
class EncodeTask:
    """All that a worker needs for one shard. It holds paths of the input, so it is never written to disk."""

    partition: Partition
    source: Source
    spec: CohortSpec
    recipe: Recipe
    layout: Layout
    inputs: tuple[tuple[str, str, Mains], ...]  # path in the source, entry, mains
    marks: tuple[int, ...]  # of the state of each file when the plan was made
    names: tuple[str, ...]  # pseudonyms, for messages
    files: Staged
    shard_records: int
    codec: Codec
    raise_errors: bool
    with_quality: bool
    copies: _Copies | None = None  # what is not read but taken over

    @classmethod
    def of(cls, plan: AnyPlan, partition: Partition, source: Source, before: Store | None = None) -> Self:
        """Return the task of one partition. before: the snapshot that an update replaces.

        Raises SpecError for a path that leads out of the source.
        """
        header = plan.header
        rows = plan.rows(partition, ["path", "entry", "mains", "state", "recording_id"])
        paths = [decoded(path) for path in rows["path"].to_pylist()]
        # A plan file may come from elsewhere: it must not make this process read files that are no input.
        if any(path.startswith("/") or ".." in path.split("/") for path in paths):
            raise SpecError(f"partition {partition.number}: a path of the plan leads out of the source. Plan again.")
        entries = [decoded(entry) for entry in rows["entry"].to_pylist()]
        mains = [header.mains[code] for code in rows["mains"].to_pylist()]
        copies = None
        if header.update and before is not None:
            stored = plan.rows(partition, ["stored"])["stored"].to_numpy()
            copies = _Copies.of(before, stored) if (stored >= 0).any() else None
        return cls(
            partition=partition,
            source=source,
            spec=header.spec,
            recipe=header.recipe,
            layout=header.layout,
            inputs=tuple(zip(paths, entries, mains, strict=True)),
            marks=tuple(rows["state"].to_pylist()),
            names=tuple(name.hex() for name in rows["recording_id"].to_pylist()),
            files=Staged(header.staging, partition),
            shard_records=header.shard_records,
            codec=header.codec,
            raise_errors=header.on_error == "raise",
            with_quality=header.quality,
            copies=copies,
        )

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.recipe.leads), self.recipe.strip_samples

    @cached_property
    def reader(self) -> Reader:
        """The reader of all rows: windows of one recording follow each other, and it is decoded once for them."""
        return Found.reader_of(self.layout)

    def encode(self) -> None:
        """Write one shard file and, once it is whole on disk, its result file.

        A recording that cannot be used becomes a row of missing values and a reason in the result. With `raise_errors` the
        first such error is raised instead; it names the recording by its pseudonym.
        """
        # Workers are the parallelism already; threads of blosc would only compete with them.
        blosc.use_threads = False
        rows = _Rows(len(self.inputs), self.recipe)
        with (
            ShardWriter(self.files.shard, self.shard_records, self.shape, self.codec, self.files.begun) as shard,
            _Now(self.files.now) as now,
        ):
            if shard.is_kept:
                rows.restore(self.files.rows, shard)
            kept_at = time.monotonic()
            with closing(self._files_from(rows.restored)) as files:
                for row in range(rows.restored, len(self.names)):
                    now.tell(self.names[row], row)
                    if self.copies is not None and self.copies.has(row):
                        rows.copy(row, self.copies)
                        shard.append_encoded(self.copies.encoded(row))
                    else:
                        shard.append(_encode_row(self, row, next(files), rows))
                    if shard.is_kept and time.monotonic() >= kept_at + _KEEP_SECONDS:
                        index, entry = shard.keep()
                        _save(self.files.rows, rows, entry, index=index)
                        kept_at = time.monotonic()
        # After the shard: a result that is there means that its shard is whole.
        _save(self.files.result, rows, shard.entry)
        if shard.is_kept:
            self.files.rows.unlink(missing_ok=True)

    def _files_from(self, first: int) -> Generator[Path | UnreadableRecording, None, None]:
        wanted = (
            (path, [entry])
            for row, (path, entry, _) in enumerate(self.inputs)
            if row >= first and not (self.copies is not None and self.copies.has(row))
        )
        return at_hand(self.source, wanted, files_beside(self.layout.reader, self.layout.arrays))


class ShardResult:
    """The result file that `encode` writes beside a shard: one entry per row, larger columns read on demand.

    Arrays by row: outcome (0: stored), stage and error (codes of a refusal), digest (row, 16), valid (row, 2), flags, and
    the quality measures. Raises OSError, ValueError or KeyError if the file is not whole.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as data:
            self.entry = _entry_of(data)
            self.outcome: NDArray[np.uint8] = data["outcome"]
            self.digest: NDArray[np.uint8] = data["digest"]
            self._stage, self._error, self._errors = data["stage"], data["error"], data["errors"]
        self._path = path

    def __len__(self) -> int:
        return len(self.outcome)

    def refusal(self, row: int) -> tuple[str, str, str]:
        """Return stage, reason and error class of a row that is not stored."""
        return _STAGES[self._stage[row]], str(_CODES[self.outcome[row]]), str(self._errors[self._error[row]])

    def columns(self) -> dict[str, NDArray]:
        """Return valid, flags, q_... for each quality measure, and statistics (row, 2, lead) if the recipe keeps them."""
        # Read again when asked: a commit keeps the digests of all shards in memory, but these columns of one at a time.
        with np.load(self._path, allow_pickle=False) as data:
            names = ("valid", "flags", "statistics", *(f"q_{name}" for name in QUALITY_COLUMNS))
            return {name: data[name] for name in names if name != "statistics" or name in data.files}


def _entry_of(data: Mapping[str, NDArray]) -> FileEntry:
    return FileEntry.model_validate_json(str(data["entry"]))


class _Rows:
    """The facts about the rows of a shard that is being written."""

    def __init__(self, n: int, recipe: Recipe) -> None:
        self.restored = 0  # rows that an earlier process has encoded
        self.outcome = np.zeros(n, np.uint8)
        self.stage = np.zeros(n, np.uint8)
        self.error = np.zeros(n, np.uint8)
        self.errors = [""]  # class names
        self.digest = np.zeros((n, DIGEST_BYTES), np.uint8)
        self.valid = np.zeros((n, 2), np.int32)
        self.flags = np.zeros(n, np.uint32)
        # A refused row keeps these blanks; it has no entry in the index, so nobody reads them.
        blank = {name: np.nan if np.issubdtype(dtype, np.floating) else 0 for name, dtype in QUALITY_COLUMNS.items()}
        self.quality = {name: np.full(n, blank[name], dtype) for name, dtype in QUALITY_COLUMNS.items()}
        self._leads, kept = recipe.leads, recipe.record_statistics
        self.statistics = np.full((n, 2, len(recipe.leads)), np.nan, np.float32) if kept else None

    def columns(self) -> dict[str, NDArray]:
        """Return all facts by the names that the result file has for them, but for the names of error classes."""
        found = {name: getattr(self, name) for name in ("outcome", "stage", "error", "digest", "valid", "flags")}
        found |= {f"q_{name}": column for name, column in self.quality.items()}
        return found if self.statistics is None else found | {"statistics": self.statistics}

    def restore(self, path: Path, shard: ShardWriter) -> None:
        """Take over what a killed process had encoded, if it is there whole."""
        index, entry = np.empty((0, 2), np.uint64), FileEntry(size=0, sha256=hashlib.sha256().hexdigest())
        begun, errors = self.columns(), self.errors
        # Opened here: of a file that is no archive, numpy leaves the handle open.
        with suppress(OSError, ValueError, KeyError, BadZipFile, EOFError), path.open("rb") as file:
            data = np.load(file, allow_pickle=False)
            kept = {name: data[name] for name in begun}
            if all(kept[name].shape == column.shape for name, column in begun.items()):
                errors, entry, index = data["errors"].tolist(), _entry_of(data), data["index"]
                begun = kept
        if not shard.go_on(index, entry):
            return
        for name, column in self.columns().items():
            column[:] = begun[name]
        self.errors, self.restored = errors, len(index)

    def accept(self, row: int, recording: Recording, strip: Strip) -> None:
        self.digest[row] = np.frombuffer(recording.waveform_digest, np.uint8)
        self.valid[row] = strip.valid_start, strip.valid_stop
        self.flags[row] = strip.quality.flags
        if self.statistics is not None:
            self.statistics[row] = strip.statistics
        for name, column in self.quality.items():
            column[row] = strip.quality.columns[name]

    def copy(self, row: int, copies: _Copies) -> None:
        columns = copies.columns
        self.digest[row] = columns["waveform_digest"][row]
        self.valid[row] = columns["valid_start"][row], columns["valid_stop"][row]
        self.flags[row] = columns["quality"][row]
        for name, column in self.quality.items():
            column[row] = columns[QUALITY + name][row]
        if self.statistics is not None:
            self.statistics[row] = [[columns[prefix + lead][row] for lead in self._leads] for prefix in STATISTICS]

    def refuse(self, row: int, stage: str, reason: Reason, error: Exception) -> None:
        self.outcome[row] = _CODES.index(reason)
        self.stage[row] = _STAGES.index(stage)
        name = type(error).__name__
        if name not in self.errors:
            self.errors.append(name)
        self.error[row] = self.errors.index(name)


class _Now:
    """A file that names the recording being encoded. It remains only if the process is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        return self

    def tell(self, name: str, row: int) -> None:
        # Not synced: the file explains the death of a process, not of the machine. All texts have one length, so each
        # overwrites the one before.
        os.pwrite(self._handle, f"{name} {row:09d}".encode("ascii"), 0)

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
        self._path.unlink(missing_ok=True)


def _encode_row(task: EncodeTask, row: int, file: Path | UnreadableRecording, rows: _Rows) -> NDArray[np.int16] | None:
    _, entry, mains_hz = task.inputs[row]
    stage = "read"
    try:
        if isinstance(file, UnreadableRecording):  # the source could not deliver it
            raise file
        try:
            recording = next(iter(task.reader.read(file, [entry])))
        except Exception as error:
            # A file that is another one now, or gone, is no fault of the recording. One without rights says so by itself.
            if not (isinstance(error, UnreadableRecording) and error.lacks_rights):
                _check_unchanged(task, rows, row, file, _header_again(task, row, file))
            raise
        _check_unchanged(task, rows, row, file, recording)
        stage = "recipe"
        recording = task.spec.apply_rules(task.partition.cohort, recording)
        strip = make_strip(recording, task.recipe, mains_hz, task.with_quality)
        rows.accept(row, recording, strip)
        return strip.samples
    except Exception as error:
        reason = error.reason if isinstance(error, RecordingError) else Reason.UNEXPECTED
        rows.refuse(row, stage, reason, error)
        problem = _to_raise(error, f"recording {task.names[row]}", stage, task.raise_errors)
    if problem is not None:
        # Raised out here: inside `except`, the first error would be its context and name paths in the traceback.
        raise problem
    return None


def _header_again(task: EncodeTask, row: int, file: Path) -> Recording | None:
    with suppress(RecordingError):
        entry = task.inputs[row][1]
        return next((one for one in task.reader.scan(file) if one.source and one.source.entry == entry), None)
    return None


def _check_unchanged(task: EncodeTask, rows: "_Rows", row: int, file: Path, recording: Recording | None) -> None:
    """Raise an error that ends the run if a file of a recording is not there or has changed since it was planned.

    recording: as it was read from the files, its header alone if it could not be, or None.
    """
    path, where = task.inputs[row][0], f"recording {task.names[row]}"
    # One file may hold thousands of recordings.
    was_checked = row > rows.restored and not (task.copies is not None and task.copies.has(row - 1))
    if was_checked and (task.inputs[row - 1][0], task.marks[row - 1]) == (path, task.marks[row]):
        return
    found = Found(task.layout, task.source)
    try:
        mark = _mark(path, found.state(path, file, recording.source.beside if recording and recording.source else ()))
    except OSError as error:
        # Not the recording's fault: its header was read when the plan was made.
        problem: EcgError = machine_error(where, error)
    else:
        if mark == task.marks[row]:
            return
        problem = SourceError(
            f"{where}: its file has changed since the plan was made, and what the plan says of it may be of another person. "
            "Plan again."
        )
    raise problem from None


def _to_raise(error: Exception, where: str, stage: str, raise_errors: bool) -> EcgError | None:
    """Return the error that ends the run, or None if the row is refused and the run goes on.

    A defect of this program does not stop a night's run; it is counted under a reason of its own.
    """
    if isinstance(error, UnreadableRecording) and error.lacks_rights:
        return machine_error(where, PermissionError(errno.EACCES, ""))
    if isinstance(error, RecordingError):
        # Named by pseudonym and without `found`: what was found may be text of a header.
        again = type(error)(error.reason, error.reason, error.expected, error.remedy, where)
        return again if raise_errors else None
    if isinstance(error, MachineError | SourceError):
        return error
    # For example, no process to read in could be started; nothing is wrong with the recording.
    if isinstance(error, EcgError):
        return EcgError(f"{where}: {error}")
    if isinstance(error, MemoryError | OSError) and is_of_machine(error):
        return machine_error(where, error)
    if raise_errors:
        return EcgError(f"{where}: {type(error).__name__} in the {stage} step, a defect. Report it.")
    return None


def _save(path: Path, rows: _Rows, entry: FileEntry, **more: NDArray) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        **rows.columns(),
        errors=np.array(rows.errors),
        entry=np.array(entry.model_dump_json()),
        **more,
    )
    write_file(path, buffer.getvalue())
