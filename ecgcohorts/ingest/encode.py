"""One partition = one shard: read, check, filter, pack. Runs anywhere, in any order, and gives the same bytes."""

import errno
import io
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from ecgcohorts.cohort_schema import Layout, Mains
from ecgcohorts.cohort_spec import CohortSpec, apply_rules
from ecgcohorts.errors import EcgError, Reason, RecordingError
from ecgcohorts.preprocess import Strip, make_strip
from ecgcohorts.quality import QUALITY_COLUMNS
from ecgcohorts.readers import open_reader
from ecgcohorts.recipes import Recipe
from ecgcohorts.recording import DIGEST_BYTES, Recording
from ecgcohorts.store.durable import sha256_of, write_file
from ecgcohorts.store.schema import FileEntry
from ecgcohorts.store.writer import ShardWriter

_CODES = ["", *Reason]  # outcome 0: stored
_STAGES = ("", "read", "recipe")
# What says something about the machine and nothing about the recording: the run stops, and can be resumed.
_MACHINE_ERRORS = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class EncodeTask:
    """All that a worker needs for one shard. Holds input paths; lives in memory only."""

    root: Path
    spec: CohortSpec
    recipe: Recipe
    cohort: str
    layout: Layout
    inputs: tuple[tuple[str, str, Mains], ...]  # path below root, entry, mains
    names: tuple[str, ...]  # pseudonyms, for messages
    shard_file: Path
    result_file: Path
    shard_records: int
    raise_errors: bool
    with_quality: bool

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.recipe.leads), self.recipe.strip_samples


@dataclass(frozen=True, eq=False)
class ShardResult:
    """Per row of one shard: outcome, valid range, digest and quality. Arrays of equal length."""

    outcome: NDArray[np.uint8]  # place in _CODES
    stage: NDArray[np.uint8]
    error: NDArray[np.str_]  # class name
    digest: NDArray[np.uint8]  # (row, 16)
    valid: NDArray[np.int32]  # (row, 2)
    flags: NDArray[np.uint32]
    quality: dict[str, NDArray]
    entry: FileEntry

    def reason(self, row: int) -> str:
        return str(_CODES[self.outcome[row]])

    def stage_name(self, row: int) -> str:
        return _STAGES[self.stage[row]]


class _Rows:
    """Collects the per-row facts of a shard while it is written."""

    def __init__(self, n: int) -> None:
        self.outcome = np.zeros(n, np.uint8)
        self.stage = np.zeros(n, np.uint8)
        self.error = np.zeros(n, "U64")
        self.digest = np.zeros((n, DIGEST_BYTES), np.uint8)
        self.valid = np.zeros((n, 2), np.int32)
        self.flags = np.zeros(n, np.uint32)
        self.quality = {name: np.full(n, _blank(dtype), dtype) for name, dtype in QUALITY_COLUMNS.items()}

    def accept(self, row: int, recording: Recording, strip: Strip) -> None:
        self.digest[row] = np.frombuffer(recording.waveform_digest, np.uint8)
        self.valid[row] = strip.valid_start, strip.valid_stop
        self.flags[row] = strip.quality.flags
        for name, column in self.quality.items():
            column[row] = strip.quality.columns[name]

    def refuse(self, row: int, stage: str, reason: Reason, error: Exception) -> None:
        self.outcome[row] = _CODES.index(reason)
        self.stage[row] = _STAGES.index(stage)
        self.error[row] = type(error).__name__


def _blank(dtype: np.dtype) -> float:
    return np.nan if np.issubdtype(dtype, np.floating) else 0


def start_worker() -> None:
    """Prepare a worker process: it ends with the process that started it, so that no orphan writes without the lock."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_done(task: EncodeTask) -> bool:
    """Did an earlier run finish this shard? Its bytes must be those its result tells; a blanked shard is done again."""
    try:
        result = load_result(task.result_file)
        return len(result.outcome) == len(task.inputs) and sha256_of(task.shard_file) == result.entry.sha256
    except (OSError, ValueError, KeyError, BadZipFile):
        return False


def encode(task: EncodeTask) -> None:
    """Write one shard file and, once that is whole on disk, its result file.

    A recording that cannot be used leaves a row of the missing value and its reason. With `raise_errors` the first
    one is raised instead, under its pseudonym.
    """
    blosc.use_threads = False  # one thread a process: workers are the parallelism
    rows = _Rows(len(task.inputs))
    with ShardWriter(task.shard_file, task.shard_records, task.shape) as shard:
        for row, name in enumerate(task.names):
            shard.append(_encode_row(task, row, name, rows))
    _save(task.result_file, rows, shard.entry)


def _encode_row(task: EncodeTask, row: int, name: str, rows: _Rows) -> NDArray[np.int16] | None:
    path, entry, mains_hz = task.inputs[row]
    stage = "read"
    try:
        recording = next(_read(task, path, entry))
        stage = "recipe"
        recording = apply_rules(task.spec, task.cohort, recording)
        strip = make_strip(recording, task.recipe, mains_hz, task.with_quality)
        rows.accept(row, recording, strip)
    except RecordingError as error:
        if task.raise_errors:  # under its pseudonym; what was found may be header text
            raise type(error)(error.reason, error.reason, error.expected, error.remedy, f"recording {name}") from None
        rows.refuse(row, stage, error.reason, error)
        return None
    except Exception as error:  # a defect of ours must not stop a night's run; it is counted under its own reason
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE_ERRORS):
            what = error.strerror if isinstance(error, OSError) else "out of memory"
            raise EcgError(
                f"recording {name}: the machine could not read it ({what}). Run the same command again."
            ) from None
        if task.raise_errors:
            raise EcgError(
                f"recording {name}: {type(error).__name__} in the {stage} step, a defect. Report it."
            ) from None
        rows.refuse(row, stage, Reason.UNEXPECTED, error)
        return None
    return strip.samples


def _read(task: EncodeTask, path: str, entry: str) -> Iterator[Recording]:
    return open_reader(task.layout.reader, task.layout.arrays).read(task.root / path, [entry])


def _save(path: Path, rows: _Rows, entry: FileEntry) -> None:
    buffer = io.BytesIO()
    quality = {f"q_{name}": column for name, column in rows.quality.items()}
    np.savez(
        buffer,
        allow_pickle=False,
        outcome=rows.outcome,
        stage=rows.stage,
        error=rows.error,
        digest=rows.digest,
        valid=rows.valid,
        flags=rows.flags,
        entry=np.array(entry.model_dump_json()),
        **quality,
    )
    write_file(path, buffer.getvalue())


def load_result(path: Path) -> ShardResult:
    """Read back what `encode` left beside a finished shard."""
    with np.load(path, allow_pickle=False) as data:
        return ShardResult(
            outcome=data["outcome"],
            stage=data["stage"],
            error=data["error"],
            digest=data["digest"],
            valid=data["valid"],
            flags=data["flags"],
            quality={name: data[f"q_{name}"] for name in QUALITY_COLUMNS},
            entry=FileEntry.model_validate_json(str(data["entry"])),
        )
