"""A small cohort with a table, whose facts and files can be changed, and what a store of it must be afterwards."""

import csv
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.store.upkeep.compact import compact

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SPEC = """\
name: case
title: t
licence: CC0-1.0
citation: x
mains_hz: {mains}
max_contradictions: 1
layouts:
  - reader: arrays
    files: {{include: ["*.h5"]}}
    arrays: {{kind: hdf5, name: {dataset}, rate_hz: 250, unit: mV, axes: lead_time, leads: [{leads}]}}
    tables: [{{file: t.csv, key: {key}, match: stem}}]
    {recording}
    patient: {{column: {patient}}}
    age: {{column: age}}
    sex: {{column: sex}}
    acquired_at: {{column: date}}
    device: {{column: device}}
    site: {{column: site}}
    labels: {{{label}: {{find: {{column: af}}}}}}
"""
PATIENTS = 5


def wave(seed: int) -> np.ndarray:
    """(12, 10 s at 250 Hz) in mV, I + III = II."""
    rng = np.random.default_rng(seed)
    time = np.arange(2500) / 250
    beats = sum(np.exp(-(((time - centre) / 0.02) ** 2)) for centre in np.arange(0.4, 10, rng.uniform(0.7, 1)))
    one, two = rng.uniform(0.5, 1.5, 2)
    weights = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *rng.uniform(0.5, 1.5, 6)]
    return (np.array(weights)[:, None] * beats + rng.normal(0, 0.01, (12, 2500))).astype(np.float32)


@dataclass
class Source:
    """A folder of HDF5 files and a table, and descriptions of it."""

    folder: Path
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, name: str, seed: int, **facts: str) -> None:
        usual = {
            "person": "CANARYP0",
            "ward": "CANARYW",
            "age": "50",
            "sex": "M",
            "date": "",
            "device": "D",
            "site": "S",
            "af": "1",
        }
        self.rows[name] = {"file": name, "row": f"r{name}", **usual, **facts}
        self.record(name, seed)
        self.save()

    essence = staticmethod(lambda store: essence(store))

    def assert_is_fresh(self, store: Path, spec: Path) -> None:
        assert_is_fresh(store, self, spec)

    def record(self, name: str, seed: int, length: int = 2500) -> None:
        with h5py.File(self.folder / f"{name}.h5", "w") as file:
            file["ecg"] = wave(seed)[:, :length]

    def save(self) -> None:
        with (self.folder / "t.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(next(iter(self.rows.values()))))
            table.writeheader()
            table.writerows(self.rows.values())

    def spec(self, patient="person", dataset="ecg", label="af", mains=50, recording="") -> Path:
        text = SPEC.format(
            patient=patient,
            dataset=dataset,
            label=label,
            mains=mains,
            recording=recording,
            key="file",
            leads=", ".join(LEADS),
        )
        path = self.folder.parent / f"{abs(hash(text))}.yaml"
        path.write_text(text)
        return path


@pytest.fixture
def source(tmp_path) -> Source:
    made = Source(tmp_path / "raw")
    made.folder.mkdir()
    number = 0
    for patient in range(PATIENTS):
        for visit in range(1 + patient % 3):
            facts = {"person": f"CANARYP{patient}", "age": str(40 + 3 * patient), "sex": "MF"[patient % 2]}
            # Two of the patients have no dates: their recordings stand by name.
            dated = {"date": f"201{visit}-02-03 10:00:00"} if patient < 3 else {}
            made.add(f"CANARYe{number}", number, **facts, **dated, device=f"D{patient % 2}", site=f"S{number % 3}")
            number += 1
    made.add("CANARYcopy", 0, person="CANARYP9")
    made.add("CANARYshort", 99, person="CANARYP1")
    made.record("CANARYshort", 99, 300)
    return made


def essence(store: Path) -> dict[str, object]:
    """Everything in the snapshot in force but numbers of generations, which tell how often something was committed."""
    manifest = ec.open(store).manifest
    found: dict[str, object] = {}
    for name in manifest.files:
        found[re.sub(r"\d{6}", "N", name)] = (store / name).read_bytes()
    fields = json.loads(manifest.to_bytes())
    for segment in fields["segments"]:
        segment["name"] = "N"
    fields["files"] = {re.sub(r"\d{6}", "N", name): entry for name, entry in fields["files"].items()}
    for name in ("generation", "earlier"):
        del fields[name]
    return {**found, "manifest": fields}


def assert_is_fresh(store: Path, source: Source, spec: Path) -> None:
    """Compare a store with one that is made of the source at once, as they are and compacted."""
    fresh = store.with_name(f"fresh-{store.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    ingest(source.folder, fresh, str(spec), IngestOptions(shard_records=4))
    assert essence(store) == essence(fresh)
    assert ec.verify(store).ok
    copy = shutil.copytree(store, store.with_name(f"copy-{store.name}"))
    compact(copy)
    compact(fresh)
    assert essence(copy) == essence(fresh)
    shutil.rmtree(copy)


@pytest.fixture
def outcome(capsys):
    """outcome("ingest", ...) runs a command in this process: its exit code, standard output and standard error."""

    def call(*words):
        code = 0
        try:
            main(list(map(str, words)))
        except SystemExit as end:
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return call
