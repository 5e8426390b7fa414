"""Recordings and errors between a reader's own process and ours: JSON facts and raw array bytes, no pickle.

A frame is `ECGr`, the length of a JSON header, that header, then the bytes of the arrays it announces. What arrives is
checked as if an attacker had sent it: the process that reads hostile files may have been taken over by one.
"""

import json
import os
import struct
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._shared.limits import MAX_LEADS, MAX_SAMPLES
from ecgcohorts.recording import Recording, Sex, Source

PREFIX = struct.Struct("<4sI")  # magic, bytes of the header
MAGIC = b"ECGr"
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
    """What the other process sent is no frame."""


class Reply(NamedTuple):
    """What one request brought: recordings, then the end, an error, or neither (there may be more)."""

    recordings: tuple[Recording, ...]
    stream: int  # asks for what follows; 0 if nothing does
    error: Exception | None


def header_frame(header: dict[str, Any]) -> bytes:
    """Prefix and header; the arrays follow as they are."""
    text = json.dumps(header).encode()
    return PREFIX.pack(MAGIC, len(text)) + text


def header_length(prefix: bytes | bytearray) -> int:
    """Bytes of the header that a prefix announces. Raises Garbled."""
    magic, length = PREFIX.unpack(prefix)
    if magic != MAGIC or length > MAX_HEADER_BYTES:
        raise Garbled
    return int(length)


def parse_header(text: bytes | bytearray) -> dict[str, Any]:
    """The JSON object of a header. Raises Garbled."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise Garbled from None
    if not isinstance(header, dict):
        raise Garbled
    return header


def as_bytes(array: NDArray) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def to_wire(recording: Recording) -> tuple[dict[str, Any], list[NDArray]]:
    """Facts for JSON and the arrays to send after them."""
    arrays = {name: getattr(recording, name) for name in _ARRAYS if getattr(recording, name) is not None}
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
        "source": recording.source and [recording.source.reader, recording.source.entry],
        "notes": list(recording.notes),
        "arrays": list(arrays),
        "columns": int(samples.shape[1]),
    }
    facts |= {name: getattr(recording, name) for name in _TEXTS}
    facts |= {name: None if (value := getattr(recording, name)) is None else float(value) for name in _NUMBERS}
    return facts, [np.ascontiguousarray(array, _ARRAYS[name][0]) for name, array in arrays.items()]


def from_wire(header: dict[str, Any], path: Path, fill: Callable[[memoryview], None]) -> Reply:
    """The reply a header announces; `fill` reads the next bytes of the pipe. Raises Garbled.

    path: what the recordings' `source` names, as the caller spelt it.
    """
    try:
        described = _typed(header["recordings"], list)
        if len(described) > MAX_RECORDINGS:
            raise Garbled
        room = MAX_REPLY_BYTES
        recordings = []
        for facts in described:
            arrays = _announced(facts)
            room -= sum(array.nbytes for array in arrays.values())
            if room < 0:
                raise Garbled
            for array in arrays.values():
                fill(as_bytes(array))
            recordings.append(_recording(facts, arrays, path))
        return Reply(tuple(recordings), _typed(header["stream"], int), _error(header["error"]))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        raise Garbled from None


def _announced(facts: dict[str, Any]) -> dict[str, NDArray]:
    """Arrays to be filled; their pages are not taken before bytes arrive."""
    n_leads, columns = len(_typed(facts["leads"], list)), _typed(facts["columns"], int)
    if n_leads > MAX_LEADS or columns < 0 or n_leads * columns > MAX_SAMPLES:
        raise Garbled
    arrays = {}
    for name in _typed(facts["arrays"], list):
        dtype, axes = _ARRAYS[name]
        arrays[name] = np.empty((n_leads, columns)[:axes], dtype)
    return arrays


def _recording(facts: dict[str, Any], arrays: dict[str, Any], path: Path) -> Recording:
    missing = arrays.pop("missing", None)
    source, moment = facts["source"], _maybe(facts["acquired_at"], str)
    if facts["sex"] not in ("male", "female", None):
        raise Garbled
    return Recording(
        recording_id=_typed(facts["recording_id"], str),
        leads=tuple(_texts(facts["leads"])),
        rate_hz=_typed(facts["rate_hz"], float),
        n_samples=_typed(facts["n_samples"], int),
        missing=None if missing is None else missing != 0,
        acquired_at=None if moment is None else datetime.fromisoformat(moment),
        sex=cast("Sex | None", facts["sex"]),
        labels={key: _typed(value, float) for key, value in _typed(facts["labels"], dict).items()},
        fields={key: _typed(value, str) for key, value in _typed(facts["fields"], dict).items()},
        source=None if source is None else Source(_typed(source[0], str), path, _typed(source[1], str)),
        notes=tuple(_texts(facts["notes"])),
        **{name: _maybe(facts[name], str) for name in _TEXTS},
        **{name: _maybe(facts[name], float) for name in _NUMBERS},
        **arrays,
    )


def describe_error(error: Exception) -> dict[str, Any]:
    """An exception of a reader for JSON; of defects only the class, whose text might hold header text."""
    if isinstance(error, UnreadableRecording):
        parts = [error.found, error.expected, error.remedy, error.where]
        return {"kind": "unreadable", "reason": error.reason.value, "parts": [str(part) for part in parts]}
    if isinstance(error, MemoryError):
        return {"kind": "memory"}
    if isinstance(error, OSError) and error.errno is not None:
        return {"kind": "machine", "errno": error.errno}
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
    if kind == "defect":
        return RuntimeError(f"{_typed(described['class'], str)[:80]} in a reader")
    return _refuse()


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise Garbled
    return value


def _maybe(value: Any, kind: type) -> Any:
    return None if value is None else _typed(value, kind)


def _texts(values: Any) -> Sequence[str]:
    return [_typed(value, str) for value in _typed(values, list)]


def _refuse() -> NoReturn:
    raise Garbled
