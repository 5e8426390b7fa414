"""What a scan has found, as columns: as a Python object, a row takes a kilobyte; as columns, 5 million rows fit in 1 GB."""

import hashlib
from array import array
from collections.abc import Hashable, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ecgcohorts.cohorts.files import SourceItem
from ecgcohorts.cohorts.schema import Layout, Mains
from ecgcohorts.cohorts.spec import Description
from ecgcohorts.index.cohort_index import LABEL, SEX_CODES, UNKNOWN, CohortIndex
from ecgcohorts.index.contradictions import PatientCheck
from ecgcohorts.ingest._ids import PSEUDONYM, as_keys
from ecgcohorts.io.texts import Texts, encoded
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES

BLOCK = 1 << 16  # rows compared at a time
UNKNOWN_TIME = np.iinfo(np.int64).max  # sorts behind every known one
SECONDS_PER_DAY = 86_400
_MICROSECOND = timedelta(microseconds=1)

V = TypeVar("V", bound=Hashable)


def _begins(keys: NDArray[np.bytes_], order: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Tell where in an order that brings equal keys together a new key begins."""
    is_new = np.ones(len(order), bool)
    # In blocks, because a sorted copy would be as large as the keys.
    for start in range(1, len(order), BLOCK):
        block = keys[order[start - 1 : start + BLOCK]]
        is_new[start : start + BLOCK] = block[1:] != block[:-1]
    return is_new


def _taken(column: NDArray, order: NDArray[np.integer]) -> NDArray:
    """Return `column[order]`; numpy would make 64 bits of every number of the order, all at once."""
    found = np.empty((len(order), *column.shape[1:]), column.dtype)
    for start in range(0, len(order), BLOCK):
        found[start : start + BLOCK] = column[order[start : start + BLOCK]]
    return found


class _Codes(Generic[V]):
    """Numbers for the few different values of a column, in the order they are met; None may be one of them."""

    def __init__(self) -> None:
        self._codes: dict[V, int] = {}

    def code(self, value: V) -> int:
        return self._codes.setdefault(value, len(self._codes))

    @property
    def values(self) -> tuple[V, ...]:
        return tuple(self._codes)


class _Gathered:
    """What the scan has found: one row per recording, in the order of the scan, with ids already replaced."""

    def __init__(self, layout: Layout) -> None:
        self.labels = tuple(sorted(layout.labels))
        self._named_by_path = not layout.recording
        self.cohorts, self.mains = _Codes[str](), _Codes[Mains]()
        self.sites, self.devices = _Codes[str](), _Codes[str]()
        self.files, self._entries, self._names = Texts(), Texts(), Texts()
        # One path and state per file, not per recording: an HDF5 file may hold thousands.
        self._last: tuple[str, str] | None = None
        self._recording, self._patient = bytearray(), bytearray()
        self._cohort, self._file, self._site, self._device = (array("i") for _ in range(4))
        self._known, self._sex, self._mains = (array("b") for _ in range(3))
        self._age, self._label = array("f"), array("f")
        self._time = array("q")
        self._state = array("Q")

    def __len__(self) -> int:
        return len(self._time)

    def append(self, item: SourceItem, about: Description, recording: bytes, patient: bytes) -> None:
        """Add a recording, under the pseudonyms `recording` and `patient`."""
        if (item.path, item.state) != self._last:
            self.files.append(item.path)
            # The state of the input is part of the plan's digest: changed content must not resume on old shards.
            self._state.append(_mark(item.path, item.state))
            self._last = item.path, item.state
        self._file.append(len(self.files) - 1)
        self._entries.append(item.entry)
        # An id that follows from the path is not kept twice.
        self._names.append("" if self._named_by_path else about.recording_id)
        self._recording += recording
        self._patient += patient
        self._known.append(about.patient_id is not None)
        self._cohort.append(self.cohorts.code(about.cohort))
        self._age.append(about.stored_age)
        self._sex.append(SEX_CODES.get(about.sex or "", UNKNOWN))
        self._time.append(_microseconds(about.acquired_at))
        self._site.append(UNKNOWN if about.site is None else self.sites.code(about.site))
        self._device.append(UNKNOWN if about.device is None else self.devices.code(about.device))
        self._mains.append(self.mains.code(about.mains_hz))
        self._label.extend([about.labels[name] for name in self.labels])

    def append_stored(self, index: CohortIndex, entry: int, time: int, labels: Sequence[float]) -> None:
        """Add a recording that the source does not show, with the facts that the entry of an index has of it."""
        if self._last != ("", ""):
            self.files.append("")
            self._state.append(0)
            self._last = "", ""
        self._file.append(len(self.files) - 1)
        self._entries.append("")
        self._names.append("")
        self._recording += index["recording_id"][entry].tobytes()
        self._patient += index["patient_id"][entry].tobytes()
        self._known.append(bool(index["patient_known"][entry]))
        self._cohort.append(self.cohorts.code(index.cohorts[index["cohort"][entry]]))
        self._age.append(float(index["age"][entry]))
        self._sex.append(int(index["sex"][entry]))
        self._time.append(time)
        for column, codes, names in (("site", self.sites, index.sites), ("device", self.devices, index.devices)):
            code = int(index[column][entry])
            vars(self)[f"_{column}"].append(UNKNOWN if code == UNKNOWN else codes.code(names[code]))
        self._mains.append(self.mains.code(None))
        self._label.extend(labels)

    @property
    def recording_ids(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._recording, np.uint8).reshape(-1, PSEUDONYM_BYTES)

    @property
    def patient_ids(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._patient, np.uint8).reshape(-1, PSEUDONYM_BYTES)

    @property
    def cohort(self) -> NDArray[np.int32]:
        return np.frombuffer(self._cohort, np.int32)

    @property
    def time(self) -> NDArray[np.int64]:
        """Microseconds since year 1 by the file's own clock; UNKNOWN_TIME where a file states no time."""
        return np.frombuffer(self._time, np.int64)

    @property
    def mark(self) -> NDArray[np.uint64]:
        """Of the state of each recording's file; 0 if the source does not show it."""
        return np.frombuffer(self._state, np.uint64)[np.frombuffer(self._file, np.int32)]

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.frombuffer(self._known, np.bool_)

    @property
    def sex(self) -> NDArray[np.int8]:
        return np.frombuffer(self._sex, np.int8)

    @property
    def age(self) -> NDArray[np.float32]:
        return np.frombuffer(self._age, np.float32)

    @property
    def site(self) -> NDArray[np.int32]:
        return np.frombuffer(self._site, np.int32)

    @property
    def device(self) -> NDArray[np.int32]:
        return np.frombuffer(self._device, np.int32)

    @property
    def label(self) -> NDArray[np.float32]:
        """(recording, label)."""
        return np.frombuffer(self._label, np.float32).reshape(len(self), len(self.labels))

    def source(self, row: int) -> tuple[str, str]:
        """Return path and entry."""
        return self.files[self._file[row]], self._entries[row]

    def name(self, row: int) -> str:
        """Return the recording's own id. It is never stored, and asked for only where two ids or two times are equal."""
        return SourceItem(*self.source(row)).stem if self._named_by_path else self._names[row]

    def check(self, order: NDArray[np.integer]) -> PatientCheck:
        """Look for contradictions between the recordings of each patient, in the order of `_order`."""
        starts = np.flatnonzero(_begins(as_keys(self.patient_ids), order))
        time = _taken(self.time, order)
        days = time.view(np.float64)  # in the memory of the times, block by block
        for start in range(0, len(time), BLOCK):
            block = time[start : start + BLOCK].copy()
            days[start : start + BLOCK] = np.where(block == UNKNOWN_TIME, np.nan, block / 1_000_000 / SECONDS_PER_DAY)
        return PatientCheck.of_columns(starts, _taken(self.sex, order), _taken(self.age, order), days)

    def lay_out(
        self, order: NDArray[np.integer], days: NDArray[np.float32], stored: NDArray[np.int64] | None = None
    ) -> tuple[pa.Table, str]:
        """Return the rows in another order, with their `days`, and a digest of them and of the state of their files.

        stored: of each gathered recording, the entry of a store whose signal it has, or -1.

        The columns are those of a partition, but with `file` (a number in `files`) in place of `path`. Gathered columns
        are dropped one by one as they are taken, because holding both would double the memory; `files` and codes remain.
        """
        file = _taken(self._take("_file", np.int32), order)
        state = _taken(self._take("_state", np.uint64), file)
        digest = hashlib.sha256(state.astype("<u8").tobytes())
        columns: dict[str, pa.Array] = {"file": pa.array(file), "days": pa.array(days), "state": pa.array(state)}
        if stored is not None:
            columns["stored"] = pa.array(stored[order])
        columns["entry"] = self._entries.column().take(pa.array(order))
        for name, attribute in (("recording_id", "_recording"), ("patient_id", "_patient")):
            ids = _taken(self._take(attribute, np.uint8).reshape(-1, PSEUDONYM_BYTES), order)
            columns[name] = pa.FixedSizeBinaryArray.from_buffers(PSEUDONYM, len(ids), [None, pa.py_buffer(ids)])
            del ids
        columns["patient_known"] = pa.array(_taken(self._take("_known", np.bool_), order))
        for name, dtype in (("age", np.float32), ("sex", np.int8), ("site", np.int32), ("device", np.int32)):
            columns[name] = pa.array(_taken(self._take(f"_{name}", dtype), order))
        columns["mains"] = pa.array(_taken(self._take("_mains", np.int8), order))
        label = self._take("_label", np.float32).reshape(-1, len(self.labels)) if self.labels else np.zeros((0, 0))
        columns |= {LABEL + name: pa.array(label[order, number]) for number, name in enumerate(self.labels)}
        # `file` numbers the files of one scan; the states above stand for them in the digest.
        for name in sorted(set(columns) - {"file", "state"}):
            digest.update(name.encode())
            for buffer in columns[name].buffers()[1:]:
                digest.update(b"" if buffer is None else buffer)
        return pa.table(columns), digest.hexdigest()

    def _take(self, attribute: str, dtype: type[np.generic]) -> NDArray:
        """Return a gathered column as an array and forget it here."""
        return np.frombuffer(vars(self).pop(attribute), dtype)


def _mark(path: str, state: str) -> int:
    """Return a number of 64 bits that changes with the state of a file."""
    text = encoded(f"{path}\0{state}" if state else path)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _microseconds(time: datetime | None) -> int:
    # Most files state no zone. Where one does, it is dropped: mixed clocks would order a patient's recordings wrongly.
    return UNKNOWN_TIME if time is None else (time.replace(tzinfo=None) - datetime.min) // _MICROSECOND
