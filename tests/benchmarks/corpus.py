"""Raw corpora of any size with the shapes of real ECGs, for runs at scale.

    python tests/benchmarks/corpus.py OUT --records 200000

Each recording is one of the real PTB-XL recordings beside the checkout (500 Hz, 12 leads, 10 s), begun at another sample,
with another gain within 20 % and a least bit of noise, written as WFDB in format 16 with checksums. No two waveforms are
equal. Patients have a log-normal number of recordings, 4.3 on average, as in the CAPE cohorts.
"""

import argparse
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.readers.wfdb import reader as wfdb

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "ptb_xl" / "records500"
IN_A_FOLDER = 1000
MEAN_RECORDINGS, SPREAD = 4.3, 0.85  # of the log-normal: median 3
SPEC = """\
name: large
title: Real shapes with jitter
licence: CC BY 4.0, from PTB-XL
citation: PTB-XL 1.0.3
mains_hz: 50
layouts:
  - reader: wfdb
    files: {include: ["**/*.hea"]}
    patient: {header: patient}
    age: {header: age}
    sex: {header: sex}
    acquired_at: {header: date}
"""


def write_corpus(out: Path, records: int, seed: int = 0, processes: int = 2) -> Path:
    """Write so many recordings below out/raw; out/large.yaml describes them, out/key is a pseudonym key. What is there already stays."""
    raw = out / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (out / "large.yaml").write_text(SPEC, "utf-8")
    (out / "key").write_text("5eed" * 16, "ascii")  # no secret: nobody is in here
    jobs = [(raw, first, min(first + IN_A_FOLDER, records), seed) for first in range(0, records, IN_A_FOLDER)]
    with Pool(processes) as pool:
        for _ in pool.imap_unordered(_write_folder, jobs):
            pass
    return raw


def _write_folder(job: tuple[Path, int, int, int]) -> None:
    raw, first, stop, seed = job
    folder = raw / f"{first // IN_A_FOLDER:05d}"
    if (folder / "done").exists():
        return
    folder.mkdir(exist_ok=True)
    patients = _patients(stop, seed)
    for number in range(first, stop):
        _write(folder, number, int(patients[number]), np.random.default_rng((seed, number)))
    (folder / "done").touch()


def _patients(records: int, seed: int) -> NDArray[np.int64]:
    """The patient of each recording, the same for any number of recordings up to the longest asked for."""
    rng = np.random.default_rng(seed)
    mu = np.log(MEAN_RECORDINGS) - SPREAD**2 / 2
    counts = np.maximum(1, np.rint(rng.lognormal(mu, SPREAD, records))).astype(np.int64)
    return np.repeat(np.arange(records), counts)[:records]


def _write(folder: Path, number: int, patient: int, rng: np.random.Generator) -> None:
    real = _real()
    samples, gain, leads = real[number % len(real)]
    start, factor = rng.integers(samples.shape[1]), rng.uniform(0.8, 1.2)
    made = np.rint(np.roll(samples, -start, axis=1) * factor + rng.integers(-1, 2, samples.shape)).astype("<i2")
    name = f"r{number:08d}"
    lines = [f"{name} {len(made)} 500 {made.shape[1]}"]
    for lead, row, per_mv in zip(leads, made, gain, strict=True):
        checksum = int(row.astype(np.int64).sum()) & 0xFFFF
        lines.append(f"{name}.dat 16 {per_mv:g}(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
    age, sex = 20 + patient % 70, ("Male", "Female")[patient % 2]
    day = f"20{10 + number % 12}-0{1 + number % 9}-1{number % 10}T10:{number % 60:02d}:00"
    lines += [f"# patient: {patient}", f"# age: {age}", f"# sex: {sex}", f"# date: {day}"]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n", "ascii")
    (folder / f"{name}.dat").write_bytes(np.ascontiguousarray(made.T).tobytes())


_loaded: list[tuple[NDArray[np.int32], NDArray[np.float64], tuple[str, ...]]] = []


def _real() -> list[tuple[NDArray[np.int32], NDArray[np.float64], tuple[str, ...]]]:
    """Native integers, gain per mV and leads of the real recordings; read once a process."""
    if not _loaded:
        _loaded.extend(_read_real())
    return _loaded


def _read_real() -> Iterator[tuple[NDArray[np.int32], NDArray[np.float64], tuple[str, ...]]]:
    for path in sorted(REAL.rglob("*.hea")):
        recording = next(wfdb.read(path))
        assert recording.digital is not None
        assert recording.gain_per_mv is not None
        yield recording.digital, recording.gain_per_mv, recording.leads


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(write_corpus(asked.out, asked.records, asked.seed))
