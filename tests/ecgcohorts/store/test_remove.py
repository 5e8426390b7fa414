"""A patient who withdraws consent is gone from every file, and does not come back with the next ingest."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import KeyMismatch, LockHeld, SpecError, StoreError
from ecgcohorts.index import splits
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io import durable
from ecgcohorts.recording import MISSING
from ecgcohorts.samplers import RandomBatchSampler
from ecgcohorts.store import load_split, open_store, save_split
from ecgcohorts.store.commit import writer_lock
from ecgcohorts.store.signals.chunks import encode_chunk
from ecgcohorts.store.upkeep.compact import compact
from ecgcohorts.store.upkeep.garbage import collect_garbage
from ecgcohorts.store.upkeep.info import describe
from ecgcohorts.store.upkeep.labels import add_labels
from ecgcohorts.store.upkeep.lookup import find_by_id
from ecgcohorts.store.upkeep.remove import remove_patient

OPTIONS = IngestOptions(shard_records=3)
GONE = "CANARYPAT0002"  # three recordings, and a fourth from a later run


@pytest.fixture
def raw(make_cohort):
    cohort = make_cohort("north", 6)
    cohort.spec.write_text(cohort.spec.read_text() + "    device: {header: Device}\n    site: {header: Site}\n")
    return cohort


@pytest.fixture
def folder(raw, make_cohort, tmp_path) -> Path:
    """Two cohorts; the patient has recordings in two segments and is in two splits."""
    folder = tmp_path / "s.zarr"
    south = make_cohort("south", 2, seed=1)
    ingest(raw.folder, folder, str(raw.spec), OPTIONS)
    ingest(south.folder, folder, str(south.spec), OPTIONS)
    samples = next(iter(raw.signals.values()))
    later = {"Device": "Rare device", "Site": "Far away", "Patient ID": GONE}
    raw.add("CANARYLATER", np.roll(samples, 400, axis=1), **later)
    raw.add("CANARYLATER2", np.roll(samples, 800, axis=1), Device="Common", **{"Patient ID": "CANARYPAT0003"})
    ingest(raw.folder, folder, str(raw.spec), OPTIONS)
    index = ec.open(folder).index
    save_split(folder, splits.by_patient(index, {"train": 0.5, "test": 0.5}, "study"))
    save_split(folder, splits.nested(index, "curve"))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_nothing_of_the_patient_stays_and_all_else_does(folder):
    before = ec.open(folder)
    rows = list(find_by_id(before, "north", GONE, "patient").rows)
    assert len(rows) == 4
    chunks = [encode_chunk(strip) for strip in before.read(rows)]
    assert all(any(chunk in data for data in content(folder).values()) for chunk in chunks)
    kept = before.index["row"][~np.isin(before.index["row"], rows)]
    strips = before.read(kept)
    old_splits = {name: load_split(before, name) for name in ("study", "curve")}

    report = remove_patient(folder, "north", GONE)
    assert (report.recordings, report.splits, report.written) == (4, 2, True)
    store = ec.open(folder)
    assert report.fingerprint == store.fingerprint
    assert not any(chunk in data for data in content(folder).values() for chunk in chunks)
    assert (store.read(rows) == MISSING).all()
    np.testing.assert_array_equal(store.index["row"], kept)
    np.testing.assert_array_equal(store.read(kept), strips)
    assert store.index.n_patients == before.index.n_patients - 1
    for name, split in old_splits.items():
        now = load_split(store, name)
        assert now.definition == split.definition
        np.testing.assert_array_equal(now.column(store.index), split.column(store.index))
        assert len(now.codes) == len(split.codes) - 4
    assert "Rare device" not in store.index.devices
    assert store.index.devices == ("Common",)
    assert store.index.sites == ()
    for name in ("age", "sex", "days", "label_af", "waveform_digest", "patient_id"):
        mask = np.isin(before.index["row"], kept)
        np.testing.assert_array_equal(store.index[name], before.index[name][mask])
    assert ec.verify(folder).ok
    refused = store.rejects()
    assert (refused["reason"] == "removed").sum() == 4
    assert store.manifest.removed == (report.patient,)
    assert describe(ec.open(folder))["rejects"]["removed"] == 4
    assert not any(b"CANARY" in data or b"Rare device" in data for data in content(folder).values())


def test_codes_of_devices_still_mean_the_same(folder):
    before = ec.open(folder).index.to_pandas().set_index("row")["device"]
    remove_patient(folder, "north", GONE)
    after = ec.open(folder).index.to_pandas().set_index("row")["device"]
    assert "Common" in set(after)
    assert after.fillna("").to_dict() == before[after.index].fillna("").to_dict()


def test_shards_without_the_patient_are_not_rewritten(folder):
    before = {path.stat().st_ino for path in (folder / "signals").rglob("0") if path.is_file()}
    report = remove_patient(folder, "north", GONE)
    after = {path.stat().st_ino for path in (folder / "signals").rglob("0") if path.is_file()}
    assert 2 <= report.shards < len(before)
    assert len(before - after) == len(after - before) == report.shards


def test_the_next_ingest_does_not_bring_the_patient_back(raw, folder):
    remove_patient(folder, "north", GONE)
    again = ingest(raw.folder, folder, str(raw.spec), OPTIONS)
    assert not again.written
    assert again.known == len(raw.signals)
    raw.add("CANARYNEW", np.roll(next(iter(raw.signals.values())), 1200, axis=1), **{"Patient ID": "CANARYPAT0003"})
    more = ingest(raw.folder, folder, str(raw.spec), OPTIONS)
    assert more.total.stored == 1
    found = find_by_id(ec.open(folder), "north", "CANARYREC002v0")
    assert (found.rows, found.reason) == ((), "removed")
    assert len(find_by_id(ec.open(folder), "north", "CANARYPAT0003", "patient").rows) == 3
    assert ec.verify(folder).ok


@pytest.mark.parametrize("on_error", ["quarantine", "raise"])
def test_new_recordings_of_the_patient_are_refused_ever_after(raw, folder, on_error):
    """Also after another ingest, which must not forget whom to leave out."""
    options = IngestOptions(shard_records=3, on_error=on_error)
    report = remove_patient(folder, "north", GONE)
    samples = next(iter(raw.signals.values()))
    for place, patient in enumerate(("CANARYPAT0003", GONE, GONE)):
        raw.add(f"CANARYNEW{place}", np.roll(samples, 1200 + place, axis=1), **{"Patient ID": patient})
        more = ingest(raw.folder, folder, str(raw.spec), options)
        assert more.total.stored == (place == 0)
        assert more.total.rejected == ({} if place == 0 else {"removed": 1})
    store = ec.open(folder)
    assert store.manifest.removed == (report.patient,)
    assert not find_by_id(store, "north", GONE, "patient").rows
    assert ec.verify(folder).ok


def test_removing_again_changes_nothing(folder):
    first = remove_patient(folder, "north", GONE)
    before = content(folder)
    again = remove_patient(folder, "north", GONE)
    assert (again.written, again.recordings, again.patient) == (False, 0, first.patient)
    assert content(folder) == before
    found = find_by_id(ec.open(folder), "north", GONE, "patient")
    assert (found.rows, found.reason) == ((), "removed")


def test_a_recording_without_patient_is_removed_by_its_own_id(make_cohort, raw, tmp_path):
    alone, folder = make_cohort("alone", 0), tmp_path / "a.zarr"
    for place, samples in enumerate(list(raw.signals.values())[:2]):
        alone.add(f"CANARYALONE{place}", samples, **{"Patient ID": "0000"})
    ingest(alone.folder, folder, str(alone.spec))
    for text in ("0000", "CANARYALONE7"):
        with pytest.raises(SpecError, match="found no patient of this id in cohort 'alone'") as caught:
            remove_patient(folder, "alone", text)
        assert text not in str(caught.value)
    assert remove_patient(folder, "alone", "CANARYALONE0").recordings == 1
    assert not remove_patient(folder, "alone", "CANARYALONE0").written
    assert len(ec.open(folder).index) == 1
    assert not ingest(alone.folder, folder, str(alone.spec)).written
    remove_patient(folder, "alone", "CANARYALONE1")  # the last one
    assert len(ec.open(folder).index) == 0
    assert ec.verify(folder).ok
    assert describe(ec.open(folder))["recordings"] == 0


def test_a_recording_of_a_known_patient_is_no_patient(folder):
    with pytest.raises(SpecError, match="found no patient of this id"):
        remove_patient(folder, "north", "CANARYREC002v0")


def test_copies_under_other_ids_are_counted(raw, tmp_path):
    copied = next(name for name in raw.signals if name.startswith("CANARYREC000"))
    raw.add("CANARYREC900", raw.signals[copied], **{"Patient ID": "CANARYPAT0900"})
    ingest(raw.folder, tmp_path / "c.zarr", str(raw.spec), OPTIONS)
    patients = ("CANARYPAT0000", "CANARYPAT0900")
    [stored] = [one for one in patients if find_by_id(ec.open(tmp_path / "c.zarr"), "north", one, "patient").rows]
    assert remove_patient(tmp_path / "c.zarr", "north", stored).copies == 1
    assert not ingest(raw.folder, tmp_path / "c.zarr", str(raw.spec), OPTIONS).written


def test_damage_does_not_pass_for_the_original(folder):
    row = find_by_id(ec.open(folder), "north", GONE, "patient").rows[0]
    path = folder / "signals" / "north" / "000001" / "c" / str(row // 3) / "0" / "0"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    before = ec.open(folder).fingerprint
    with pytest.raises(StoreError, match=r"does not match its SHA-256\. Restore"):
        remove_patient(folder, "north", GONE)
    assert ec.open(folder).fingerprint == before


def test_requests_that_cannot_be_met(folder, tmp_path):
    before = content(folder)
    with pytest.raises(SpecError, match="found no cohort 'east'"):
        remove_patient(folder, "east", GONE)
    with pytest.raises(SpecError, match="found no patient of this id in cohort 'south'") as caught:
        remove_patient(folder, "south", GONE)
    assert "CANARY" not in str(caught.value)
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    with pytest.raises(KeyMismatch):
        remove_patient(folder, "north", GONE, other)
    with writer_lock(folder), pytest.raises(LockHeld):
        remove_patient(folder, "north", GONE)
    with pytest.raises(StoreError, match="no such folder"):
        remove_patient(tmp_path / "none.zarr", "north", GONE)
    assert not (tmp_path / "none.zarr").exists()
    assert content(folder) == before
    durable.write_file(folder / ".staging" / ("0" * 32) / "north-0.shard", b"")
    with pytest.raises(StoreError, match="planned or interrupted"):
        remove_patient(folder, "north", GONE)


# A store that was open before


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize("then", ["nothing", "gc", "label", "compact"])
def test_an_open_store_reads_nothing_more_of_anybody(folder, read_before, then, tmp_path):
    """Shards held open stay readable when their names are deleted, and the index in memory lists the patient still."""
    before = ec.open(folder)
    rows = before.index["row"]
    if read_before:
        before.read(rows)
    remove_patient(folder, "north", GONE)
    if then == "gc":
        collect_garbage(folder)
    elif then == "compact":
        compact(folder)
    elif then == "label":
        (tmp_path / "x.csv").write_text("id,x\nCANARYPAT0001,1\n")
        add_labels(folder, tmp_path / "x.csv", "north", id_column="id", kind="patient", columns=["x"])
    south = rows[before.index["cohort"] == before.index.cohort_code("south")]
    for some in (rows, rows[:1], south):
        with pytest.raises(StoreError, match="a patient was removed from the store since you opened it"):
            before.read(some)
    assert not before.place._open
    again = ec.open(folder)
    assert again.read(again.index["row"]).any()


def test_an_open_store_that_was_sent_to_another_process_notices_too(folder):
    before = ec.open(folder)
    before.read([0])
    sent = pickle.dumps(before)
    remove_patient(folder, "north", GONE)
    with pytest.raises(StoreError, match="a patient was removed"):
        pickle.loads(sent).read([0])


def test_several_stores_opened_as_one_notice_too(folder, make_cohort, tmp_path):
    west = make_cohort("west", 3, seed=7)
    ingest(west.folder, tmp_path / "w.zarr", str(west.spec), OPTIONS)
    both = ec.open([tmp_path / "w.zarr", folder])
    both.read(both.index["row"])
    remove_patient(folder, "north", GONE)
    with pytest.raises(StoreError, match=r"s\.zarr: a patient was removed"):
        both.read([0])


def test_other_changes_do_not_stop_a_reader(folder, make_cohort):
    before = ec.open(folder)
    strips = before.read(before.index["row"])
    west = make_cohort("west", 2, seed=5)
    ingest(west.folder, folder, str(west.spec), OPTIONS)
    compact(folder)
    np.testing.assert_array_equal(before.read(before.index["row"]), strips)


def test_an_earlier_snapshot_opened_before_stops_as_well(folder):
    first = open_store(folder, generation=1)
    first.read([0])
    remove_patient(folder, "north", GONE)
    with pytest.raises(StoreError, match="a patient was removed"):
        first.read([0])


def test_a_store_that_was_deleted_is_read_no_more(folder):
    before = ec.open(folder)
    before.read(before.index["row"])
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match="is not there any more"):
        before.read([0])


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_loader_ends_with_the_reason(folder, prefetch):
    store = ec.open(folder)
    loader = ec.Loader(store, RandomBatchSampler(store.index, 2, seed=0), prefetch=prefetch)
    assert len(loader) > 1 + prefetch
    batches = iter(loader)
    next(batches)
    place = loader.sampler.position
    remove_patient(folder, "north", GONE)
    for _ in range(2):  # at once, whatever was read ahead; and so an iteration begun afterwards
        with pytest.raises(StoreError, match="a patient was removed from the store since you opened it"):
            next(batches)
        assert loader.sampler.position == place
        batches = iter(loader)
    with pytest.raises(StoreError, match="a patient was removed from the store since you opened it"):
        next(batches)
