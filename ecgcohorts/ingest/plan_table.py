"""The rows of a plan as columns. As an object, a row takes a kilobyte; as columns, 5 million rows fit in 1 GB."""

import hashlib
import math
from array import array
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ecgcohorts.cohorts.schema import Layout, Mains
from ecgcohorts.cohorts.spec import Description, SourceItem
from ecgcohorts.cohorts.values import AGE_CAP_YEARS
from ecgcohorts.index.cohort_index import LABEL, SEX_CODES, UNKNOWN
from ecgcohorts.io.texts import Texts, encoded
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES

UNKNOWN_TIME = np.iinfo(np.int64).max  # sorts behind every known one
SECONDS_PER_DAY = 86_400
_MICROSECOND = timedelta(microseconds=1)
_ID = pa.binary(PSEUDONYM_BYTES)

V = TypeVar("V", bound=Hashable)


def row_schema(labels: tuple[str, ...]) -> pa.Schema:
    """The columns of one partition. `path` and `entry` lead back to the input and never enter a store."""
    return pa.schema(
        [
            ("path", pa.binary()),  # below the source, UTF-8 with surrogateescape
            ("entry", pa.binary()),
            ("recording_id", _ID),
            ("patient_id", _ID),
            ("patient_known", pa.bool_()),
            ("age", pa.float32()),
            ("sex", pa.int8()),  # SEX_CODES
            ("days", pa.float32()),
            ("site", pa.int32()),  # place in the header's `sites`, -1: unknown
            ("device", pa.int32()),
            ("mains", pa.int8()),  # place in the header's `mains`
            *((LABEL + name, pa.float32()) for name in labels),
        ]
    )


def ids_of(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """A column of pseudonyms as (row, 16) uint8."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * PSEUDONYM_BYTES :][: len(chunk) * PSEUDONYM_BYTES]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.zeros(0, np.uint8), *parts]).reshape(-1, PSEUDONYM_BYTES)


def id_column(ids: NDArray[np.uint8]) -> pa.Array:
    """(row, 16) uint8 as a column of pseudonyms."""
    return pa.FixedSizeBinaryArray.from_buffers(_ID, len(ids), [None, pa.py_buffer(np.ascontiguousarray(ids))])


def as_keys(ids: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """(row, 16) uint8 as (row,) fixed-width bytes, for sorting and looking up: equal where all 16 bytes are."""
    return np.ascontiguousarray(ids).reshape(-1, PSEUDONYM_BYTES).view(f"S{PSEUDONYM_BYTES}").ravel()


class Codes(Generic[V]):
    """Numbers for the few different values of a column, in the order they are met; None may be one of them."""

    def __init__(self) -> None:
        self._codes: dict[V, int] = {}

    def code(self, value: V) -> int:
        return self._codes.setdefault(value, len(self._codes))

    @property
    def values(self) -> tuple[V, ...]:
        return tuple(self._codes)


class Gathered:
    """What the scan found, one row per recording in its order, ids replaced already."""

    def __init__(self, layout: Layout) -> None:
        self.labels = tuple(sorted(layout.labels))
        self._named_by_path = not layout.recording
        self.cohorts, self.mains = Codes[str](), Codes[Mains]()
        self.sites, self.devices = Codes[str](), Codes[str]()
        self.files, self._entries, self._names = Texts(), Texts(), Texts()
        self._last_path: str | None = None
        self._recording, self._patient = bytearray(), bytearray()
        self._cohort, self._file, self._site, self._device = (array("i") for _ in range(4))
        self._known, self._sex, self._mains = (array("b") for _ in range(3))
        self._age, self._label = array("f"), array("f")
        self._time = array("q")
        self._state = array("Q")

    def __len__(self) -> int:
        return len(self._time)

    def append(self, item: SourceItem, about: Description, recording: bytes, patient: bytes) -> None:
        """Add a recording; `recording` and `patient` are its pseudonyms."""
        if item.path != self._last_path:
            self.files.append(item.path)
            self._state.append(_state(item))
            self._last_path = item.path
        self._file.append(len(self.files) - 1)
        self._entries.append(item.entry)
        self._names.append("" if self._named_by_path else about.recording_id)
        self._recording += recording
        self._patient += patient
        self._known.append(about.patient_id is not None)
        self._cohort.append(self.cohorts.code(about.cohort))
        self._age.append(min(about.age_years, AGE_CAP_YEARS) if math.isfinite(about.age_years) else math.nan)
        self._sex.append(SEX_CODES.get(about.sex or "", UNKNOWN))
        self._time.append(_microseconds(about.acquired_at))
        self._site.append(UNKNOWN if about.site is None else self.sites.code(about.site))
        self._device.append(UNKNOWN if about.device is None else self.devices.code(about.device))
        self._mains.append(self.mains.code(about.mains_hz))
        self._label.extend([about.labels[name] for name in self.labels])

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
        """Microseconds on one clock for all; UNKNOWN_TIME where none is stated."""
        return np.frombuffer(self._time, np.int64)

    def source(self, row: int) -> tuple[str, str]:
        """Path and entry."""
        return self.files[self._file[row]], self._entries[row]

    def name(self, row: int) -> str:
        """The recording's own id: never stored, and wanted only where two ids or two times are equal."""
        return SourceItem(*self.source(row)).stem if self._named_by_path else self._names[row]

    def lay_out(self, order: NDArray[np.int64], days: NDArray[np.float32]) -> tuple[pa.Table, str]:
        """The rows in another order, with `days` in that order; and a digest of them and of their files as they stand.

        The columns are those of `row_schema`, except that `file` (place in `files`) stands for `path`. What was gathered
        is given up on the way, but for `files` and codes: both at once would take twice the memory.
        """
        file = _taken(self, "_file", np.int32)[order]
        digest = hashlib.sha256(_taken(self, "_state", np.uint64)[file].astype("<u8").tobytes())
        columns: dict[str, pa.Array] = {"file": pa.array(file), "days": pa.array(days)}
        columns["entry"] = self._entries.column().take(pa.array(order))
        for name, attribute in (("recording_id", "_recording"), ("patient_id", "_patient")):
            columns[name] = id_column(_taken(self, attribute, np.uint8).reshape(-1, PSEUDONYM_BYTES)[order])
        columns["patient_known"] = pa.array(_taken(self, "_known", np.int8)[order].astype(bool))
        for name, dtype in (("age", np.float32), ("sex", np.int8), ("site", np.int32), ("device", np.int32)):
            columns[name] = pa.array(_taken(self, f"_{name}", dtype)[order])
        columns["mains"] = pa.array(_taken(self, "_mains", np.int8)[order])
        label = _taken(self, "_label", np.float32).reshape(-1, len(self.labels)) if self.labels else np.zeros((0, 0))
        columns |= {LABEL + name: pa.array(label[order, place]) for place, name in enumerate(self.labels)}
        for name in sorted(set(columns) - {"file"}):
            digest.update(name.encode())
            for buffer in columns[name].buffers()[1:]:
                digest.update(b"" if buffer is None else buffer)
        return pa.table(columns), digest.hexdigest()


def _taken(found: Gathered, attribute: str, dtype: type[np.generic]) -> NDArray:
    """A gathered column as an array, no longer held by `found`."""
    return np.frombuffer(vars(found).pop(attribute), dtype)


def _microseconds(time: datetime | None) -> int:
    # One clock per recording is all there is: a zone, where a file states one, is dropped rather than mixed with none.
    return UNKNOWN_TIME if time is None else (time.replace(tzinfo=None) - datetime.min) // _MICROSECOND


def _state(item: SourceItem) -> int:
    """Path and state of an input: another content must not resume on shards of the first."""
    digest = hashlib.blake2b(encoded(f"{item.path}\0{item.state}" if item.state else item.path), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
