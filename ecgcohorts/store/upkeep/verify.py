"""Verify that every byte of a store is what its manifest says, and that the index tells the truth about the signals."""

import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import MachineError, SpecError, StoreError
from ecgcohorts.io.buckets import Bucket
from ecgcohorts.io.place import Folder
from ecgcohorts.recording import MISSING
from ecgcohorts.store.manifests import files_named
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.remote.bucket_lock import _content, _token_in
from ecgcohorts.store.schema import CURRENT, LOCK, FileEntry

_ROWS_AT_ONCE = 256  # 16 MB of strips
_REFERENCE_ROWS = 16  # rows also read through zarr-python, an independent decoder


@dataclass(frozen=True)
class VerifyReport:
    """What was checked. `problems` is empty if and only if everything held."""

    files: int
    bytes: int
    recordings: int
    empty_rows: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    path: str | Path,
    *,
    workers: int = 1,
    part: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check every file's checksum, earlier snapshots included, that nothing else is there, and the index against signals.

    workers: processes. part: the number of this call, from 0, and of all calls that share the work, on any machines; what
    holds for the store as a whole is checked by the first. progress(done, total) is called per file and per block of
    rows. Raises StoreError only if the store does not open.
    """
    store = open_store(path)
    number, of = part
    if workers < 1 or not 0 <= number < of:
        raise SpecError(f"found workers={workers}, part={part}, expected a process or more, and part N of more than N.")
    named = files_named(store.place, store.manifest)
    with _Pool(store, workers) as pool:
        names = list(named)[number::of]
        problems = list(_check_names(store, named)) if number == 0 else []
        problems += pool.all(_Checks.file, [(name, named[name]) for name in names], progress)
        # Through the ordinary reader first, then through another decoder: a bug in ours must not confirm itself.
        starts = range(0, store.n_rows, _ROWS_AT_ONCE)[number::of]
        blocks = [range(first, min(first + _ROWS_AT_ONCE, store.n_rows)) for first in starts]
        if not problems:  # decoding damaged files would only repeat the news
            problems += pool.all(_Checks.rows, blocks, progress)
    if not problems and number == 0:
        problems += [*_check_listed(store), *_check_reference(store), *_check_accounts(store)]
    entries = [entry for name, entry in store.manifest.files.items() if name in set(names)]
    recordings = int(np.isin(store.index["row"] // _ROWS_AT_ONCE * _ROWS_AT_ONCE, starts).sum())
    return VerifyReport(
        files=len(entries),
        bytes=sum(entry.size for entry in entries),
        recordings=recordings,
        empty_rows=sum(map(len, blocks)) - recordings,
        problems=tuple(problems),
    )


class _Checks:
    """What is checked piece by piece. Each process has one."""

    here: ClassVar["_Checks"]  # of a worker process

    def __init__(self, store: Store) -> None:
        self.store = store

    @staticmethod
    def begin(store: Store) -> None:
        """Make those of a worker process."""
        _Checks.here = _Checks(store)

    def file(self, named: tuple[str, FileEntry | None]) -> list[str]:
        """Return what is wrong with a file."""
        name, entry = named
        if entry is None:
            return []
        try:
            same = self.store.place.sha256_of(name) == entry.sha256
        except FileNotFoundError:  # of an earlier snapshot: opening looks at the files of this one only
            same = False
        return [] if same else [f"{name}: content does not match its SHA-256"]

    @cached_property
    def _spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # Rows that the index does not list keep start = stop = 0, so that any sample in them is a contradiction.
        start, stop = np.zeros((2, self.store.n_rows), np.int64)
        rows = self.store.index["row"]
        start[rows], stop[rows] = self.store.index["valid_start"], self.store.index["valid_stop"]
        return start, stop

    def rows(self, rows: range) -> list[str]:
        """Return what is wrong with a block of rows: samples outside of a valid range, or none inside. The others are empty."""
        store, (start, stop) = self.store, self._spans
        block = np.array(rows)
        try:
            present = (store.read(block) != MISSING).all(axis=1)
        except StoreError as error:
            return [str(error)]
        time = np.arange(store.recipe.strip_samples)
        expected = (time >= start[block, None]) & (time < stop[block, None])
        wrong = block[(present != expected).any(axis=1)]
        if not len(wrong):
            return []
        return [f"row {wrong[0]} and {len(wrong) - 1} more: samples present do not match the index"]


class _Pool:
    """Checks pieces here or in several processes, and gives what is wrong in the order of the pieces."""

    def __init__(self, store: Store, workers: int) -> None:
        self._checks, self._processes = _Checks(store), None
        if workers > 1:
            # Spawned: a fork copies locks that threads of this process hold, and may wait for them forever.
            spawn = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(workers, spawn, _Checks.begin, (store,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

    def all(
        self,
        check: Callable[[_Checks, Any], list[str]],
        pieces: Sequence[Any],
        progress: Callable[[int, int], None] | None,
    ) -> list[str]:
        if self._processes is None:
            found: Iterator[list[str]] = (check(self._checks, piece) for piece in pieces)
        else:
            found = self._processes.map(partial(_in_worker, check), pieces)
        problems: list[str] = []
        try:
            for done, wrong in enumerate(found, 1):
                problems += wrong
                if progress:
                    progress(done, len(pieces))
        except BrokenProcessPool:
            raise MachineError(
                "a process was killed by the system, most likely for lack of memory. Run again with fewer: -j."
            ) from None
        return problems


def _in_worker(check: Callable[[_Checks, Any], list[str]], piece: Any) -> list[str]:
    return check(_Checks.here, piece)


def _check_names(store: Store, named: Mapping[str, FileEntry | None]) -> Iterator[str]:
    expected = {LOCK, CURRENT, *named}
    folders = {"/".join(parts[:n]) + "/" for parts in (name.split("/") for name in named) for n in range(1, len(parts))}
    links = set(store.place.links())
    for name in sorted(links):
        yield f"{name}: a link, pipe or device, which no store holds"
    for name in store.place.everything():
        if name not in (folders if name.endswith("/") else expected) and name.rstrip("/") not in links:
            yield f"{name}: not in the manifest"
    # Locked in a folder by the kernel, whose lock needs no content; in a bucket the object says who is writing.
    content = store.place.sizes([LOCK]).get(LOCK)
    if isinstance(store.place, Folder) and content:
        yield f"{LOCK}: found {content} bytes, expected an empty file"
    if isinstance(store.place, Bucket) and content is not None and _token_in(_content(store.place)) is None:
        yield f"{LOCK}: found something else than the note of a writer"


def _check_listed(store: Store) -> Iterator[str]:
    rows = store.index["row"]
    if len(np.unique(rows)) != len(rows):
        yield "index: a row is listed twice"


def _check_accounts(store: Store) -> Iterator[str]:
    """Yield segments whose account does not balance, or contradicts its rows or the table of rejects."""
    rows = store.index["row"]
    for segment in store.segments:
        account, name = segment.accounting, f"segment {segment.cohort}/{segment.name}"
        if not account.balanced():
            yield f"{name}: inputs are not stored + duplicates + rejected"
        live = int(((rows >= segment.first_row) & (rows < segment.first_row + segment.rows)).sum())
        if live != account.stored:
            yield f"{name}: accounts for {account.stored} stored recordings, the index lists {live}"
    # Removed patients are in the accounts as rejected and in the table as removed, so both sums still agree.
    refused = sum(one.accounting.duplicates + sum(one.accounting.rejected.values()) for one in store.segments)
    if refused != len(store.rejects()):
        yield f"accounts for {refused} recordings not stored, the table of rejects lists {len(store.rejects())}"


def _check_reference(store: Store) -> Iterator[str]:
    """Yield segments of which a few rows read differently through zarr-python."""
    import zarr  # a quarter of a second, which workers of an ingest and readers of a store need not spend

    for segment in store.segments:
        # Spread over the segment, the first and the last row among them.
        local = np.unique(np.linspace(0, segment.rows - 1, min(segment.rows, _REFERENCE_ROWS)).astype(np.int64))
        # zarr-python warns of pcodec, whose name is not in the specification yet.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3 specification")
            array = zarr.open_array(store.place.zarr(), path=segment.folder, mode="r", zarr_format=3)
            reference = np.asarray(array.get_orthogonal_selection((local,)))
        if not np.array_equal(reference, store.read(local + segment.first_row)):
            yield f"{segment.folder}: zarr-python reads other samples"
