"""One partition = one shard: read, check, filter, pack. Runs anywhere, in any order, and gives the same bytes."""

import io
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from ecgcohorts.cohorts.schema import Layout, Mains
from ecgcohorts.cohorts.spec import CohortSpec, apply_rules
from ecgcohorts.errors import (
    EcgError,
    Reason,
    RecordingError,
    SpecError,
    UnreadableRecording,
    is_of_machine,
    machine_error,
)
from ecgcohorts.ingest.plan import AnyPlan, Part, PlanHeader
from ecgcohorts.io.durable import make_folder, sha256_of, write_file
from ecgcohorts.io.texts import decoded
from ecgcohorts.preprocess.quality import QUALITY_COLUMNS
from ecgcohorts.preprocess.recipes import Recipe
from ecgcohorts.preprocess.strip import Strip, make_strip
from ecgcohorts.readers import files_beside, open_reader
from ecgcohorts.recording import DIGEST_BYTES, Recording
from ecgcohorts.sources import Source
from ecgcohorts.sources.windows import at_hand
from ecgcohorts.store.schema import STAGING, FileEntry
from ecgcohorts.store.signals.chunks import Codec
from ecgcohorts.store.writer import ShardWriter

_CODES = ["", *Reason]  # outcome 0: stored
_STAGES = ("", "read", "recipe")


class Staged:
    """Where the files of one partition stand until the commit."""

    def __init__(self, staging: Path, part: Part) -> None:
        name = f"{part.cohort}-{part.shard}"
        self.shard, self.result, self.now = (staging / f"{name}.{kind}" for kind in ("shard", "npz", "on"))

    def stopped_at(self) -> str | None:
        """Pseudonym of the recording that a process was at when it was killed; None if none was."""
        try:
            return self.now.read_text("ascii") or None
        except (OSError, UnicodeDecodeError):
            return None

    def remove(self) -> None:
        for path in (self.result, self.shard, self.now):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class EncodeTask:
    """All that a worker needs for one shard. Holds input paths; lives in memory only."""

    part: Part
    source: Source
    spec: CohortSpec
    recipe: Recipe
    layout: Layout
    inputs: tuple[tuple[str, str, Mains], ...]  # path in the source, entry, mains
    names: tuple[str, ...]  # pseudonyms, for messages
    files: Staged
    shard_records: int
    codec: Codec
    raise_errors: bool
    with_quality: bool

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.recipe.leads), self.recipe.strip_samples


def task_of(plan: AnyPlan, part: Part, source: Source) -> EncodeTask:
    """What there is to do for one partition. Raises SpecError for a path that leads out of the source."""
    header = plan.header
    rows = plan.rows(part, ["path", "entry", "mains", "recording_id"])
    paths = [decoded(path) for path in rows["path"].to_pylist()]
    if any(path.startswith("/") or ".." in path.split("/") for path in paths):
        raise SpecError(f"partition {part.number}: found a path that leads out of the source. Plan again.")
    entries = [decoded(entry) for entry in rows["entry"].to_pylist()]
    mains = [header.mains[code] for code in rows["mains"].to_pylist()]
    return EncodeTask(
        part=part,
        source=source,
        spec=header.spec,
        recipe=header.recipe,
        layout=header.layout,
        inputs=tuple(zip(paths, entries, mains, strict=True)),
        names=tuple(name.hex() for name in rows["recording_id"].to_pylist()),
        files=Staged(staging_of(header), part),
        shard_records=header.shard_records,
        codec=header.codec,
        raise_errors=header.on_error == "raise",
        with_quality=header.quality,
    )


def staging_of(header: PlanHeader) -> Path:
    return header.folder / STAGING / header.digest


class ShardResult:
    """What `encode` found out about the rows of one shard, read on demand.

    Arrays by row: outcome (0: stored), stage, error (codes of what was refused), digest (row, 16), valid (row, 2),
    flags, and the columns of quality. Raises OSError, ValueError or KeyError if the file is not whole.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as data:
            self.entry = FileEntry.model_validate_json(str(data["entry"]))
            self.outcome: NDArray[np.uint8] = data["outcome"]
            self.digest: NDArray[np.uint8] = data["digest"]
            self._stage, self._error, self._errors = data["stage"], data["error"], data["errors"]
        self._path = path

    def __len__(self) -> int:
        return len(self.outcome)

    def refusal(self, row: int) -> tuple[str, str, str]:
        """Stage, reason and class of the error of a row that is not stored."""
        return _STAGES[self._stage[row]], str(_CODES[self.outcome[row]]), str(self._errors[self._error[row]])

    def columns(self) -> dict[str, NDArray]:
        """valid, flags, and q_... for each measure of quality."""
        with np.load(self._path, allow_pickle=False) as data:
            return {name: data[name] for name in ("valid", "flags", *(f"q_{name}" for name in QUALITY_COLUMNS))}


class _Rows:
    """Collects the per-row facts of a shard while it is written."""

    def __init__(self, n: int) -> None:
        self.outcome = np.zeros(n, np.uint8)
        self.stage = np.zeros(n, np.uint8)
        self.error = np.zeros(n, np.uint8)
        self.errors = [""]  # class names
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
        name = type(error).__name__
        if name not in self.errors:
            self.errors.append(name)
        self.error[row] = self.errors.index(name)


def _blank(dtype: np.dtype) -> float:
    return np.nan if np.issubdtype(dtype, np.floating) else 0


def is_done(files: Staged, rows: int, moved: Path | None = None) -> bool:
    """Is this shard whole on disk, with its result? Its bytes must be those its result tells.

    moved: where a commit that was killed may have put it.
    """
    try:
        result = ShardResult(files.result)
        shard = files.shard if moved is None or files.shard.exists() else moved
        return len(result) == rows and sha256_of(shard) == result.entry.sha256
    except (OSError, ValueError, KeyError, BadZipFile):
        return False


def encode(task: EncodeTask) -> None:
    """Write one shard file and, once that is whole on disk, its result file.

    A recording that cannot be used leaves a row of the missing value and its reason. With `raise_errors` the first
    one is raised instead, under its pseudonym.
    """
    blosc.use_threads = False  # one thread a process: workers are the parallelism
    rows = _Rows(len(task.inputs))
    wanted = ((path, [entry]) for path, entry, _ in task.inputs)
    beside = files_beside(task.layout.reader, task.layout.arrays)
    with (
        closing(at_hand(task.source, wanted, beside)) as files,
        _Now(task.files.now) as now,
        ShardWriter(task.files.shard, task.shard_records, task.shape, task.codec) as shard,
    ):
        for row, name in enumerate(task.names):
            now.tell(name)
            shard.append(_encode_row(task, row, next(files), rows))
    _save(task.files.result, rows, shard.entry)


class _Now:
    """A file that names the recording being encoded. It stays behind only if the process is killed.

    Not synced: it is for whoever asks after a death of the process, not of the machine.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        return self

    def tell(self, name: str) -> None:
        os.pwrite(self._handle, name.encode("ascii"), 0)

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
        self._path.unlink(missing_ok=True)


def _encode_row(task: EncodeTask, row: int, file: Path | UnreadableRecording, rows: _Rows) -> NDArray[np.int16] | None:
    _, entry, mains_hz = task.inputs[row]
    stage = "read"
    try:
        if isinstance(file, UnreadableRecording):
            raise file
        recording = next(open_reader(task.layout.reader, task.layout.arrays).read(file, [entry]))
        stage = "recipe"
        recording = apply_rules(task.spec, task.part.cohort, recording)
        strip = make_strip(recording, task.recipe, mains_hz, task.with_quality)
        rows.accept(row, recording, strip)
        return strip.samples
    except Exception as error:
        reason = error.reason if isinstance(error, RecordingError) else Reason.UNEXPECTED
        rows.refuse(row, stage, reason, error)
        problem = _to_raise(error, f"recording {task.names[row]}", stage, task.raise_errors)
    if problem is not None:
        raise problem  # out here: as the context of this one, the first error would still name paths
    return None


def _to_raise(error: Exception, where: str, stage: str, raise_errors: bool) -> EcgError | None:
    """What ends the run, told by pseudonym: what was found may be header text. None: the row is refused, the run goes on.

    A defect of ours must not stop a night's run; it is counted under its own reason.
    """
    if isinstance(error, RecordingError):
        again = type(error)(error.reason, error.reason, error.expected, error.remedy, where)
        return again if raise_errors else None
    if isinstance(error, EcgError):  # no process to read in: nothing is wrong with the recording
        return EcgError(f"{where}: {error}")
    if isinstance(error, MemoryError | OSError) and is_of_machine(error):
        return machine_error(where, error)
    if raise_errors:
        return EcgError(f"{where}: {type(error).__name__} in the {stage} step, a defect. Report it.")
    return None


def _save(path: Path, rows: _Rows, entry: FileEntry) -> None:
    buffer = io.BytesIO()
    quality = {f"q_{name}": column for name, column in rows.quality.items()}
    np.savez(
        buffer,
        allow_pickle=False,
        outcome=rows.outcome,
        stage=rows.stage,
        error=rows.error,
        errors=np.array(rows.errors),
        digest=rows.digest,
        valid=rows.valid,
        flags=rows.flags,
        entry=np.array(entry.model_dump_json()),
        **quality,
    )
    write_file(path, buffer.getvalue())
