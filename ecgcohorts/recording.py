"""One ECG as its file holds it, before any processing."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.leads import CHEST_LEADS, EIGHT_LEADS, LIMB_LEADS, TWELVE_LEADS, positions, select

Sex = Literal["male", "female"]
# none: numbers that are no voltages, such as z-scores.
Unit = Literal["mV", "none"]
_ALL = slice(None)
# "No sample here" in every int16 strip, stored or loaded. True samples are clipped to +-32767, so none takes this value.
# The same number as WFDB's sentinel of 16-bit formats, which `cohorts.spec` treats as a fact about raw files.
MISSING = -32768
# 128 bits of SHA-256 make a collision by chance impossible in practice among 10^9 recordings.
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Origin:
    """The origin of a recording: reader, path as given, and entry inside the file ("" if the file holds one only).

    beside: the other files of its folder that it is read from, as far as a header alone names them.
    """

    reader: str
    path: Path
    entry: str = ""
    beside: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Return the SHA-256 of the file at `path`, in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Recording:
    """One ECG as read. Axis order is (lead, time); voltages are in mV, unless `unit` says that the numbers are none.

    Integer formats give `digital`, floating-point formats give `analog_mv`; exactly one of them is set. A recording from a
    reader's `scan` has no samples and `n_samples` as declared. Its `repr` leaves out what may identify a person, because
    it ends up in logs and tracebacks.
    """

    recording_id: str = field(repr=False)
    leads: tuple[str, ...]  # names in file order, as the file spells them
    rate_hz: float
    digital: NDArray[np.int32] | None = None  # (lead, time) native integers
    gain_per_mv: NDArray[np.float64] | None = None  # (lead,) native integer steps per mV
    baseline: NDArray[np.float64] | None = None  # (lead,) native integer that means 0 mV
    missing: NDArray[np.bool_] | None = None  # (lead, time), True where the format's own "no sample" value stood
    analog_mv: NDArray[np.float64] | None = None  # (lead, time), NaN where missing
    n_samples: int = 0
    patient_id: str | None = field(default=None, repr=False)  # None if unknown or a placeholder
    age_years: float | None = field(default=None, repr=False)  # not capped
    sex: Sex | None = None
    acquired_at: datetime | None = field(default=None, repr=False)
    device: str | None = None
    site: str | None = None
    mains_hz: float | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)  # raw header text: may identify, never stored
    source: Origin | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()  # named quirks met while reading, no header text
    unit: Unit = "mV"  # none: whatever is called mV in this class is a number without a unit

    def __post_init__(self) -> None:
        if (self.digital is None) == (self.analog_mv is None):
            raise ValueError("give exactly one of digital and analog_mv")
        samples = self.digital if self.digital is not None else self.analog_mv
        assert samples is not None
        if samples.ndim != 2 or len(samples) != len(self.leads):
            raise ValueError(f"samples have shape {samples.shape}, expected ({len(self.leads)} leads, time)")
        if self.digital is not None and (self.gain_per_mv is None or self.baseline is None):
            raise ValueError("digital samples need gain_per_mv and baseline per lead")
        if not self.n_samples:
            object.__setattr__(self, "n_samples", samples.shape[1])

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.rate_hz

    @cached_property
    def signal_mv(self) -> NDArray[np.float64]:
        """(lead, time) in mV; missing samples are NaN."""
        return self.in_mv()

    def in_mv(self, rows: slice | list[int] = _ALL, columns: slice = _ALL) -> NDArray[np.float64]:
        """Return a part of `signal_mv`, (row, column) in mV, without computing the rest."""
        if self.digital is None:
            assert self.analog_mv is not None
            return np.asarray(self.analog_mv[rows, columns], np.float64)
        assert self.gain_per_mv is not None
        assert self.baseline is not None
        baseline, gain = self.baseline[rows, None], self.gain_per_mv[rows, None]
        signal = np.empty((len(gain), len(range(self.digital.shape[1])[columns])))
        for place, run in [(_ALL, rows)] if isinstance(rows, slice) else _runs(rows):
            # Converted first: numpy divides integers by way of a small buffer, in twice the time.
            signal[place] = self.digital[run, columns]
        if baseline.any():
            signal -= baseline
        signal /= gain
        if self.missing is not None:
            signal[self.missing[rows, columns]] = np.nan
        return signal

    def leads_mv(self, wanted: Sequence[str] = EIGHT_LEADS) -> NDArray[np.float64]:
        """Return the wanted leads in their order, (lead, time) in mV; limb leads are derived where needed.

        Raises RejectedRecording if a lead is missing.
        """
        if all(lead in self._positions for lead in wanted):
            return self.in_mv([self._positions[lead] for lead in wanted])
        return np.asarray(select(self.signal_mv, self.leads, wanted), np.float64)

    @cached_property
    def waveform_digest(self) -> bytes:
        """The 128-bit digest of the waveform, equal for copies of one recording in whatever file.

        It covers the native integers of I, II, V1-V6 (floating-point formats: whole microvolts), without columns at both
        ends that are exactly 0 mV in all eight leads; of a file that lacks one of these, the standard leads that it has.
        Raises RejectedRecording if there is none.
        """
        # Such columns are padding by the file, not signal: CODE-15 % pads every tracing to 4096 samples, on both sides.
        hashed = hashlib.sha256()
        for part in self._to_digest():
            hashed.update(np.ascontiguousarray(part, "<i4").data)
        return hashed.digest()[:DIGEST_BYTES]

    def _to_digest(self) -> list[NDArray[np.int32]]:
        """Return the integers of `waveform_digest`, in parts of some leads each."""
        leads = self._digested
        if self.digital is None or any(lead not in self._positions for lead in leads):
            signal_mv = self.leads_mv(leads)
            return [_trimmed(np.rint(np.nan_to_num(signal_mv, nan=-32.768) * 1000).astype(np.int32), signal_mv)]
        assert self.baseline is not None
        rows = [self._positions[lead] for lead in leads]
        shape = len(rows), 2
        off_zero = self.digital[:, [0, -1]][rows] != self.baseline[rows, None] if self.digital.size else np.zeros(shape)
        if off_zero.any(axis=0).all():
            return [self.digital[run] for _, run in _runs(rows)]
        return [_trimmed(self.digital[rows], self.leads_mv(leads))]

    @property
    def _digested(self) -> Sequence[str]:
        """The leads of `waveform_digest`."""
        limbs = [lead for lead in LIMB_LEADS if lead in self._positions]
        if len(limbs) >= 2 and all(lead in self._positions for lead in CHEST_LEADS):
            return EIGHT_LEADS
        # Wearables and ECG-ID have lead I alone: a recipe of one lead takes them, and copies are to be found among them too.
        return [lead for lead in TWELVE_LEADS if lead in self._positions] or EIGHT_LEADS

    @cached_property
    def _positions(self) -> dict[str, int]:
        return positions(self.leads)


def _runs(rows: list[int]) -> list[tuple[slice, slice]]:
    """Return the rows as slices, each with the place of its first ones in the list: a slice copies nothing."""
    starts = [at for at, row in enumerate(rows) if at == 0 or row != rows[at - 1] + 1]
    return [
        (slice(start, stop), slice(rows[start], rows[start] + stop - start))
        for start, stop in pairwise([*starts, len(rows)])
    ]


def _trimmed(integers: NDArray[np.int32], signal_mv: NDArray[np.float64]) -> NDArray[np.int32]:
    """Cut columns that are 0 mV in every lead from both ends of (lead, time) integers."""
    alive = np.flatnonzero((signal_mv != 0).any(axis=0))
    return integers[:, alive[0] : alive[-1] + 1] if len(alive) else integers[:, :0]
