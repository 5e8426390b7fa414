"""An original id finds its rows for whoever has the key, and is never repeated."""

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import KeyMismatch, SpecError
from ecgcohorts.ingest import ingest
from ecgcohorts.store.upkeep.lookup import find_by_id


@pytest.fixture
def raw(make_cohort):
    return make_cohort("north", 5)


@pytest.fixture
def store(raw, tmp_path):
    raw.add("CANARYSHORT", next(iter(raw.signals.values()))[:, :100], **{"Patient ID": "CANARYPAT0007"})
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    return ec.open(tmp_path / "s.zarr")


def test_every_recording_is_found_by_its_id(raw, store):
    rows = {}
    digests = dict(zip(store.index["row"].tolist(), store.index["waveform_digest"], strict=True))
    for name in raw.signals:
        if name == "CANARYSHORT":
            continue
        found = find_by_id(store, "north", name)
        [row] = found.rows
        [recording] = ec.read(raw.folder / f"{name}.hea")
        assert digests[row].tobytes() == recording.waveform_digest  # it is that very recording
        assert found.recording_ids == (found.pseudonym,)
        assert "CANARY" not in f"{found} {found!r}"
        assert f"row {row}" in str(found)
        rows[name] = row
    assert len(set(rows.values())) == len(store.index)


@pytest.mark.parametrize(
    "spelling", ["CANARYREC001v0.hea", "some/folder/CANARYREC001v0", "some/folder/CANARYREC001v0.hea"]
)
def test_a_recording_is_found_by_its_path(store, spelling):
    assert find_by_id(store, "north", spelling).rows == find_by_id(store, "north", "CANARYREC001v0").rows != ()


def test_a_patient_is_found_with_all_recordings(raw, store):
    for number in range(5):
        found = find_by_id(store, "north", f" CANARYPAT{number:04d}", "patient")
        names = [name for name in raw.signals if name.startswith(f"CANARYREC{number:03d}")]
        assert sorted(found.rows) == sorted(find_by_id(store, "north", name).rows[0] for name in names)
        assert set(found.patient_ids) == {found.pseudonym}
        np.testing.assert_array_equal(found.rows, store.index.rows_of(store.index["patient"][list_of(store, found)[0]]))


def list_of(store, found) -> list[int]:
    return np.flatnonzero(np.isin(store.index["row"], found.rows)).tolist()


def test_what_is_not_there_is_said(store):
    found = find_by_id(store, "north", "CANARYREC999")
    assert found.rows == ()
    assert str(found).startswith("found no recording of this id in cohort 'north'. Give the id")
    assert find_by_id(store, "north", "CANARYREC000v1", "patient").rows == ()  # a recording is no patient
    refused = find_by_id(store, "north", "CANARYSHORT")
    assert refused.reason == "too_short"
    assert str(refused) == f"recording {refused.pseudonym} of cohort 'north': not stored (too_short)"


def test_without_the_key_nothing_is_found(store, tmp_path):
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    with pytest.raises(
        KeyMismatch, match=r"another pseudonym key. Pass the one it was made with: --key FILE"
    ) as caught:
        find_by_id(store, "north", "CANARYREC000v0", key_file=other)
    assert "CANARY" not in str(caught.value)
    with pytest.raises(SpecError, match="found no cohort 'south', expected one of north"):
        find_by_id(store, "south", "CANARYREC000v0")


def test_ids_are_found_as_a_table_prints_them(make_cohort, tmp_path, raw):
    south = make_cohort("south", 0)
    south.spec.write_text(south.spec.read_text() + "    recording: {header: Study}\n")
    south.add("r", next(iter(raw.signals.values())), **{"Patient ID": "0815"}, Study="4711")
    ingest(south.folder, tmp_path / "s.zarr", str(south.spec))
    store = ec.open(tmp_path / "s.zarr")
    assert len(find_by_id(store, "south", "4711.0").rows) == 1
    assert len(find_by_id(store, "south", "0815.0", "patient").rows) == 1
    assert not find_by_id(store, "south", "815", "patient").rows  # leading zeros are part of an id
