"""Compare a store with its source: decode the raw files again, one at a time, and check every stored value."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.cohorts.spec import CohortSpec, Description
from ecgcohorts.errors import RecordingError, SpecError, UnreadableRecording
from ecgcohorts.index.cohort_index import SEX_CODES, UNKNOWN
from ecgcohorts.ingest._ids import as_keys
from ecgcohorts.ingest.again import _Steps
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
) -> _AgainstReport:
    """Decode the recordings of a folder, archive or bucket with the store's recipe and compare them with the store.

    Compares every sample of the strip, its valid range, the digest of the waveform, patient, age and sex.
    progress(done, stored) is called for each recording. Raises SourceError for a source without recordings of the cohort,
    SpecError if the store was made with another description, KeyMismatch for another key, StoreError if the store does
    not open or a shard is damaged.
    """
    store = open_store(store_path)
    spec = cohort if isinstance(cohort, CohortSpec) else CohortSpec.load(cohort)
    with open_source(source) as opened:
        key = store.load_key(key_file)
        files = spec.find(opened)
        check = _Comparison(store, files, spec, key)
        items = _traced(files, spec, key)
        beside = files_beside(files.layout.reader, files.layout.arrays)
        # Scanning read the headers only. Now the samples are fetched, a window of files at a time.
        while window := list(islice(items, WINDOW)):
            again = at_hand(files.source, [(one.item.path, [one.item.entry]) for one in window], beside)
            for one, file in zip(window, again, strict=True):
                check.compare(one, file)
                if progress:
                    progress(check.compared, check.n_stored)
    check.find_gone()
    return _AgainstReport(
        cohorts=check.cohorts,
        compared=check.compared,
        differing=check.counts["differing"],
        gone=check.counts["gone"],
        unknown=check.counts["unknown"],
        refused=dict(sorted(check.refused.items())),
        problems=tuple(check.problems),
    )


class _Comparison:
    """One pass over a source, with counts, the first problems, and the entries of the index met so far."""

    def __init__(self, store: Store, files: Found, spec: CohortSpec, key: PseudonymKey) -> None:
        self._store, self._key = store, key
        self.cohorts = _cohorts_of(store, spec)
        self._steps = _Steps(Found.reader_of(files.layout), spec, store.recipe)
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

    def compare(self, one: _Traced, file: Path | UnreadableRecording) -> None:
        """Compare one recording of the source with its entry in the store, if there is one."""
        name = bytes.fromhex(one.name)
        at, reason = self._find(name), self._reasons.get(one.name)
        # One id, of a recording that was refused for its header and of one that is stored.
        if at is None or (reason is not None and one.item.error is not None):
            if reason is None:
                self._tell("unknown", name, "in the source, but neither stored nor refused: ingest it")
            else:
                self.refused[str(reason)] += 1
            return
        self._met[at] = True
        self.compared += 1
        differences = list(self._differences(one.item, file, one.about, int(self._entries[at])))
        if differences:
            self._tell("differing", name, "; ".join(differences))

    def _find(self, name: bytes) -> int | None:
        wanted = np.array(name, self._keys.dtype)
        at = int(np.searchsorted(self._keys, wanted))
        return at if at < len(self._keys) and self._keys[at] == wanted else None

    def _differences(
        self, item: SourceItem, file: Path | UnreadableRecording, about: Description, entry: int
    ) -> Iterator[str]:
        if item.error is not None:
            yield f"stored, but its header is refused now ({item.error.reason})"
            return
        try:
            # The strip must be equal in every sample; quality measures follow from samples.
            recording, strip = self._steps.decode(file, item.entry, about.cohort, about.mains_hz)
        except RecordingError as error:
            yield f"stored, but refused now ({error.reason})"
            return
        except MemoryError:  # says nothing about the file
            raise
        # One strange file must not end the comparison of 100,000 others.
        except Exception as error:
            yield f"stored, but not readable now ({type(error).__name__})"
            return
        index = self._store.index
        yield from _signal_differences(self._store, entry, strip)
        if index["waveform_digest"][entry].tobytes() != recording.waveform_digest:
            yield "waveform digest differs"
        if index["patient_id"][entry].tobytes() != about.patient_pseudonym(self._key):
            yield "patient differs"
        if not np.array_equal(index["age"][entry], np.float32(about.stored_age), equal_nan=True):
            yield "age differs"
        if index["sex"][entry] != SEX_CODES.get(about.sex or "", UNKNOWN):
            yield "sex differs"

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
