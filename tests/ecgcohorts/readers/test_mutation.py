"""Mutated input: only UnreadableRecording may leave a reader, and never later than a second."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ecgcohorts.errors import UnreadableRecording
from ecgcohorts.readers import code_hdf5, muse_xml, wfdb

MUTANTS = 300
TOKENS = [
    b"0",
    b"-1",
    b"9999999999",
    b"1e308",
    b"nan",
    b"\0",
    b"\xff",
    b" ",
    b"\n",
    b"#",
    b"/",
    b"..",
    b"<",
    b">",
    b"&",
    b"x2",
    b":3",
    b"+9",
]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four edits: a flipped bit, a byte, a cut, a doubled stretch, a token put in."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, max(1, len(out))))
        stop = min(len(out), place + int(rng.integers(1, 40)))
        kind = rng.integers(0, 5)
        if kind == 0 and out:
            out[place % len(out)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and out:
            out[place % len(out)] = int(rng.integers(0, 256))
        elif kind == 2:
            del out[place:stop]
        elif kind == 3:
            out[place:place] = out[place:stop]
        else:
            out[place:place] = TOKENS[int(rng.integers(0, len(TOKENS)))]
    return bytes(out)


def storm(
    reader: ModuleType, path: Path, victim: Path, change: Callable[[bytes, np.random.Generator], bytes]
) -> Counter:
    rng = np.random.default_rng(2024)
    data = victim.read_bytes()
    outcome: Counter = Counter()
    for _ in range(MUTANTS):
        victim.write_bytes(change(data, rng))
        for call in (reader.scan, reader.read):
            start = time.perf_counter()
            try:
                list(call(path))
                outcome["read"] += 1
            except UnreadableRecording as error:
                outcome[error.reason] += 1
            assert time.perf_counter() - start < 5  # includes the first import of h5py or wfdb
    assert outcome.total() == 2 * MUTANTS
    return outcome


@pytest.mark.parametrize("victim", ["r.hea", "r.dat"])
def test_mutated_wfdb_records(victim: str, wfdb_files: ModuleType, tmp_path: Path) -> None:
    channels = [
        wfdb_files.Channel(np.arange(60) * 7 % 90, name, file, fmt)
        for name, file, fmt in (("I", "r.dat", 16), ("II", "r.dat", 16), ("V1", "s.dat", 212), ("V2", "t.dat", 310))
    ]
    path = wfdb_files.write_record(tmp_path, channels, comments=["Age: 63"])
    outcome = storm(wfdb, path, tmp_path / victim, mutate)
    assert outcome.total() - outcome["read"] > 40


def test_mutated_records_of_frames_and_segments(wfdb_files: ModuleType, tmp_path: Path) -> None:
    rare = wfdb_files.Channel(np.arange(60), "II", per_frame=3, skew=2)
    path = wfdb_files.write_record(tmp_path, [rare], "r 1 125 20")
    storm(wfdb, path, path, mutate)
    wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(60), "II", file="a.dat")], name="a")
    path.write_text("r/2 1 500 120\na 60\na 60\n")
    storm(wfdb, path, path, mutate)
    path.write_text("r/2 1 500 120\na 60\na 60\n")
    storm(wfdb, path, tmp_path / "a.hea", mutate)


def test_mutated_muse_files(muse_files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    samples = muse_files.known_samples(2, 60)
    path.write_text(muse_files.document(muse_files.waveform_xml(samples, leads=("I", "II"))))
    outcome = storm(muse_xml, path, path, mutate)
    assert outcome.total() - outcome["read"] > 100


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 40, 12), "compression": "gzip"}])
def test_mutated_hdf5_files(options: dict[str, object], hdf5_files: ModuleType, tmp_path: Path) -> None:
    samples = np.stack([hdf5_files.exam(40, seed) for seed in range(2)])
    path = hdf5_files.write_exams(tmp_path / "x.h5", samples, [5, 6], **options)

    def head_first(data: bytes, rng: np.random.Generator) -> bytes:
        """Half of the mutations in the first 2 kB, where the structure lies."""
        cut = 2048 if rng.integers(0, 2) else len(data)
        return mutate(data[:cut], rng) + data[cut:]

    outcome = storm(code_hdf5, path, path, head_first)
    assert outcome.total() - outcome["read"] > 100
