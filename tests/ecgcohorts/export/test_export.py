"""What is exported is what is stored: every strip again, sample by sample, and nothing about anybody besides."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ecgcohorts as ec
from ecgcohorts import export
from ecgcohorts.errors import SourceError, StoreError
from ecgcohorts.export import wfdb
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.recording import MISSING
from ecgcohorts.store import Store, open_store

WRITERS = (export.export_wfdb, export.export_index, export.export_huggingface, export.export_webdataset)


@pytest.fixture
def store(make_cohort: Callable[..., object], tmp_path: Path) -> Store:
    """Two cohorts; one recording is short, so that its strip ends in missing samples, and one has no age."""
    for seed, name in enumerate(("north", "south")):
        raw = make_cohort(name, patients=3, seed=seed)
        first, second = sorted(raw.signals)[:2]
        raw.add(first, raw.signals[first][:, :3900], **{"Patient ID": "CANARYSHORT", "Sex": "F", "Age": "95"})
        raw.add(second, raw.signals[second], **{"Patient ID": "CANARYAGELESS"})
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions())
    return open_store(tmp_path / "s.zarr")


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_record_reads_back_as_stored(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told: list[tuple[int, int]] = []
    assert export.export_wfdb(store, out, lambda done, total: told.append((done, total))) == len(store.index)
    assert told == [(len(store.index), len(store.index))]
    frame = store.index.to_pandas()
    strips = dict(zip(frame["recording_id"], store.read(store.index["row"]), strict=True))
    records = (out / "RECORDS").read_text().split()
    assert [row["record"] for row in rows(out)] == records
    assert {Path(record).name for record in records} == set(strips)
    assert any((strip == MISSING).any() for strip in strips.values())
    package = wfdb._wfdb()
    for record in records:
        cohort, folder, name = record.split("/")
        assert (cohort in ("north", "south"), folder) == (True, "000")
        (ours,) = ec.read(out / f"{record}.hea")
        np.testing.assert_array_equal(ours.digital, strips[name])
        np.testing.assert_array_equal(np.isnan(ours.signal_mv), strips[name] == MISSING)
        theirs = package.rdrecord(str(out / record), physical=False)
        np.testing.assert_array_equal(theirs.d_signal.T, strips[name])
        for found in (ours.leads, tuple(theirs.sig_name)):
            assert found == tuple(store.recipe.leads)
        assert ours.rate_hz == theirs.fs == store.recipe.rate_hz
        assert set(ours.gain_per_mv) == set(theirs.adc_gain) == {1000.0}
        assert set(ours.baseline) == {0}
        assert ours.notes == ()  # checksums and first values are there, and hold


def test_only_what_is_allowed_is_told_about_a_recording(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export.export_wfdb(store, out)
    frame = store.index.to_pandas().set_index("recording_id")
    for row in rows(out):
        known = frame.loc[Path(row["record"]).name]
        (ours,) = ec.read(out / f"{row['record']}.hea")
        allowed = {"cohort": known["cohort"], "patient": known["patient_id"], "age": row["age"], "sex": row["sex"]}
        assert dict(ours.fields) == {key: value for key, value in allowed.items() if value}
        assert (row["cohort"], row["patient"]) == (known["cohort"], known["patient_id"])
        assert row["age"] == ("" if np.isnan(known["age"]) else f"{known['age']:g}")
        assert row["sex"] == ("" if pd.isna(known["sex"]) else known["sex"])
        assert (int(row["valid_start"]), int(row["valid_stop"])) == (known["valid_start"], known["valid_stop"])
        assert ours.acquired_at is None
    assert {"", "90"} <= {row["age"] for row in rows(out)}  # unknown, and capped
    everything = b"".join(str(path).encode() + path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"CANARY" not in everything


def test_an_export_is_ingested_again(store: Store, tmp_path: Path) -> None:
    export.export_wfdb(store, tmp_path / "out")
    (tmp_path / "again.yaml").write_text(
        "name: again\ntitle: again\nlicence: CC0-1.0\ncitation: a test\nmains_hz: null\nlayouts:\n"
        "  - reader: wfdb\n    files: {include: ['**/*.hea']}\n    patient: {header: patient}\n"
        "    age: {header: age}\n    sex: {header: sex}\n"
    )
    report = ingest(tmp_path / "out", tmp_path / "again.zarr", str(tmp_path / "again.yaml"), IngestOptions())
    again = open_store(tmp_path / "again.zarr").index
    assert report.total.stored == len(store.index)
    assert again.n_patients == store.index.n_patients
    np.testing.assert_array_equal(np.sort(again["age"]), np.sort(store.index["age"]))
    np.testing.assert_array_equal(np.sort(again["sex"]), np.sort(store.index["sex"]))


def test_a_thousand_records_make_a_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wfdb, "RECORDS_IN_FOLDER", 4)
    monkeypatch.setattr(wfdb, "READ_AT_ONCE", 5)
    export.export_wfdb(store, tmp_path / "out")
    folders = {
        path.relative_to(tmp_path / "out").as_posix(): len(list(path.glob("*.hea")))
        for path in (tmp_path / "out").glob("*/*")
    }
    assert folders == {"north/000": 4, "north/001": 2, "south/000": 4, "south/001": 2}
    frame = store.index.to_pandas().set_index("recording_id")["row"]
    for record in (tmp_path / "out" / "RECORDS").read_text().split():
        (ours,) = ec.read(tmp_path / "out" / f"{record}.hea")
        np.testing.assert_array_equal(ours.digital, store.read(frame[Path(record).name])[0])


def test_nothing_is_replaced(store: Store, tmp_path: Path) -> None:
    for make in (Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")):
        out = tmp_path / "out"
        make(out)
        for write in WRITERS:
            with pytest.raises(SourceError, match="exists already"):
                write(store, out)
        out.rmdir() if out.is_dir() else out.unlink()
    for write in WRITERS:
        with pytest.raises(SourceError, match="lies in the store"):
            write(store, store.path / "deep" / "out")
    assert not list(tmp_path.rglob("*.part"))


def test_an_export_that_breaks_off_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def stop(store: Store, path: Path, *others: object) -> None:
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        write_record(store, path, *others)

    write_record = wfdb._write_record
    monkeypatch.setattr(wfdb, "_write_record", stop)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        export.export_wfdb(store, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
    monkeypatch.setattr(wfdb, "_write_record", write_record)
    assert export.export_wfdb(store, tmp_path / "out") == len(store.index)


def test_two_recordings_of_one_id_are_refused(store: Store, tmp_path: Path) -> None:
    columns = dict(store.index.columns) | {"recording_id": np.zeros((len(store.index), 16), np.uint8)}
    twice = Store(store.place, store.manifest, CohortIndex(columns, store.index.cohorts), store.fingerprint, b"")
    for write in (export.export_wfdb, export.export_webdataset):
        with pytest.raises(StoreError, match="one id"):
            write(twice, tmp_path / "out")


def test_the_index_as_a_table(store: Store, tmp_path: Path) -> None:
    assert export.export_index(store, tmp_path / "index.parquet") == len(store.index)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "index.parquet"), store.index.to_pandas(), check_dtype=False
    )
    assert b"CANARY" not in (tmp_path / "index.parquet").read_bytes()
    assert not list(tmp_path.glob("*.part"))
