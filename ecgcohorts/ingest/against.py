"""Compare a store with its source: decode the raw files again, one at a time, and check every stored value."""

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.cohorts.schema import Mains
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import EcgError, MachineError, RecordingError, SpecError, UnreadableRecording
from ecgcohorts.index.cohort_index import SEX_CODES, UNKNOWN
from ecgcohorts.ingest._ids import as_keys
from ecgcohorts.ingest.again import _Steps
from ecgcohorts.ingest.runners import _end_with_parent, _ignore_interrupts, _interrupts_held
from ecgcohorts.ingest.trace import _Traced, _traced
from ecgcohorts.preprocess.strip import Strip
from ecgcohorts.privacy.pseudonyms import PseudonymKey
from ecgcohorts.readers import files_beside
from ecgcohorts.sources import open_source
from ecgcohorts.sources.windows import WINDOW, at_hand
from ecgcohorts.store.reader import Store, open_store

# Our default: a wrong folder makes millions, and the first ones show what is wrong.
PROBLEMS_KEPT = 1000


@dataclass(frozen=True)
class _AgainstReport:
    """The differences between a store and its source. `ok`: nothing differs, is gone, or is unaccounted for."""

    cohorts: tuple[str, ...]  # the cohorts compared
    compared: int  # recordings decoded again
    differing: int  # recordings with another stored value, or that can no longer be read
    gone: int  # stored, but no longer in the source
    unknown: int  # in the source, but neither stored nor refused: never ingested
    elsewhere: int  # stored, and not compared because one layout of several was asked for, and it has no file of them
    refused: dict[str, int]  # reason -> recordings of the source that the store refused; they are not decoded again
    problems: tuple[str, ...]  # the first problems; recordings are named by pseudonym

    @property
    def ok(self) -> bool:
        return not (self.differing or self.gone or self.unknown)


def verify_against(
    store_path: str | Path,
    source: str | Path,
    cohort: str | CohortSpec,
    key_file: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> _AgainstReport:
    """Decode the recordings of a folder, archive or bucket with the store's recipe and compare them with the store.

    Compares every sample of the strip, its valid range, the digest of the waveform, patient, age and sex.
    progress(done, stored) is called for each recording. workers: processes that decode; a compressed tar has one. Raises SourceError for a source without recordings of the cohort,
    SpecError if the store was made with another description, KeyMismatch for another key, StoreError if the store does
    not open or a shard is damaged.
    """
    store = open_store(store_path)
    spec = cohort if isinstance(cohort, CohortSpec) else CohortSpec.load(cohort)
    with open_source(source) as opened:
        key = store.load_key(key_file)
        files = spec.find(opened)
        check = _Comparison(store, spec, key)
        decoder = _Decoder(store, files, spec)
        # Scanning reads the headers only. The samples are then fetched, a window of files at a time.
        stored = check.stored(_traced(files, spec, key))
        blocks = iter(lambda: list(islice(stored, WINDOW)), [])
        with closing(_decoded(decoder, blocks, 1 if files.source.only_here else workers)) as compared:
            for block, differences in compared:
                for one, found in zip(block, differences, strict=True):
                    check.note(one, found)
                    if progress:
                        progress(check.compared, check.n_stored)
    # A store does not keep which layout a recording came from: of one layout alone, nobody knows what it lacks.
    elsewhere = check.n_unmet if spec._chosen else 0
    if not elsewhere:
        check.find_gone()
    return _AgainstReport(
        cohorts=check.cohorts,
        compared=check.compared,
        differing=check.counts["differing"],
        gone=check.counts["gone"],
        unknown=check.counts["unknown"],
        elsewhere=elsewhere,
        refused=dict(sorted(check.refused.items())),
        problems=tuple(check.problems),
    )


class _Stored(NamedTuple):
    """One recording of a source that the store has: what its source says of it, and its entry in the index."""

    item: SourceItem  # without its header
    entry: int
    cohort: str
    mains_hz: Mains
    patient: bytes
    age: float
    sex: str | None


class _Comparison:
    """One pass over a source, with counts, the first problems, and the entries of the index met so far."""

    def __init__(self, store: Store, spec: CohortSpec, key: PseudonymKey) -> None:
        self._store, self._key = store, key
        self.cohorts = _cohorts_of(store, spec)
        mine = np.isin(store.index["cohort"], [store.index.cohort_code(name) for name in self.cohorts])
        self._entries = np.flatnonzero(mine)
        # Looked up by bisection: a dictionary of millions of ids would take several times the memory of the ids.
        keys = as_keys(store.index["recording_id"][self._entries])
        order = np.argsort(keys)
        self._keys, self._entries = keys[order], self._entries[order]
        self._met = np.zeros(len(self._entries), bool)
        rejects = store.rejects()
        self._reasons = dict(zip(rejects["recording_id"], rejects["reason"], strict=True))
        self.compared = 0
        self.counts, self.refused = Counter[str](), Counter[str]()
        self.problems: list[str] = []

    @property
    def n_stored(self) -> int:
        return len(self._entries)

    def stored(self, traced: Iterable[_Traced]) -> Iterator[_Stored]:
        """Yield what the store has of a source, and count the rest."""
        for one in traced:
            name = bytes.fromhex(one.name)
            at, reason = self._find(name), self._reasons.get(one.name)
            # One id, of a recording that was refused for its header and of one that is stored.
            if at is None or (reason is not None and one.item.error is not None):
                if reason is None:
                    self._tell("unknown", name, "in the source, but neither stored nor refused: ingest it")
                else:
                    self.refused[str(reason)] += 1
                continue
            self._met[at] = True
            about = one.about
            patient = about.patient_pseudonym(self._key)
            item, entry = replace(one.item, header=None), int(self._entries[at])
            yield _Stored(item, entry, about.cohort, about.mains_hz, patient, about.stored_age, about.sex)

    def note(self, one: _Stored, differences: Sequence[str]) -> None:
        """Count a recording that was compared."""
        self.compared += 1
        if differences:
            self._tell("differing", self._store.index["recording_id"][one.entry].tobytes(), "; ".join(differences))

    def _find(self, name: bytes) -> int | None:
        wanted = np.array(name, self._keys.dtype)
        at = int(np.searchsorted(self._keys, wanted))
        return at if at < len(self._keys) and self._keys[at] == wanted else None

    @property
    def n_unmet(self) -> int:
        return int((~self._met).sum())

    def find_gone(self) -> None:
        """Report stored recordings that the source did not show."""
        for at in np.flatnonzero(~self._met).tolist():
            name = self._store.index["recording_id"][self._entries[at]].tobytes()
            self._tell("gone", name, "stored, but no longer in the source")

    def _tell(self, kind: str, name: bytes, what: str) -> None:
        # By pseudonym, as in all messages: names of files may be names of patients.
        self.counts[kind] += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(f"recording {name.hex()}: {what}")


class _Decoder:
    """Decodes recordings of a source again and says how they differ from the store. Each process has one."""

    here: ClassVar["_Decoder"]  # of a worker process

    def __init__(self, store: Store, files: Found, spec: CohortSpec) -> None:
        self._store, self._files, self._spec = store, files, spec

    @staticmethod
    def begin(decoder: "_Decoder") -> None:
        """Make that of a worker process."""
        _ignore_interrupts()
        _end_with_parent()
        _Decoder.here = decoder

    @cached_property
    def _steps(self) -> _Steps:
        return _Steps(Found.reader_of(self._files.layout), self._spec, self._store.recipe)

    def differences(self, block: Sequence[_Stored]) -> list[list[str]]:
        """Return for each recording how it differs."""
        layout, source = self._files
        wanted = [(one.item.path, [one.item.entry]) for one in block]
        again = at_hand(source, wanted, files_beside(layout.reader, layout.arrays))
        return [list(self._differences(one, file)) for one, file in zip(block, again, strict=True)]

    def _differences(self, one: _Stored, file: Path | UnreadableRecording) -> Iterator[str]:
        if one.item.error is not None:
            yield f"stored, but its header is refused now ({one.item.error.reason})"
            return
        try:
            # The strip must be equal in every sample; quality measures follow from samples.
            recording, strip = self._steps.decode(file, one.item.entry, one.cohort, one.mains_hz)
        except RecordingError as error:
            yield f"stored, but refused now ({error.reason})"
            return
        except MemoryError:  # says nothing about the file
            raise
        # One strange file must not end the comparison of 100,000 others.
        except Exception as error:
            yield f"stored, but not readable now ({type(error).__name__})"
            return
        index, entry = self._store.index, one.entry
        yield from _signal_differences(self._store, entry, strip)
        if index["waveform_digest"][entry].tobytes() != recording.waveform_digest:
            yield "waveform digest differs"
        if index["patient_id"][entry].tobytes() != one.patient:
            yield "patient differs"
        if not np.array_equal(index["age"][entry], np.float32(one.age), equal_nan=True):
            yield "age differs"
        if index["sex"][entry] != SEX_CODES.get(one.sex or "", UNKNOWN):
            yield "sex differs"


def _decoded(
    decoder: _Decoder, blocks: Iterator[list[_Stored]], workers: int
) -> Generator[tuple[list[_Stored], list[list[str]]], None, None]:
    """Yield each block with what differs in it, in order. Raises MachineError if the system kills a process."""
    if workers < 2:
        yield from ((block, decoder.differences(block)) for block in blocks)
        return
    # Spawned, as for decoding: a fork copies locks that threads of this process hold.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _Decoder.begin, (decoder,))
    ahead: deque[tuple[list[_Stored], Future[list[list[str]]]]] = deque()
    try:
        while True:
            # One block under way and one waiting for each process; more would only fill memory.
            for block in islice(blocks, 2 * workers - len(ahead)):
                with _interrupts_held():
                    ahead.append((block, pool.submit(_in_worker, block)))
            if not ahead:
                return
            block, found = ahead.popleft()
            yield block, found.result()
    except BrokenProcessPool:
        raise MachineError(
            "a process was killed by the system, most likely for lack of memory. Run again with fewer: -j."
        ) from None
    except EcgError as error:
        raise error from None  # without the worker's trace, which names paths
    finally:
        pool.shutdown(cancel_futures=True)


def _in_worker(block: list[_Stored]) -> list[list[str]]:
    return _Decoder.here.differences(block)


def _cohorts_of(store: Store, spec: CohortSpec) -> tuple[str, ...]:
    """Return the store's cohorts that a description covers. Raises SpecError for none, or if another one made them."""
    mine = [segment for segment in store.segments if segment.cohort in spec.cohort_names]
    if not mine:
        have = ", ".join(sorted({segment.cohort for segment in store.segments}))
        raise SpecError(f"{store.path}: the store has no cohort of {spec.name!r}. It has {have}.")
    digest = spec.sha256
    for segment in mine:
        if segment.spec_sha256 != digest:
            raise SpecError(
                f"{store.path}: cohort {segment.cohort!r} was made with another description. Pass that one."
            )
    return tuple(sorted({segment.cohort for segment in mine}))


def _signal_differences(store: Store, entry: int, strip: Strip) -> Iterator[str]:
    index = store.index
    stored: NDArray[np.int16] = store.read(index["row"][entry])[0]
    other = stored != strip.samples
    if other.any():
        lead, sample = np.argwhere(other)[0].tolist()
        name = store.recipe.leads[lead]
        yield f"{int(other.sum())} of {other.size} samples differ, the first is sample {sample} of lead {name}"
    valid = int(index["valid_start"][entry]), int(index["valid_stop"][entry])
    if valid != (strip.valid_start, strip.valid_stop):
        yield f"valid range {valid[0]}-{valid[1]} stored, {strip.valid_start}-{strip.valid_stop} decoded"
