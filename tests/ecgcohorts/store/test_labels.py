"""A user's own labels join by their own ids; nothing of the table but its numbers gets out."""

import csv
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import KeyMismatch, LockHeld, SourceError, SpecError, StoreError
from ecgcohorts.index import splits
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io import durable
from ecgcohorts.store import save_split
from ecgcohorts.store.commit import writer_lock
from ecgcohorts.store.upkeep.labels import add_labels
from ecgcohorts.store.upkeep.lookup import find_by_id


@pytest.fixture
def raw(make_cohort):
    return make_cohort("north", 5)


@pytest.fixture
def folder(raw, make_cohort, tmp_path) -> Path:
    south = make_cohort("south", 2, seed=1)
    for cohort in (raw, south):
        ingest(cohort.folder, tmp_path / "s.zarr", str(cohort.spec), IngestOptions(shard_records=4))
    return tmp_path / "s.zarr"


def write_csv(path: Path, *rows: tuple[object, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def value_of(store: ec.Store, name: str, label: str) -> float:
    [row] = find_by_id(store, "north", name).rows
    return float(store.index[f"label_{label}"][store.index["row"] == row][0])


def test_numbers_reach_their_recordings(raw, folder, tmp_path):
    before, old = ec.open(folder), content(folder)
    names = list(raw.signals)
    lines = [(name, place / 4, "CANARYTEXT") for place, name in enumerate(names[:-2])]
    table = write_csv(tmp_path / "t.csv", ("id", "ef", "free text"), *lines, (names[-2], "", ""), ("CANARYELSE", 9, ""))
    report = add_labels(folder, table, "north", id_column="id", columns=["ef"])
    store = ec.open(folder)
    for place, name in enumerate(names[:-2]):
        assert value_of(store, name, "ef") == np.float32(place / 4)
    assert np.isnan([value_of(store, name, "ef") for name in names[-2:]]).all()
    assert np.isnan(store.index.where(cohort="south")["label_ef"]).all()
    assert (report.rows_matched, report.rows_unmatched) == (len(names) - 1, 1)
    assert (report.recordings_matched, report.recordings_unmatched) == (len(names) - 1, 1)
    assert report.known == {"ef": len(names) - 2}
    assert report.fingerprint == store.fingerprint != before.fingerprint
    assert set(store.index.labels) == {"af", "ef"}
    assert ec.verify(folder).ok
    new = content(folder)
    for name, data in old.items():  # all else is as it was
        if not name.startswith(("CURRENT", "manifest-")):
            assert new[name.replace("index/000002", "index/000003").replace("rejects-000002", "rejects-000003")] == data
    assert not any(b"CANARY" in data for data in new.values())


def test_a_label_of_a_patient_goes_to_all_recordings(folder, tmp_path):
    table = write_csv(tmp_path / "t.csv", ("pid", "Died"), ("CANARYPAT0002", 1), ("CANARYPAT0001", 0))
    report = add_labels(folder, table, "north", id_column="pid", kind="patient", columns={"Died": "death"})
    store = ec.open(folder)
    for number, value in ((2, 1.0), (1, 0.0)):
        rows = find_by_id(store, "north", f"CANARYPAT{number:04d}", "patient").rows
        assert len(rows) == 1 + number
        assert set(store.index["label_death"][np.isin(store.index["row"], rows)]) == {value}
    assert report.recordings_matched == 5
    assert report.rows_matched == 2


def test_a_label_is_replaced_only_on_demand_and_in_one_cohort(folder, tmp_path):
    before = ec.open(folder)
    table = write_csv(tmp_path / "t.csv", ("id", "af"), ("CANARYREC000v0", 5))
    unchanged = content(folder)
    with pytest.raises(StoreError, match=r"cohort 'north' has a label 'af' already.*--replace"):
        add_labels(folder, table, "north", id_column="id", columns=["af"])
    assert content(folder) == unchanged
    add_labels(folder, table, "north", id_column="id", columns=["af"], replace=True)
    store = ec.open(folder)
    north = store.index.where(cohort="north")["label_af"]
    assert north[np.isfinite(north)].tolist() == [5]
    np.testing.assert_array_equal(
        store.index.where(cohort="south")["label_af"], before.index.where(cohort="south")["label_af"]
    )
    assert ec.verify(folder).ok


def test_two_cohorts_fill_one_label(folder, tmp_path):
    north = write_csv(tmp_path / "n.csv", ("id", "ef"), ("CANARYREC000v0", 1))
    south = write_csv(tmp_path / "s.csv", ("id", "ef"), ("CANARYREC000v0", 2))
    add_labels(folder, north, "north", id_column="id", columns=["ef"])
    add_labels(folder, south, "south", id_column="id", columns=["ef"])
    index = ec.open(folder).index
    for cohort, value in (("north", 1), ("south", 2)):
        column = index.where(cohort=cohort)["label_ef"]
        assert column[np.isfinite(column)].tolist() == [value]


def test_labels_stay_when_recordings_are_added(raw, folder, tmp_path):
    table = write_csv(tmp_path / "t.csv", ("id", "ef"), ("CANARYREC000v0", 1))
    add_labels(folder, table, "north", id_column="id", columns=["ef"])
    split = splits.by_patient(ec.open(folder).index, {"train": 0.5, "test": 0.5}, "study")
    save_split(folder, split)
    raw.add("later", np.roll(next(iter(raw.signals.values())), 400, axis=1), **{"Patient ID": "new"})
    ingest(raw.folder, folder, str(raw.spec))
    store = ec.open(folder)
    assert value_of(store, "CANARYREC000v0", "ef") == 1
    assert np.isnan(value_of(store, "later", "ef"))


CANARY = "CANARYCELL"
BAD_TABLES = {
    "text": ([("id", "ef"), ("CANARYREC000v0", CANARY)], r"row 1, ef: the cell is neither empty nor a number"),
    "infinite": ([("id", "ef"), ("CANARYREC000v0", "inf")], "neither empty nor a number"),
    "huge": ([("id", "ef"), ("CANARYREC000v0", "1e300")], "neither empty nor a number"),
    "no column": ([("id", CANARY), ("CANARYREC000v0", 1)], "found 0 columns 'ef'"),
    "column twice": ([("id", "ef", "ef"), ("CANARYREC000v0", 1, 2)], "found 2 columns 'ef'"),
    "no header": ([("CANARYREC000v0", 1)], "found 0 columns 'id'"),
    "nothing": ([], "found 0 columns 'id'"),
    "cells": ([("id", "ef"), ("CANARYREC000v0", 1), (CANARY,)], "found 1 cells in row 2, expected 2"),
    "twice": (
        [("id", "ef"), ("CANARYREC000v0", 1), (" CANARYREC000v0", 1)],
        "one id stands in two rows.*second time in row 2",
    ),
    "no match": ([("id", "ef"), (CANARY, 1)], "found no recording of cohort 'north' in the id column"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_refused_without_its_content(folder, tmp_path, case):
    rows, message = BAD_TABLES[case]
    before = content(folder)
    with pytest.raises(SourceError, match=message) as caught:
        add_labels(folder, write_csv(tmp_path / "t.csv", *rows), "north", id_column="id", columns=["ef"])
    assert "CANARY" not in str(caught.value)
    assert content(folder) == before


@pytest.mark.parametrize("data", [b"id,ef\n\xff\xfeCANARY,1\n", b'id,ef\n"CANARY,1\n', b'id,ef\n"CANARY"x,1\n'])
def test_text_that_is_no_csv_is_refused(folder, tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(SourceError, match="no CSV in UTF-8") as caught:
        add_labels(folder, tmp_path / "t.csv", "north", id_column="id", columns=["ef"])
    assert "CANARY" not in str(caught.value)


def test_other_requests_that_cannot_be_met(folder, tmp_path):
    table = write_csv(tmp_path / "t.csv", ("id", "EF %"), ("CANARYREC000v0", 1))
    with pytest.raises(SpecError, match="found label name 'EF %', expected small letters"):
        add_labels(folder, table, "north", id_column="id", columns=["EF %"])
    for columns in ([], {"a": "x", "b": "x"}):
        with pytest.raises(SpecError, match="Name each label once"):
            add_labels(folder, table, "north", id_column="id", columns=columns)
    with pytest.raises(SpecError, match="columns is one text"):
        add_labels(folder, table, "north", id_column="id", columns="ef")
    columns = {"EF %": "ef"}
    with pytest.raises(SpecError, match="found no cohort 'east'"):
        add_labels(folder, table, "east", id_column="id", columns=columns)
    with pytest.raises(SourceError, match="no readable file"):
        add_labels(folder, tmp_path / "none.csv", "north", id_column="id", columns=columns)
    with pytest.raises(StoreError, match="no such folder"):
        add_labels(tmp_path / "none.zarr", table, "north", id_column="id", columns=columns)
    assert not (tmp_path / "none.zarr").exists()
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    with pytest.raises(KeyMismatch):
        add_labels(folder, table, "north", other, id_column="id", columns=columns)
    with writer_lock(folder), pytest.raises(LockHeld):
        add_labels(folder, table, "north", id_column="id", columns=columns)
    staged = folder / ".staging" / ("0" * 32) / "north-0.shard"
    durable.write_file(staged, b"")
    with pytest.raises(StoreError, match="planned or interrupted"):
        add_labels(folder, table, "north", id_column="id", columns=columns)
    assert staged.exists()
