"""Nightly runs: known files stay closed, new ones are opened once to plan, and a list may name them."""

import io
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.ingest import IngestOptions, ingest, plan_to_file
from ecgcohorts.io.buckets import Bucket

MANIFEST = """\
ecg_arrays: 1
kind: npy
rate_hz: 500
unit: uV
leads: [I, II, III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6]
axes: lead_time
files: ["*.npy"]
"""
OF_ARRAYS = """\
name: numbers
title: Numbers made for a test
licence: CC0-1.0
citation: made for a test
mains_hz: 50
layouts:
  - reader: arrays
    files: {include: ["*.yaml"]}
    patient: {header: row}
"""
OPENED: Counter[str] = Counter()
_HOOKED: list[bool] = []


@pytest.fixture
def opened():
    """Opens of raw headers by name, as the interpreter itself reports them."""

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and str(arguments[0]).endswith(".hea"):
            OPENED[Path(str(arguments[0])).name] += 1

    if not _HOOKED:  # a hook cannot be taken off again
        sys.addaudithook(hook)
        _HOOKED.append(True)
    OPENED.clear()
    return OPENED


def add_later(raw, name="later", patient="CANARYPAT0003"):
    samples = next(iter(raw.signals.values()))
    raw.add(name, samples[:, ::-1].copy(), **{"Patient ID": patient}, Date="2020-01-01T00:00:00")


def test_known_files_are_not_opened_and_a_new_one_once_to_plan(make_cohort, tmp_path, opened):
    raw, store = make_cohort(patients=4), tmp_path / "s.zarr"
    (raw.folder / "CANARYjunk.hea").write_text("CANARY\n")
    nightly = IngestOptions(incremental=True)
    ingest(raw.folder, store, str(raw.spec), nightly)
    opened.clear()
    report = ingest(raw.folder, store, str(raw.spec), nightly)
    assert not report.written
    assert report.known == len(raw.signals) + 1
    assert not opened
    add_later(raw)
    opened.clear()
    plan_to_file(raw.folder, store, str(raw.spec), tmp_path / "run.plan", nightly)
    assert opened == {"later.hea": 1}
    opened.clear()
    assert ingest(raw.folder, store, str(raw.spec), nightly).total.stored == 1
    assert set(opened) == {"later.hea"}
    # As a run that opens all of them does it.
    other = tmp_path / "other.zarr"
    (raw.folder / "later.hea").rename(tmp_path / "aside")
    ingest(raw.folder, other, str(raw.spec))
    (tmp_path / "aside").rename(raw.folder / "later.hea")
    ingest(raw.folder, other, str(raw.spec))
    assert ec.open(other).fingerprint == ec.open(store).fingerprint


@pytest.mark.parametrize("change", ["file", "description", "memory", "store"])
def test_what_is_not_known_for_sure_is_opened(make_cohort, tmp_path, opened, change):
    raw, store = make_cohort(patients=4), tmp_path / "s.zarr"
    ingest(raw.folder, store, str(raw.spec))
    name = sorted(raw.signals)[0]
    expected, options = {f"{name}.hea": 1}, IngestOptions(incremental=True, dry_run=True)
    if change == "file":
        path = raw.folder / f"{name}.hea"
        path.write_text(path.read_text().replace("Age: 30", "Age: 31"))
    else:
        expected = {f"{one}.hea": 1 for one in raw.signals}
    if change == "description":
        raw.spec.write_text(raw.spec.read_text().replace("mains_hz: 50", "mains_hz: 60"))
    if change == "memory":
        (tmp_path / "s.zarr.seen").unlink()
    if change == "store":
        (tmp_path / "s.zarr.seen").rename(tmp_path / "t.zarr.seen")
        store = tmp_path / "t.zarr"
    opened.clear()
    if change == "description":
        with pytest.raises(ec.SpecError, match="--update"):
            ingest(raw.folder, store, str(raw.spec), options)
    else:
        report = ingest(raw.folder, store, str(raw.spec), options)
        assert bool(report.changes) == (change == "file")
    assert opened == expected


def put_other_signal(raw, name: str, file: str | None = None) -> None:
    """Samples in another order: the first and the sums that the header gives are as before."""
    samples = raw.signals[name]
    other = np.concatenate([samples[:, :1], samples[:, :0:-1]], axis=1)
    (raw.folder / (file or f"{name}.dat")).write_bytes(np.ascontiguousarray(other.T, "<i2").tobytes())


@pytest.mark.parametrize("signals", ["named like the header", "named otherwise", "of a segment"])
def test_other_signals_beside_a_header_that_stays_are_noticed(make_cohort, tmp_path, opened, signals):
    raw, store = make_cohort(patients=3), tmp_path / "s.zarr"
    name, file = sorted(raw.signals)[0], None
    header = raw.folder / f"{name}.hea"
    if signals == "named otherwise":
        file = "CANARYsignals.dat"
        (raw.folder / f"{name}.dat").rename(raw.folder / file)
        header.write_text(header.read_text().replace(f"{name}.dat", file))
    if signals == "of a segment":
        raw.spec.write_text(raw.spec.read_text().replace("**/*.hea", "*v?.hea"))
        file, (top, *rest) = f"{name}_s.dat", header.read_text().splitlines()
        (raw.folder / f"{name}.dat").rename(raw.folder / file)
        parts = [line for line in rest if not line.startswith("#")]
        text = "\n".join([top.replace(name, f"{name}_s"), *parts]).replace(f"{name}.dat", file)
        (raw.folder / f"{name}_s.hea").write_text(text + "\n")
        notes = [line for line in rest if line.startswith("#")]
        header.write_text("\n".join([top.replace(name, f"{name}/1"), f"{name}_s {top.split()[3]}", *notes]) + "\n")
    nightly = IngestOptions(incremental=True)
    assert ingest(raw.folder, store, str(raw.spec), nightly).total.stored == len(raw.signals)
    opened.clear()
    report = ingest(raw.folder, store, str(raw.spec), nightly)
    assert not report.changes
    # A header that names other files is opened to learn which: of those alone, a look at each file tells.
    assert set(opened) <= ({f"{name}.hea", f"{name}_s.hea"} if file else set())
    put_other_signal(raw, name, file)
    report = ingest(raw.folder, store, str(raw.spec), nightly)
    assert (report.written, report.changes.files) == (False, 1)
    before = ec.open(store)
    strips = before.read(before.index["row"])
    report = ingest(raw.folder, store, str(raw.spec), IngestOptions(update=True))
    assert report.changes.files == 1
    after = ec.open(store)
    assert (after.read(after.index["row"]) != strips).any(axis=(1, 2)).sum() == 1
    assert not ingest(raw.folder, store, str(raw.spec), nightly).changes


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_other_signals_between_plan_and_encode_stop_encode(make_cohort, tmp_path, change, capsys):
    raw, plan = make_cohort(patients=3), tmp_path / "run.plan"
    plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), plan)
    name = sorted(raw.signals)[0]
    if change == "replaced":
        put_other_signal(raw, name)
    else:
        (raw.folder / f"{name}.dat").unlink()
    with pytest.raises(SystemExit) as end:
        main(["encode", str(plan), "--partition", "0"])
    assert end.value.code == 2
    assert "changed since the plan was made" in capsys.readouterr().err


def test_a_data_file_replaced_beside_its_manifest_is_noticed(tmp_path, opened):
    raw, store = tmp_path / "raw", tmp_path / "s.zarr"
    raw.mkdir()
    rng = np.random.default_rng(0)
    waves = [
        (rng.normal(0, 8, (12, 5000)) + 900 * np.sin(np.arange(5000) / (9 + n)) ** 9).astype("<i2") for n in range(3)
    ]
    for number, wave in enumerate(waves):
        np.save(raw / f"{number}.npy", wave)
    (raw / "set.yaml").write_text(MANIFEST)
    (tmp_path / "cohort.yaml").write_text(OF_ARRAYS)
    nightly = IngestOptions(incremental=True)
    assert ingest(raw, store, str(tmp_path / "cohort.yaml"), nightly).total.stored == 3
    assert not ingest(raw, store, str(tmp_path / "cohort.yaml"), nightly).changes
    np.save(raw / "1.npy", waves[1][:, ::-1])
    assert ingest(raw, store, str(tmp_path / "cohort.yaml"), nightly).changes.files == 1


def test_a_store_without_memory_gets_one(make_cohort, tmp_path, opened):
    raw, store = make_cohort(patients=4), tmp_path / "s.zarr"
    ingest(raw.folder, store, str(raw.spec))
    (tmp_path / "s.zarr.seen").unlink()
    assert not ingest(raw.folder, store, str(raw.spec)).written
    opened.clear()
    assert not ingest(raw.folder, store, str(raw.spec), IngestOptions(incremental=True)).written
    assert not opened


def test_an_archive_is_read_by_its_index(make_cohort, tmp_path, opened):
    raw, store, packed = make_cohort(patients=4), tmp_path / "s.zarr", tmp_path / "raw.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(raw.folder, "raw")
    ingest(packed, store, str(raw.spec))
    opened.clear()
    report = ingest(packed, store, str(raw.spec), IngestOptions(incremental=True))
    assert report.known == len(raw.signals)
    assert not opened


def test_a_list_names_what_is_new(make_cohort, tmp_path, opened, monkeypatch, capsys):
    raw, store = make_cohort(patients=4), tmp_path / "s.zarr"
    words = ["ingest", str(raw.folder), str(store), "--cohort", str(raw.spec)]
    main(words)
    add_later(raw)
    listed = tmp_path / "new.txt"
    listed.write_text(f"later.dat\n{raw.folder / 'later.hea'}\n\n")
    opened.clear()
    main([*words, "--files", str(listed)])
    assert set(opened) == {"later.hea"}
    assert len(ec.open(store).index) == len(raw.signals)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"./later.hea\n")))
    main([*words, "--files", "-"])
    assert "nothing new: 1 inputs were met before" in capsys.readouterr().out
    for text, told in (("CANARYgone.hea\n", "in line 1"), ("later.dat\n", "none like"), ("../x.hea\n", "in line 1")):
        listed.write_text(text)
        with pytest.raises(SystemExit) as end:
            main([*words, "--files", str(listed)])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert told in error
        assert "CANARY" not in error.replace(str(tmp_path), "")


def test_known_objects_of_a_bucket_are_listed_and_not_fetched(make_cohort, bucket_url, tmp_path, monkeypatch):
    raw, store, nightly = make_cohort(patients=4), tmp_path / "s.zarr", IngestOptions(incremental=True)
    bucket = Bucket(f"{bucket_url}/raw")

    def send() -> None:
        for path in raw.folder.iterdir():
            if path.name not in bucket.sizes():
                bucket.put(path.name, path)

    fetched: Counter[str] = Counter()
    real = Bucket.get_range

    def counting(self, name: str, start: int, stop: int):
        fetched[name] += 1
        return real(self, name, start, stop)

    headed: list[str] = []
    head = Bucket.stamp
    monkeypatch.setattr(Bucket, "stamp", lambda self, name: headed.append(name) or head(self, name))
    monkeypatch.setattr(Bucket, "get_range", counting)
    send()
    assert ingest(str(bucket), store, str(raw.spec), nightly).total.stored == len(raw.signals)
    # A header to plan and to encode, signals to encode; none is asked for its size before.
    assert {name: fetched[name] for name in fetched if name.endswith((".hea", ".dat"))} == {
        f"{name}.{kind}": n for name in raw.signals for kind, n in (("hea", 2), ("dat", 1))
    }
    assert not headed
    fetched.clear()
    report = ingest(str(bucket), store, str(raw.spec), nightly)
    assert (report.written, report.known) == (False, len(raw.signals))
    assert not [name for name in (*fetched, *headed) if name.endswith((".hea", ".dat", ".mat"))]
    add_later(raw)
    send()
    # One that was replaced is opened again; its facts are compared, and it needs --update as in a folder.
    name = sorted(raw.signals)[0]
    bucket.put(f"{name}.hea", (raw.folder / f"{name}.hea").read_text().replace("Age: 30", "Age: 310").encode())
    fetched.clear()
    report = ingest(str(bucket), store, str(raw.spec), nightly)
    assert report.total.stored == 1
    assert {one for one in fetched if one.endswith(".hea")} == {"later.hea", f"{name}.hea"}
    time.sleep(1.1)  # an object of the same size shows by its second
    put_other_signal(raw, (other := sorted(raw.signals)[1]))
    bucket.put(f"{other}.dat", raw.folder / f"{other}.dat")
    assert ingest(str(bucket), store, str(raw.spec), nightly).changes.files == 2


def test_an_object_replaced_between_plan_and_encode_stops_encode(make_cohort, bucket_url, tmp_path):
    raw = make_cohort(patients=2)
    bucket = Bucket(f"{bucket_url}/raw")
    for path in raw.folder.iterdir():
        bucket.put(path.name, path)
    plan_to_file(str(bucket), tmp_path / "s.zarr", str(raw.spec), tmp_path / "run.plan")
    name = f"{sorted(raw.signals)[0]}.hea"
    bucket.put(name, (raw.folder / name).read_bytes() + b"# CANARY\n")
    with pytest.raises(SystemExit) as end:
        main(["encode", str(tmp_path / "run.plan"), "--partition", "0"])
    assert end.value.code == 2
