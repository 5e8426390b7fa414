"""Find the rows of an original id in a store, given the pseudonym key."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from ecgcohorts.cohorts.values import id_text
from ecgcohorts.privacy.pseudonyms import PseudonymKey
from ecgcohorts.store.reader import Store

IdKind = Literal["recording", "patient"]
REMOVED = "removed"  # reason in the table of rejects


@dataclass(frozen=True)
class Found:
    """The rows of one original id in a store. Holds pseudonyms only."""

    cohort: str
    kind: IdKind
    pseudonym: str  # hexadecimal, of the id asked for
    rows: tuple[int, ...]  # of the store; patients: in time order within an ingest run
    recording_ids: tuple[str, ...]  # hexadecimal, one for each row
    patient_ids: tuple[str, ...]
    reason: str = ""  # why it has no row: the code in the table of rejects, or "removed"

    def __str__(self) -> str:
        if self.rows:
            rows = ", ".join(map(str, self.rows))
            return f"{self.kind} {self.pseudonym} of cohort {self.cohort!r}: row {rows}"
        if self.reason:
            return f"{self.kind} {self.pseudonym} of cohort {self.cohort!r}: not stored ({self.reason})"
        return (
            f"found no {self.kind} of this id in cohort {self.cohort!r}. Give the id as the source has it: what the "
            "cohort's description finds, or for a recording its path below the source."
        )


def find_by_id(
    store: Store, cohort: str, original_id: str, kind: IdKind = "recording", key_file: Path | None = None
) -> Found:
    """Find the rows of a recording, or of all recordings of a patient, by the id in the source.

    `rows` is empty if the store has none; `str()` of the result says so. The id is never repeated. Raises KeyMismatch if
    the key is not the store's, SpecError for an unknown cohort.
    """
    key = store.load_key(key_file)
    code = store.index.cohort_code(cohort)
    names = _pseudonyms_of(key, cohort, kind, original_id)
    if kind == "recording":
        names += _by_path(key, cohort, original_id)
    # Several spellings, never a search without the key: a store holds pseudonyms only.
    for name in names:
        entries = np.flatnonzero(store.index.entries_of(code, kind, name))
        if len(entries):
            return Found(
                cohort,
                kind,
                name.hex(),
                tuple(store.index["row"][entries].tolist()),
                tuple(one.tobytes().hex() for one in store.index["recording_id"][entries]),
                tuple(one.tobytes().hex() for one in store.index["patient_id"][entries]),
            )
    reasons = {name: _why_not(store, kind, name.hex()) for name in names}
    name = next((name for name in names if reasons[name]), names[0])
    return Found(cohort, kind, name.hex(), (), (), (), reasons[name])


def _why_not(store: Store, kind: IdKind, pseudonym: str) -> str:
    # Patients are never refused as such, only taken out; the table of rejects lists recordings.
    if kind == "patient":
        return REMOVED if pseudonym in store.manifest.removed else ""
    rejects = store.rejects()
    reasons = rejects["reason"][rejects["recording_id"] == pseudonym].tolist()
    return str(reasons[0]) if reasons else ""


def _pseudonyms_of(key: PseudonymKey, cohort: str, kind: IdKind, original_id: str) -> list[bytes]:
    """Return the pseudonyms an id may have."""
    # Ids are hashed as the source prints them, except for what reading them from a table removes.
    tidy = id_text(original_id)
    spellings = [tidy] if kind == "patient" else [original_id.strip(), " ".join(tidy.split())]
    return [key.pseudonym(cohort, kind, text) for text in dict.fromkeys(spellings)]


def _by_path(key: PseudonymKey, cohort: str, path: str) -> list[bytes]:
    """Return the pseudonyms of what a description may take from a path: all but the suffix, or the last part."""
    parts = PurePosixPath(path.strip())
    texts = [str(parts.with_suffix("")), parts.name, parts.stem] if parts.name else []
    return [key.pseudonym(cohort, "recording", text) for text in texts]
