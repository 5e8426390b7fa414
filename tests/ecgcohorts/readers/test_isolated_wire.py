"""Frames between two processes, as if the other one were an enemy: a reply or Garbled, nothing else."""

import copy
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import MissingExtra, Reason, UnreadableRecording
from ecgcohorts.readers._isolated import wire
from ecgcohorts.recording import Origin, Recording

PATH = Path("a.h5")
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1 << 70, float("nan"), float("inf"), "", "x" * 50, "male", [], [1], {}, {"a": 1}),
    *(["digital"], ["analog_mv", "digital"], ["missing"], [["analog_mv"]], "2020-99-99", [{}], 1 << 26, [None, 3]),
)


def header() -> dict[str, Any]:
    recording = Recording("1", ("I", "II"), 500.0, analog_mv=np.ones((2, 5)), source=Origin("r", PATH, "1"))
    reply, _ = wire.Reply((recording,), 3, UnreadableRecording(Reason.HEADER, "found", "expected")).pack()
    return json.loads(json.dumps(reply))


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    value = copy.copy(value)
    value[at[0]] = changed(value[at[0]], at[1:], new)
    return value


@pytest.mark.parametrize("at", list(places(header()))[1:], ids=str)
def test_any_value_in_any_place(at: tuple[Any, ...]) -> None:
    for odd in ODD:
        try:
            reply = wire.Reply.unpack(changed(header(), at, odd), PATH, lambda view: None)
        except wire.Garbled:
            continue
        assert isinstance(reply, wire.Reply)
        assert all(isinstance(recording, Recording) for recording in reply.recordings)


def test_a_missing_package_is_told_as_such() -> None:
    """It ends the run, with the way to install it: as a defect of the reader it would refuse one recording after another."""
    reply, _ = wire.Reply((), 0, MissingExtra("h5py is not installed. Run: pip install x")).pack()
    error = wire.Reply.unpack(json.loads(json.dumps(reply)), PATH, lambda view: None).error
    assert type(error) is MissingExtra
    assert str(error) == "h5py is not installed. Run: pip install x"


@pytest.mark.parametrize("key", ["recordings", "stream", "error"])
def test_a_header_without_a_key(key: str) -> None:
    found = header()
    del found[key]
    with pytest.raises(wire.Garbled):
        wire.Reply.unpack(found, PATH, lambda view: None)


@pytest.mark.parametrize("text", [b"", b"[", b"[]", b"1", b'"x"', b"[" * 100_000, b"{" * 9, b"\xff", b"9" * 10_000])
def test_what_is_no_json_object(text: bytes) -> None:
    frame = io.BytesIO(b"ECGr" + struct.pack("<I", len(text)) + text)
    with pytest.raises(wire.Garbled):
        wire.unpack_header(frame.read)


@pytest.mark.parametrize("prefix", [b"ECGx\1\0\0\0", b"ECGr\xff\xff\xff\xff", bytes(8)])
def test_what_is_no_prefix(prefix: bytes) -> None:
    asked: list[int] = []

    def read(count: int) -> bytes:
        asked.append(count)
        return prefix

    with pytest.raises(wire.Garbled):
        wire.unpack_header(read)
    assert asked == [len(prefix)]  # nothing is read for a header that no prefix announced


def test_many_large_recordings_are_not_allocated_at_once() -> None:
    """Each allowed, all of them together a terabyte: refused before the bytes are asked for."""
    found = header()
    found["recordings"] = [found["recordings"][0] | {"columns": 1 << 26}] * wire.MAX_RECORDINGS
    asked: list[int] = []
    with pytest.raises(wire.Garbled):
        wire.Reply.unpack(found, PATH, lambda view: asked.append(view.nbytes))
    assert sum(asked) < 2 << 30
    found["recordings"] = [header()["recordings"][0]] * (wire.MAX_RECORDINGS + 1)
    with pytest.raises(wire.Garbled):
        wire.Reply.unpack(found, PATH, lambda view: None)


def test_the_mask_of_another_process_is_a_mask() -> None:
    """Bytes that are neither 0 nor 1 are no booleans to compute with."""
    recording = Recording(
        *("1", ("I",), 500.0, np.ones((1, 3), np.int32), np.ones(1), np.zeros(1), np.zeros((1, 3), bool))
    )
    found, _ = wire.Reply((recording,), 0, None).pack()

    def fill(view: memoryview) -> None:
        view[:] = b"\xff" * len(view)

    (back,) = wire.Reply.unpack(found, PATH, fill).recordings
    assert back.missing.tolist() == [[True, True, True]]
    assert back.missing.view(np.uint8).tolist() == [[1, 1, 1]]
