"""The index of a store: its patients and recordings as columns, without signals."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import SpecError, did_you_mean

SEX_CODES = {"male": 0, "female": 1}  # -1: unknown
UNKNOWN = -1
LABEL = "label_"  # prefix of label columns: float32, NaN = unknown
QUALITY = "q_"  # prefix of quality measures
# Prefixes before a lead: its mean and deviation over the whole recording, float32 in mV. Only of recipes that ask.
STATISTICS = ("mean_", "deviation_")

# Column name -> dtype. Every index has all of these, plus label columns (float32, NaN = unknown).
COLUMNS: dict[str, np.dtype] = {
    "row": np.dtype("int64"),  # store-global row of the strip
    "cohort": np.dtype("int32"),  # number in `cohorts`
    "patient": np.dtype("int64"),  # dense over the whole store
    # False: the source gives no id, so the recording counts as a patient of its own.
    "patient_known": np.dtype("bool"),
    "age": np.dtype("float32"),  # years, capped at 90; NaN = unknown
    "sex": np.dtype("int8"),  # SEX_CODES
    "days": np.dtype("float32"),  # since the patient's first recording here; NaN = unknown
    "site": np.dtype("int32"),  # number in `sites`
    "device": np.dtype("int32"),  # number in `devices`
    "valid_start": np.dtype("int32"),  # first sample of the strip that holds signal
    "valid_stop": np.dtype("int32"),  # one past the last
    "quality": np.dtype("uint32"),  # bit field, see quality.py
}
# Fixed-width byte columns: (record, 16) uint8.
BYTE_COLUMNS = ("recording_id", "patient_id", "waveform_digest")


@dataclass(frozen=True, eq=False)
class CohortIndex:
    """The live records of one store, or of several stores of one recipe: one entry for each.

    Entries are ordered by patient, and by time within a patient. `row` is the row of the strip in the store.
    """

    columns: Mapping[str, NDArray] = field(repr=False)
    cohorts: tuple[str, ...]
    sites: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of unequal length: {lengths}")
        # Everything below finds a patient's entries by `patient_ptr`, which needs them side by side.
        if np.any(np.diff(self.columns["patient"]) < 0):
            raise ValueError("records are not ordered by patient")

    def __len__(self) -> int:
        return len(self.columns["row"])

    def __getitem__(self, name: str) -> NDArray:
        try:
            return self.columns[name]
        except KeyError:
            raise SpecError(f"found no index column {name!r}, expected one of {', '.join(self.columns)}.") from None

    @cached_property
    def patient_ptr(self) -> NDArray[np.int64]:
        """(patients + 1,) CSR pointer: the entries of patient p are patient_ptr[p] : patient_ptr[p + 1]."""
        counts = np.bincount(self.columns["patient"], minlength=self.n_patients)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @cached_property
    def n_patients(self) -> int:
        patient = self.columns["patient"]
        return int(patient[-1]) + 1 if len(patient) else 0

    @cached_property
    def patient_cohort(self) -> NDArray[np.int32]:
        """(patients,) cohort of each patient; a patient belongs to one cohort."""
        return self.columns["cohort"][self.patient_ptr[:-1]]

    @property
    def patient_ids(self) -> NDArray[np.uint8]:
        """(patients, 16) pseudonym of each patient."""
        return self["patient_id"][self.patient_ptr[:-1]]

    @property
    def labels(self) -> list[str]:
        return [name.removeprefix(LABEL) for name in self.columns if name.startswith(LABEL)]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what batches depend on: rows, patients, cohorts, valid ranges, and cohort names."""
        # Little-endian and of fixed width, so that a saved sampler state is recognised on any machine.
        digest = hashlib.sha256("\0".join(self.cohorts).encode())
        for name in ("row", "cohort", "patient", "days", "valid_start", "valid_stop"):
            column = self.columns[name].astype(COLUMNS[name].newbyteorder("<"))
            digest.update(name.encode() + np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def rows_of(self, patient: int) -> NDArray[np.int64]:
        """Return the store rows of one patient. Rows of one ingest run are in order of time."""
        return self.columns["row"][self.patient_ptr[patient] : self.patient_ptr[patient + 1]]

    def values(self, name: str, rows: ArrayLike) -> NDArray:
        """Return a column or a label of some store rows, in their shape: the labels of a batch, `values("af", plan.rows)`.

        A row below 0, an empty place of a padded batch, has NaN, -1 in columns of integers, or 0 in others. Raises SpecError for
        another row that is not in the index.
        """
        column = self[name if name in self.columns else f"{LABEL}{name}"]
        asked = np.asarray(rows, np.int64)
        known, order = self._by_row
        places = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        missing = (known[places] != asked) & (asked >= 0)
        if missing.any():
            raise SpecError(
                f"found {int(missing.sum())} rows that are not in this index, such as {asked[missing][0]}, expected rows of "
                "its store. Ask the index that the sampler was built from."
            )
        found = np.array(column[order[places]])
        if (asked < 0).any():
            found[asked < 0] = {"f": np.nan, "i": UNKNOWN}.get(column.dtype.kind, 0)
        return found

    @cached_property
    def _by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows in ascending order, and the entry of each."""
        order = np.argsort(self.columns["row"])
        return self.columns["row"][order], order

    def entries_of(self, cohort: int, kind: str, pseudonym: bytes) -> NDArray[np.bool_]:
        """Mark the entries of a recording or a patient of a cohort: bool (entry,). kind: "recording" or "patient"."""
        same = (self[f"{kind}_id"] == np.frombuffer(pseudonym, np.uint8)).all(axis=1)
        return np.asarray(same & (self["cohort"] == cohort))

    def first_known(self, column: str) -> NDArray:
        """Return each patient's first known value of a column in time order: (patients,), unknown if there is none."""
        values = self[column]
        if not len(values):
            return values
        unknown = np.isnan(values) if values.dtype.kind == "f" else values == UNKNOWN
        places = np.where(unknown, len(values), np.arange(len(values)))
        # Entries of a patient lie together and in time order, so the smallest place is the first recording.
        first = np.minimum.reduceat(places, self.patient_ptr[:-1])
        none = first == len(values)
        return np.where(none, values.dtype.type(np.nan if values.dtype.kind == "f" else UNKNOWN), values[first - none])

    def take(self, entries: ArrayLike) -> "CohortIndex":
        """Return the index of some entries only (a mask or positions). Patients are numbered densely again."""
        chosen = np.asarray(entries)
        # Sorted in either case: entries must stay ordered by patient.
        positions = np.flatnonzero(chosen) if chosen.dtype == bool else np.sort(chosen.astype(np.int64))
        columns = {name: column[positions] for name, column in self.columns.items()}
        columns["patient"] = np.unique(columns["patient"], return_inverse=True)[1].astype(COLUMNS["patient"])
        return CohortIndex(columns, self.cohorts, self.sites, self.devices)

    def where(
        self, cohort: str | Sequence[str] | None = None, sex: str | None = None, age: tuple[float, float] | None = None
    ) -> "CohortIndex":
        """Return records of some cohorts, of one sex, with low <= age < high. Raises SpecError for an unknown name."""
        keep = np.ones(len(self), bool)
        if cohort is not None:
            names = [cohort] if isinstance(cohort, str) else list(cohort)
            keep &= np.isin(self["cohort"], [self.cohort_code(name) for name in names])
        if sex is not None:
            if sex not in SEX_CODES:
                raise SpecError(f"found sex {sex!r}, expected one of {', '.join(SEX_CODES)}.")
            keep &= self["sex"] == SEX_CODES[sex]
        if age is not None:
            keep &= (self["age"] >= age[0]) & (self["age"] < age[1])
        return self.take(keep)

    def cohort_code(self, name: str) -> int:
        if name not in self.cohorts:
            known = self.cohorts
            raise SpecError(f"found no cohort {name!r}, expected one of {', '.join(known)}.{did_you_mean(name, known)}")
        return self.cohorts.index(name)

    def split_by_patient(self, fractions: Mapping[str, float], salt: str) -> dict[str, "CohortIndex"]:
        """Split into named parts by a hash of the patient's pseudonym, so that no patient is in two of them.

        A patient's part depends on the pseudonym, the salt and the fractions only, so it stays when records are added.
        `splits.by_patient` with the salt as its name makes the same parts and can be saved.
        """
        part = _share_out(draw_ids(self.patient_ids, salt), fractions)[self["patient"]]
        return {name: self.take(part == number) for number, name in enumerate(fractions)}

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per record, with names instead of codes and hexadecimal text instead of digests."""
        frame = pd.DataFrame({name: column for name, column in self.columns.items() if column.ndim == 1})
        frame["cohort"] = np.array(self.cohorts, object)[self["cohort"]]
        # Code -1, unknown, takes the last value.
        frame["sex"] = np.array(["male", "female", None], object)[self["sex"]]
        for name, values in (("site", self.sites), ("device", self.devices)):
            frame[name] = np.array([*values, None], object)[self[name]]
        for name in BYTE_COLUMNS:
            frame[name] = [bytes(value).hex() for value in self[name]]
        return frame


def draw_ids(ids: NDArray[np.uint8], salt: str) -> NDArray[np.float64]:
    """Draw a number in [0, 1) for each of (id, 16) ids. It depends on id and salt only, so every machine draws the same."""
    salted = hashlib.sha256(salt.encode())
    draws = np.empty(len(ids), np.float64)
    for number, one in enumerate(ids):
        digest = salted.copy()
        digest.update(one.tobytes())
        draws[number] = int.from_bytes(digest.digest()[:8], "big") / 2**64
    return draws


def _share_out(draws: NDArray[np.float64], fractions: Mapping[str, float]) -> NDArray[np.int64]:
    """Return the number of the fraction into which each draw falls. Raises SpecError unless they sum to 1, none below 0."""
    shares = np.array(list(fractions.values()), np.float64)
    if not np.isclose(shares.sum(), 1.0):
        raise SpecError(f"found fractions summing to {shares.sum():g}, expected 1.")
    if (shares < 0).any():
        raise SpecError(f"found a fraction of {shares.min():g}, expected none below 0.")
    # Shares such as 0.8 + 0.1 + 0.1 may sum to a little less than 1: a draw above that belongs to the last.
    return np.minimum(np.searchsorted(np.cumsum(shares), draws, side="right"), len(shares) - 1)


def number_ids(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number (id, 16) ids densely in the order of their bytes. Equal ids get equal numbers."""
    high, low = np.ascontiguousarray(ids).view(">u8").astype(np.uint64).T.copy()
    # Pseudonyms and digests almost always differ in their first 64 bits, and one sort takes half the time of two.
    order = np.argsort(high)
    again = np.diff(high[order]) == 0
    if (again & (np.diff(low[order]) != 0)).any():
        order = np.lexsort((low, high))
        again = (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0)
    numbers = np.zeros(len(ids), np.int64)
    numbers[order[1:]] = np.cumsum(~again)
    return numbers
