"""A reader that misbehaves: the first word of a file is what it does, every line after it one recording."""

import ctypes
import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.recording import Origin, Recording

SUFFIXES, VARIANTS, ISOLATED = (".unruly",), ("none",), True
JUNK = {"wire-junk": b"junk" * 1000, "wire-length": b"ECGr\xff\xff\xff\xff"}


def sniff(head: bytes) -> bool:
    return head.startswith(b"unruly")


def scan(path: Path) -> Iterator[Recording]:
    yield from read(path)


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """The lines name the lengths of the recordings; it misbehaves before the last."""
    deed, *lines = path.read_text().removeprefix("unruly ").splitlines()
    chosen = lines if entries is None else entries
    for place, line in enumerate(chosen):
        if place == len(chosen) - 1:
            misbehave(deed, path)
        yield Recording(
            recording_id=line,
            leads=("I", "II"),
            rate_hz=500,
            analog_mv=np.full((2, int(line)), float(place)),
            source=Origin("unruly", path, line),
            fields={"folder": os.getcwd()},
        )


def misbehave(deed: str, path: Path) -> None:
    if deed == "segfault":
        ctypes.string_at(0)
    elif deed == "hang":
        time.sleep(60)
    elif deed == "spin":
        end = time.monotonic() + 60
        while time.monotonic() < end:
            pass
    elif deed == "deaf":
        sum(range(1 << 50))
    elif deed == "memory":
        bytearray(4 << 30)
    elif deed == "exit":
        os._exit(0)
    elif deed == "print":
        print("x" * 10_000_000)
        os.write(1, b"y" * 10_000_000)
        os.write(2, b"z" * 10_000_000)
    elif deed == "defect":
        raise KeyError("Anna Kowalczyk")
    elif deed == "disk":
        raise OSError(5, "Anna Kowalczyk")
    elif deed == "typed":
        raise UnreadableRecording(Reason.CHECKSUM, "found \u00e9", "expected", "remedy", str(path))
    elif deed == "once" and not path.with_suffix(".seen").exists():
        path.with_suffix(".seen").touch()
        ctypes.string_at(0)
    elif deed in JUNK:
        os.write(replies(), JUNK[deed])
    elif deed == "wire-flood":
        while True:
            os.write(replies(), b"ECGr" + struct.pack("<I", 1 << 25) + b" " * (1 << 25))


def replies() -> int:
    """The pipe on which the process answers, as code that took it over would find it."""
    import fcntl

    for number in range(3, 20):
        try:
            is_pipe = os.readlink(f"/proc/self/fd/{number}").startswith("pipe")
            if is_pipe and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                return number
        except OSError:
            continue
    raise AssertionError("no pipe to the parent")
