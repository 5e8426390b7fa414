"""Verify that every byte of a store is what its manifest says, and that the index tells the truth about the signals."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from ecgcohorts.errors import StoreError
from ecgcohorts.recording import MISSING
from ecgcohorts.store.manifests import files_named
from ecgcohorts.store.reader import Store, open_store
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


def verify(path: str | Path, *, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Check every file's checksum, earlier snapshots included, that nothing else is there, and the index against signals.

    progress(done, total) is called per file and per block of rows. Raises StoreError only if the store does not open.
    """
    store = open_store(path)
    problems = list(_check_files(store, progress))
    # Through the ordinary reader first, then through another decoder: a bug in ours must not confirm itself.
    if not problems:  # decoding damaged files would only repeat the news
        problems += _check_rows(store, progress)
        problems += _check_reference(store)
        problems += _check_accounts(store)
    entries = store.manifest.files.values()
    return VerifyReport(
        files=len(entries),
        bytes=sum(entry.size for entry in entries),
        recordings=len(store.index),
        empty_rows=store.n_rows - len(store.index),
        problems=tuple(problems),
    )


def _check_files(store: Store, progress: Callable[[int, int], None] | None) -> Iterator[str]:
    named = files_named(store.place, store.manifest)
    expected = {LOCK, CURRENT, *named}
    for name in store.place.everything():
        if name not in expected and not name.endswith("/"):
            yield f"{name}: not in the manifest"
    for done, (name, entry) in enumerate(named.items()):
        if entry is not None and not _holds(store, name, entry):
            yield f"{name}: content does not match its SHA-256"
        if progress:
            progress(done + 1, len(named))


def _holds(store: Store, name: str, entry: FileEntry) -> bool:
    try:
        return store.place.sha256_of(name) == entry.sha256
    except FileNotFoundError:  # of an earlier snapshot: opening looks at the files of this one only
        return False


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


def _check_rows(store: Store, progress: Callable[[int, int], None] | None) -> Iterator[str]:
    """Yield rows that hold anything outside their valid range, or lack samples inside. Rows not listed must be empty."""
    start = np.zeros(store.n_rows, np.int64)
    stop = np.zeros(store.n_rows, np.int64)
    rows = store.index["row"]
    if len(np.unique(rows)) != len(rows):
        yield "index: a row is listed twice"
    start[rows], stop[rows] = store.index["valid_start"], store.index["valid_stop"]
    # Rows that the index does not list keep start = stop = 0, so that any sample in them is a contradiction.
    time = np.arange(store.recipe.strip_samples)
    for first in range(0, store.n_rows, _ROWS_AT_ONCE):
        block = np.arange(first, min(first + _ROWS_AT_ONCE, store.n_rows))
        try:
            present = (store.read(block) != MISSING).all(axis=1)
        except StoreError as error:
            yield str(error)
            continue
        expected = (time >= start[block, None]) & (time < stop[block, None])
        wrong = block[(present != expected).any(axis=1)]
        if len(wrong):
            yield f"row {wrong[0]} and {len(wrong) - 1} more: samples present do not match the index"
        if progress:
            progress(int(block[-1]) + 1, store.n_rows)


def _check_reference(store: Store) -> Iterator[str]:
    """Yield segments of which a few rows read differently through zarr-python."""
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
