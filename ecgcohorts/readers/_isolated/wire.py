"""Frames that carry recordings and errors from a reader's process to ours: JSON facts and raw array bytes, no pickle.

A frame is `ECGr`, the length of a JSON header, that header, then the bytes of the arrays it announces. Whatever arrives
is checked as if an attacker had sent it: a hostile file may have taken over the process that read it.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import MissingExtra, Reason, UnreadableRecording
from ecgcohorts.readers._shared.limits import MAX_LEADS, MAX_SAMPLES
from ecgcohorts.recording import Origin, Recording, Sex, Unit

_PREFIX = struct.Struct("<4sI")  # magic, bytes of the header
_MAGIC = b"ECGr"
MAX_HEADER_BYTES = 64 << 20  # our default: `fields` may hold a whole text header, and those have their own limits
MAX_RECORDINGS = 256  # our default: in one reply, so that scanning a large file costs few replies
MAX_REPLY_BYTES = (MAX_SAMPLES + (1 << 20)) * (8 + 1)  # samples as float64 and their mask

# Arrays of a Recording in the order sent. 2: (lead, time); 1: (lead,).
_ARRAYS: dict[str, tuple[type[np.generic], int]] = {
    "digital": (np.int32, 2),
    "gain_per_mv": (np.float64, 1),
    "baseline": (np.float64, 1),
    "missing": (np.uint8, 2),
    "analog_mv": (np.float64, 2),
}
_TEXTS = ("patient_id", "device", "site")
_NUMBERS = ("age_years", "mains_hz")


class Garbled(Exception):
    """The other process sent something that is not a frame."""


class Reply(NamedTuple):
    """The answer to one request: recordings, then the end, an error, or neither if there may be more."""

    recordings: tuple[Recording, ...]
    stream: int  # number under which to ask for more; 0 at the end
    error: Exception | None

    def pack(self) -> tuple[dict[str, Any], list[NDArray]]:
        """Return the header of the reply, and the arrays to send after it."""
        described, arrays = [], []
        for recording in self.recordings:
            present = {name: array for name in _ARRAYS if (array := getattr(recording, name)) is not None}
            described.append(_facts(recording, present))
            arrays += [np.ascontiguousarray(array, _ARRAYS[name][0]) for name, array in present.items()]
        header = {
            "recordings": described,
            "stream": self.stream,
            "error": None if self.error is None else _describe(self.error),
        }
        return header, arrays

    @classmethod
    def unpack(cls, header: dict[str, Any], path: Path, fill: Callable[[memoryview], None]) -> Self:
        """Build the reply that a header announces; `fill` reads the next bytes of the pipe. Raises Garbled.

        path: becomes the path of the recordings' `source`, as the caller spelt it.
        """
        try:
            described = _typed(header["recordings"], list)
            if len(described) > MAX_RECORDINGS:
                raise Garbled
            room = MAX_REPLY_BYTES
            recordings = []
            for facts in described:
                arrays = _announced(facts)
                # The sum counts, not each array: 256 recordings of the largest size would be a terabyte.
                room -= sum(array.nbytes for array in arrays.values())
                if room < 0:
                    raise Garbled
                for array in arrays.values():
                    fill(_memory(array))
                recordings.append(_recording(facts, arrays, path))
            return cls(tuple(recordings), _typed(header["stream"], int), _error(header["error"]))
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
            raise Garbled from None


def pack(header: dict[str, Any], arrays: Iterable[NDArray] = ()) -> Iterator[bytes | memoryview]:
    """Yield the pieces of a frame: prefix and header, then the memory of each contiguous array."""
    text = json.dumps(header).encode()
    yield _PREFIX.pack(_MAGIC, len(text)) + text
    yield from map(_memory, arrays)


def unpack_header(read: Callable[[int], bytes | bytearray]) -> dict[str, Any]:
    """Read the header of a frame; `read` returns so many bytes. Raises Garbled."""
    prefix = read(_PREFIX.size)
    try:
        magic, length = _PREFIX.unpack(prefix)
        if magic != _MAGIC or length > MAX_HEADER_BYTES:
            raise Garbled
        header = json.loads(read(length))
    except (struct.error, ValueError, RecursionError):
        raise Garbled from None
    if not isinstance(header, dict):
        raise Garbled
    return header


def _facts(recording: Recording, arrays: dict[str, NDArray]) -> dict[str, Any]:
    """Return everything about a recording that JSON can hold."""
    samples = arrays["digital"] if "digital" in arrays else arrays["analog_mv"]
    facts = {
        "recording_id": recording.recording_id,
        "leads": list(recording.leads),
        "rate_hz": float(recording.rate_hz),
        "n_samples": int(recording.n_samples),
        "acquired_at": recording.acquired_at and recording.acquired_at.isoformat(),
        "sex": recording.sex,
        "labels": {key: float(value) for key, value in recording.labels.items()},
        "fields": dict(recording.fields),
        "source": (origin := recording.source) and [origin.reader, origin.entry, *origin.beside],
        "notes": list(recording.notes),
        "unit": recording.unit,
        "arrays": list(arrays),
        "columns": int(samples.shape[1]),
    }
    facts |= {name: getattr(recording, name) for name in _TEXTS}
    return facts | {name: None if (value := getattr(recording, name)) is None else float(value) for name in _NUMBERS}


def _memory(array: NDArray) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _announced(facts: dict[str, Any]) -> dict[str, NDArray]:
    """Make the arrays to be filled. `np.empty` takes no page of memory before bytes arrive."""
    n_leads, columns = len(_typed(facts["leads"], list)), _typed(facts["columns"], int)
    # The bounds of every reader once more: the sender may be in the hands of a file.
    if n_leads > MAX_LEADS or columns < 0 or n_leads * columns > MAX_SAMPLES:
        raise Garbled
    arrays = {}
    for name in _typed(facts["arrays"], list):
        dtype, axes = _ARRAYS[name]
        arrays[name] = np.empty((n_leads, columns)[:axes], dtype)
    return arrays


def _origin(texts: Sequence[str], path: Path) -> Origin:
    reader, entry, *beside = texts
    return Origin(reader, path, entry, tuple(beside))


def _recording(facts: dict[str, Any], arrays: dict[str, Any], path: Path) -> Recording:
    missing = arrays.pop("missing", None)
    source, moment = facts["source"], _maybe(facts["acquired_at"], str)
    if facts["sex"] not in ("male", "female", None) or facts["unit"] not in get_args(Unit):
        raise Garbled
    return Recording(
        recording_id=_typed(facts["recording_id"], str),
        leads=tuple(_texts(facts["leads"])),
        rate_hz=_typed(facts["rate_hz"], float),
        n_samples=_typed(facts["n_samples"], int),
        # Bytes other than 0 and 1 are not booleans to compute with, and the other process may send any.
        missing=None if missing is None else missing != 0,
        acquired_at=None if moment is None else datetime.fromisoformat(moment),
        sex=cast("Sex | None", facts["sex"]),
        labels={key: _typed(value, float) for key, value in _typed(facts["labels"], dict).items()},
        fields={key: _typed(value, str) for key, value in _typed(facts["fields"], dict).items()},
        source=None if source is None else _origin(_texts(source), path),
        notes=tuple(_texts(facts["notes"])),
        unit=cast(Unit, facts["unit"]),
        **{name: _maybe(facts[name], str) for name in _TEXTS},
        **{name: _maybe(facts[name], float) for name in _NUMBERS},
        **arrays,
    )


def _describe(error: Exception) -> dict[str, Any]:
    """Describe an exception for JSON. Of a defect only the class is told: its text may quote a header."""
    if isinstance(error, UnreadableRecording):
        parts = [error.found, error.expected, error.remedy, error.where]
        return {"kind": "unreadable", "reason": error.reason.value, "parts": [str(part) for part in parts]}
    if isinstance(error, MemoryError):
        return {"kind": "memory"}
    # Trouble of the machine (a full disk, no rights) must stay what it is: it refuses no recording.
    if isinstance(error, OSError) and error.errno is not None:
        return {"kind": "machine", "errno": error.errno}
    if isinstance(error, MissingExtra):  # it names a package and how to install it, nothing of the file
        return {"kind": "missing", "text": str(error)}
    return {"kind": "defect", "class": type(error).__name__}


def _error(described: dict[str, Any] | None) -> Exception | None:
    if described is None:
        return None
    kind = described["kind"]
    if kind == "unreadable":
        found, expected, remedy, where = _texts(described["parts"])
        return UnreadableRecording(Reason(described["reason"]), found, expected, remedy, where)
    if kind == "memory":
        return MemoryError()
    if kind == "machine":
        number = _typed(described["errno"], int)
        return OSError(number, os.strerror(number))
    if kind == "missing":
        return MissingExtra(_typed(described["text"], str))
    if kind == "defect":
        return RuntimeError(f"{_typed(described['class'], str)[:80]} in a reader")
    raise Garbled


# `type(...) is`, because True is an int to isinstance.
def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise Garbled
    return value


def _maybe(value: Any, kind: type) -> Any:
    return None if value is None else _typed(value, kind)


def _texts(values: Any) -> Sequence[str]:
    return [_typed(value, str) for value in _typed(values, list)]
