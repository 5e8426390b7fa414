"""Does a store hold what its source holds? Decodes the raw files again, one at a time, and compares every value."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.cohorts.files import Found, SourceItem, scan_files
from ecgcohorts.cohorts.spec import CohortSpec, Description, apply_rules, describe, load_spec
from ecgcohorts.cohorts.tables import load_tables
from ecgcohorts.cohorts.values import AGE_CAP_YEARS
from ecgcohorts.errors import RecordingError, SpecError, UnreadableRecording
from ecgcohorts.index.cohort_index import SEX_CODES, UNKNOWN
from ecgcohorts.ingest.plan_table import as_keys
from ecgcohorts.preprocess.strip import Strip, make_strip
from ecgcohorts.privacy.pseudonyms import PseudonymKey
from ecgcohorts.readers import files_beside, open_reader
from ecgcohorts.recording import Recording
from ecgcohorts.sources import open_source
from ecgcohorts.sources.windows import WINDOW, at_hand
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.upkeep.lookup import matching_key

PROBLEMS_KEPT = 1000  # our default: a wrong folder makes millions, and the first ones tell
_ALONE = "\0alone\0"


@dataclass(frozen=True)
class AgainstReport:
    """How a store compares with its source. `ok` if and only if nothing differs, is gone, or is unaccounted for."""

    cohorts: tuple[str, ...]  # that were compared
    compared: int  # recordings decoded again
    differing: int  # recordings of which a stored value is another one, or which can no longer be read
    gone: int  # stored, and no longer in the source
    unknown: int  # in the source, and neither stored nor refused: never ingested
    refused: dict[str, int]  # reason -> recordings of the source that the store refused; they are not decoded again
    problems: tuple[str, ...]  # the first ones, by pseudonym

    @property
    def ok(self) -> bool:
        return not (self.differing or self.gone or self.unknown)


def verify_against(
    store_path: str | Path,
    source: str | Path,
    cohort: str | CohortSpec,
    key_file: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AgainstReport:
    """Decode the recordings of a folder, an archive or a bucket with the store's recipe, and compare them with what the store has of them.

    Compared are every sample of the strip, its valid range, the waveform's digest, patient, age and sex.
    progress(done, stored) is called per recording. Raises SourceError for a folder without recordings of the cohort,
    SpecError for another description than the store was made with, KeyMismatch, StoreError if the store does not open
    or a shard is damaged.
    """
    store = open_store(store_path)
    spec = cohort if isinstance(cohort, CohortSpec) else load_spec(cohort)
    with open_source(source) as opened:
        key = matching_key(store, key_file)
        files = spec.find(opened)
        check = _Comparison(store, files, spec, key)
        items = scan_files(files)
        beside = files_beside(files.layout.reader, files.layout.arrays)
        while window := list(islice(items, WINDOW)):  # again, now with samples
            again = at_hand(files.source, [(item.path, [item.entry]) for item in window], beside)
            for item, file in zip(window, again, strict=True):
                check.compare(item, file)
                if progress:
                    progress(check.compared, check.n_stored)
    check.find_gone()
    return AgainstReport(
        cohorts=check.cohorts,
        compared=check.compared,
        differing=check.counts["differing"],
        gone=check.counts["gone"],
        unknown=check.counts["unknown"],
        refused=dict(sorted(check.refused.items())),
        problems=tuple(check.problems),
    )


class _Comparison:
    """One pass over a source. Keeps counts, the first problems, and which entries of the index were met."""

    def __init__(self, store: Store, files: Found, spec: CohortSpec, key: PseudonymKey) -> None:
        self._store, self._spec, self._key = store, spec, key
        self.cohorts = _cohorts_of(store, spec)
        self._tables = load_tables(files)
        mine = np.isin(store.index["cohort"], [store.index.cohort_code(name) for name in self.cohorts])
        self._entries = np.flatnonzero(mine)
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

    def compare(self, item: SourceItem, file: Path | UnreadableRecording) -> None:
        about = describe(self._spec, self._tables, item)
        name = self._key.pseudonym(about.cohort, "recording", about.recording_id)
        place = self._place(name)
        if place is not None and self._met[place]:  # the second of one id was refused, under a pseudonym of its own
            again = f"{about.recording_id}\0{item.path}\0{item.entry}"
            name, place = self._key.pseudonym(about.cohort, "recording", again), None
        if place is None:
            reason = self._reasons.get(name.hex())
            if reason is None:
                self._tell("unknown", name, "in the source, but neither stored nor refused: ingest it")
            else:
                self.refused[str(reason)] += 1
            return
        self._met[place] = True
        self.compared += 1
        entry = int(self._entries[place])
        differences = list(self._differences(item, file, about, entry))
        if differences:
            self._tell("differing", name, "; ".join(differences))

    def _place(self, name: bytes) -> int | None:
        place = int(np.searchsorted(self._keys, np.array(name, self._keys.dtype)))
        found = place < len(self._keys) and self._keys[place] == np.array(name, self._keys.dtype)
        return place if found else None

    def _differences(
        self, item: SourceItem, file: Path | UnreadableRecording, about: Description, entry: int
    ) -> Iterator[str]:
        if item.error is not None:
            yield f"stored, but its header is refused now ({item.error.reason})"
            return
        try:
            recording, strip = self._decode(item, file, about)
        except RecordingError as error:
            yield f"stored, but refused now ({error.reason})"
            return
        except MemoryError:
            raise
        except Exception as error:  # one strange file must not end the comparison of 100,000
            yield f"stored, but not readable now ({type(error).__name__})"
            return
        index = self._store.index
        yield from _signal_differences(self._store, entry, strip)
        if index["waveform_digest"][entry].tobytes() != recording.waveform_digest:
            yield "waveform digest differs"
        if index["patient_id"][entry].tobytes() != self._patient(about):
            yield "patient differs"
        age = np.float32(min(about.age_years, AGE_CAP_YEARS) if math.isfinite(about.age_years) else math.nan)
        if not np.array_equal(index["age"][entry], age, equal_nan=True):
            yield "age differs"
        if index["sex"][entry] != SEX_CODES.get(about.sex or "", UNKNOWN):
            yield "sex differs"

    def _decode(
        self, item: SourceItem, file: Path | UnreadableRecording, about: Description
    ) -> tuple[Recording, Strip]:
        if isinstance(file, UnreadableRecording):
            raise file
        layout = self._tables.layout
        recording = next(open_reader(layout.reader, layout.arrays).read(file, [item.entry]))
        recording = apply_rules(self._spec, about.cohort, recording)
        return recording, make_strip(recording, self._store.recipe, about.mains_hz, with_quality=False)

    def _patient(self, about: Description) -> bytes:
        patient = _ALONE + about.recording_id if about.patient_id is None else about.patient_id
        return self._key.pseudonym(about.cohort, "patient", patient)

    def find_gone(self) -> None:
        """Stored recordings that the source did not show."""
        for place in np.flatnonzero(~self._met).tolist():
            name = self._store.index["recording_id"][self._entries[place]].tobytes()
            self._tell("gone", name, "stored, but no longer in the source")

    def _tell(self, kind: str, name: bytes, what: str) -> None:
        self.counts[kind] += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(f"recording {name.hex()}: {what}")


def _cohorts_of(store: Store, spec: CohortSpec) -> tuple[str, ...]:
    """Cohorts of the store that the description tells of. Raises SpecError for none, or if another one made them."""
    mine = [segment for segment in store.segments if segment.cohort in spec.cohort_names]
    if not mine:
        have = ", ".join(sorted({segment.cohort for segment in store.segments}))
        raise SpecError(f"{store.path}: found no cohort of {spec.name!r}, expected one of those it has: {have}.")
    digest = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
    for segment in mine:
        if segment.spec_sha256 != digest:
            raise SpecError(
                f"{store.path}: found cohort {segment.cohort!r} by another description. Pass the one it was made with."
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
