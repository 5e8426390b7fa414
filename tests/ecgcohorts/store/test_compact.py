"""After `compact` every recording is what it was, patients stand together, and whatever names rows has followed."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.errors import KeyMismatch, LockHeld, SpecError, StoreError
from ecgcohorts.index import splits
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io import durable
from ecgcohorts.store import commit, load_split, open_store, save_split
from ecgcohorts.store.commit import writer_lock
from ecgcohorts.store.signals import shards
from ecgcohorts.store.upkeep.compact import compact
from ecgcohorts.store.upkeep.garbage import collect_garbage
from ecgcohorts.store.upkeep.info import describe
from ecgcohorts.store.upkeep.remove import remove_patient

OPTIONS = IngestOptions(shard_records=3)
SPANNING, GONE = "CANARYPAT0001", "CANARYPAT0002"


@pytest.fixture
def raw(make_cohort):
    """Five patients: the last two come in the second run only, and so do later recordings of one of the others."""
    cohort = make_cohort("north", 5)
    samples = next(iter(cohort.signals.values()))
    for place in range(2):
        person = {"Patient ID": SPANNING, "Date": f"2005-01-0{place + 1}T10:00:00"}
        cohort.add(f"CANARYLATER{place}", np.roll(samples, 400 * (place + 1), axis=1), **person)
    cohort.add("CANARYCOPY", samples, **{"Patient ID": "CANARYPAT0004"})
    cohort.add("CANARYSHORT", samples[:, :500], **{"Patient ID": "CANARYPAT0003"})
    return cohort


def is_later(name: str) -> bool:
    return not name.startswith(("CANARYREC000", "CANARYREC001", "CANARYREC002"))


@pytest.fixture
def folder(raw, make_cohort, tmp_path) -> Path:
    """A store of two runs of north, with south between them; with labels, splits, a copy and a refused recording."""
    folder, south = tmp_path / "a.zarr", make_cohort("south", 3, seed=3)
    first = tmp_path / "first"
    shutil.copytree(raw.folder, first, ignore=lambda _, names: [name for name in names if is_later(name)])
    shutil.move(raw.folder, tmp_path / "all")
    first.rename(raw.folder)
    for cohort in (raw, south):
        ingest(cohort.folder, folder, str(cohort.spec), OPTIONS)
    shutil.rmtree(raw.folder)
    (tmp_path / "all").rename(raw.folder)
    ingest(raw.folder, folder, str(raw.spec), OPTIONS)
    index = ec.open(folder).index
    save_split(folder, splits.by_patient(index, {"train": 0.5, "test": 0.5}, "study"))
    save_split(folder, splits.nested(index, "curve"))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def facts(store: ec.Store) -> dict[str, dict[str, object]]:
    """All that the index tells of each recording, by its id; without the numbers that depend on the place."""
    frame = store.index.to_pandas().drop(columns=["row", "patient"]).set_index("recording_id")
    return frame.astype(object).where(frame.notna(), None).to_dict("index")


def signals(store: ec.Store) -> dict[bytes, bytes]:
    strips = store.read(store.index["row"])
    ids = store.index["recording_id"]
    return {one.tobytes(): strip.tobytes() for one, strip in zip(ids, strips, strict=True)}


def chunks(store: ec.Store) -> dict[bytes, bytes]:
    """Of each recording, the bytes that stand in its shard."""
    found = {}
    for segment in store.segments:
        array = shards.ShardedArray(store.path / segment.folder)
        mine = (store.index["row"] >= segment.first_row) & (store.index["row"] < segment.first_row + segment.rows)
        for row, one in zip(store.index["row"][mine], store.index["recording_id"][mine], strict=True):
            found[one.tobytes()] = array.encoded(int(row) - segment.first_row)
    return found


def test_every_recording_is_what_it_was(folder):
    before = ec.open(folder)
    kept = {name: load_split(before, name) for name in ("study", "curve")}
    expected = facts(before), signals(before), chunks(before), before.accounts(), before.rejects()
    report = compact(folder)
    store = ec.open(folder)
    assert (report.written, report.fingerprint) == (True, store.fingerprint)
    assert (report.cohorts, report.segments, report.recordings) == (("north",), 2, 11)
    assert report.empty_rows == before.n_rows - len(before.index) == 2
    assert (facts(store), signals(store), chunks(store), store.accounts()) == expected[:4]
    assert store.rejects().equals(expected[4])
    for name, split in kept.items():
        assert load_split(store, name).definition == split.definition
        np.testing.assert_array_equal(load_split(store, name).column(store.index), split.column(store.index))
        assert (split.column(before.index) >= 0).all()
    assert describe(store)["cohorts"] == describe(before)["cohorts"]
    assert ec.verify(folder).ok
    assert not any(b"CANARY" in data for data in content(folder).values())


def test_patients_stand_together_and_no_row_is_empty(folder):
    before = ec.open(folder)
    (spanning,) = np.unique(before.index["patient"][np.isnan(before.index["days"])])
    identity = before.index.patient_ids[spanning].tobytes()
    compact(folder)
    store = ec.open(folder)
    assert [segment.cohort for segment in store.segments] == ["north", "south"]
    np.testing.assert_array_equal(store.index["row"], np.arange(store.n_rows))
    for patient in range(store.index.n_patients):
        assert (np.diff(store.index.rows_of(patient)) == 1).all()
    (place,) = np.flatnonzero([one.tobytes() == identity for one in store.index.patient_ids])
    days = store.index["days"][store.index["patient"] == place]
    assert np.isnan(days).tolist() == [False, False, True, True]  # those of the second run come last, as they came
    assert (np.diff(days[:2]) > 0).all()
    again = before.index["recording_id"][np.isin(before.index["row"], before.index.rows_of(spanning))]
    np.testing.assert_array_equal(store.index["recording_id"][store.index["patient"] == place], again)


def test_a_pair_is_one_read_apart(folder, monkeypatch):
    """Records of a patient side by side in one shard come in one read; before, those of two runs took two."""
    calls = []
    genuine = os.preadv
    monkeypatch.setattr(shards.os, "preadv", lambda *arguments: calls.append(1) or genuine(*arguments))

    def reads_of_pairs() -> dict[tuple[int, int], int]:
        store, counts = ec.open(folder), {}
        store.read(store.index["row"])  # now the indexes of all shards are known
        for patient in range(store.index.n_patients):
            for pair in pairwise(store.index.rows_of(patient).tolist()):
                calls.clear()
                store.read(pair)
                counts[pair] = len(calls)
        return counts

    before, first = reads_of_pairs(), ec.open(folder).segments[2].first_row
    assert [count for (one, other), count in before.items() if one < first <= other] == [2]  # the patient of two runs
    compact(folder)
    after, first = reads_of_pairs(), ec.open(folder).segments[1].first_row
    assert len(after) == len(before)
    assert all(other - one == 1 for one, other in after)
    counted = {(place // 3 == (place + 1) // 3, count) for (place, _), count in after.items() if place < first}
    assert (True, 1) in counted
    assert counted <= {(True, 1), (False, 2)}  # shards hold three


def test_the_result_is_that_of_one_ingest_of_everything(folder, raw, tmp_path):
    """Same patients in the same order, same signals; within those who span the runs, only the order may differ."""
    for suffix in (".hea", ".dat"):
        (raw.folder / f"CANARYCOPY{suffix}").unlink()  # which of two copies stays depends on their order
    ingest(raw.folder, tmp_path / "once.zarr", str(raw.spec), OPTIONS)
    compact(folder, "north")
    once, store = ec.open(tmp_path / "once.zarr"), ec.open(folder)
    north = store.index.where(cohort="north")
    strips = signals(store)
    assert {key: strips[key] for key in signals(once)} == signals(once)
    np.testing.assert_array_equal(north.patient_ids, once.index.patient_ids)
    differing = 0
    for patient in range(north.n_patients):
        here, there = (i["recording_id"][i["patient"] == patient] for i in (north, once.index))
        differing += not np.array_equal(here, there)
        assert {one.tobytes() for one in here} == {one.tobytes() for one in there}
    assert differing == 1  # the patient whose later recordings are older
    compact(tmp_path / "once.zarr")  # leaves out the rows of the refused ones
    once = ec.open(tmp_path / "once.zarr")
    here, there = store.accounts()["north"], once.accounts()["north"]
    assert (here.stored, here.rejected) == (there.stored, there.rejected)
    assert (here.inputs - here.duplicates, here.duplicates) == (there.inputs, 1)


def test_compacted_stores_of_patients_who_span_no_runs_are_equal_byte_by_byte(make_cohort, tmp_path):
    """Two runs compacted, and one run: the same shards, index and accounts."""
    north = make_cohort("north", 6)
    later = tmp_path / "later"
    shutil.copytree(north.folder, later, ignore=lambda _, names: [name for name in names if name < "CANARYREC003"])
    ingest(north.folder, tmp_path / "once.zarr", str(north.spec), OPTIONS)
    for path in later.iterdir():
        (north.folder / path.name).unlink()
    ingest(north.folder, tmp_path / "twice.zarr", str(north.spec), OPTIONS)
    for path in later.iterdir():
        shutil.move(path, north.folder / path.name)
    ingest(north.folder, tmp_path / "twice.zarr", str(north.spec), OPTIONS)
    compact(tmp_path / "twice.zarr")
    for name in ("once", "twice"):
        collect_garbage(tmp_path / f"{name}.zarr")
    once, twice = (content(tmp_path / f"{name}.zarr") for name in ("once", "twice"))
    renamed = {name.replace("000003", "000001"): data for name, data in twice.items()}
    assert once.keys() == renamed.keys()
    for name, data in once.items():
        if name not in ("CURRENT", "manifest-000001.json"):  # they hold the number of the generation
            assert renamed[name] == data, name
    one, two = (ec.open(tmp_path / f"{name}.zarr") for name in ("once", "twice"))
    assert one.index.fingerprint == two.index.fingerprint
    assert one.accounts() == two.accounts()


def test_nothing_to_do_writes_nothing(folder, capsys):
    compact(folder)
    before = content(folder)
    report = compact(folder)
    assert (report.written, report.cohorts, report.fingerprint) == (False, (), ec.open(folder).fingerprint)
    assert not compact(folder, "south").written
    cli.main(["compact", str(folder)])
    assert "nothing to do" in capsys.readouterr().out
    assert content(folder) == before


def test_one_cohort_of_several(folder, make_cohort):
    south = make_cohort("south", 5, seed=3)
    ingest(south.folder, folder, str(south.spec), OPTIONS)
    before = ec.open(folder)
    assert [segment.cohort for segment in before.segments] == ["north", "south", "north", "south"]
    expected = signals(before), facts(before)
    untouched = {name: data for name, data in content(folder).items() if name.startswith("signals/north/")}
    assert compact(folder, "south").cohorts == ("south",)
    store = ec.open(folder)
    assert [segment.cohort for segment in store.segments] == ["north", "south", "north"]
    assert {name: data for name, data in content(folder).items() if name.startswith("signals/north/")} == untouched
    assert (signals(store), facts(store)) == expected
    assert ec.verify(folder).ok
    assert compact(folder).cohorts == ("north",)
    assert (signals(ec.open(folder)), facts(ec.open(folder))) == expected
    assert ec.verify(folder).ok


def test_it_goes_on_as_before(folder, raw):
    """A later ingest, a removal and another compaction find what they need."""
    compact(folder)
    assert not ingest(raw.folder, folder, str(raw.spec), OPTIONS).written
    raw.add("CANARYNEW", np.roll(next(iter(raw.signals.values())), 1200, axis=1), **{"Patient ID": SPANNING})
    assert ingest(raw.folder, folder, str(raw.spec), OPTIONS).total.stored == 1
    report = remove_patient(folder, "north", GONE)
    assert report.recordings == 3
    before = ec.open(folder)
    expected = signals(before), facts(before), before.accounts()
    report = compact(folder)
    assert report.empty_rows == 3
    store = ec.open(folder)
    assert (signals(store), facts(store), store.accounts()) == expected
    assert store.manifest.removed == before.manifest.removed
    assert (np.diff(store.index["row"]) == 1).all()
    assert ec.verify(folder).ok
    assert not ingest(raw.folder, folder, str(raw.spec), OPTIONS).written


def test_a_cohort_of_which_nothing_is_stored(make_cohort, tmp_path):
    empty, folder = make_cohort("empty", 0), tmp_path / "e.zarr"
    for number in range(2):
        empty.add(f"short{number}", np.ones((12, 500), np.int16))
        ingest(empty.folder, folder, str(empty.spec))
    report = compact(folder)
    assert (report.segments, report.recordings, report.empty_rows) == (2, 0, 2)
    store = ec.open(folder)
    assert (store.n_rows, store.accounts()["empty"].rejected) == (0, {"too_short": 2})
    assert ec.verify(folder).ok
    north = make_cohort("north", 2)
    ingest(north.folder, folder, str(north.spec))
    assert len(signals(ec.open(folder))) == 3


def test_shards_hold_as_many_records_as_the_largest_did(folder, raw):
    raw.add("CANARYNEW", np.roll(next(iter(raw.signals.values())), 1200, axis=1), **{"Patient ID": SPANNING})
    ingest(raw.folder, folder, str(raw.spec), IngestOptions(shard_records=5))
    compact(folder)
    store = ec.open(folder)
    assert [(segment.shard_records, segment.rows) for segment in store.segments] == [(5, 12), (3, 6)]
    assert len(list((folder / store.segments[0].folder / "c").iterdir())) == 3
    assert ec.verify(folder).ok


def test_a_store_opened_before_reads_on_until_gc_and_then_says_that_it_must_be_opened_again(folder):
    fresh, used, union = ec.open(folder), ec.open(folder), ec.open([folder])
    strips = used.read(used.index["row"])
    compact(folder)
    late = open_store(folder, used.manifest.generation)
    np.testing.assert_array_equal(late.read(late.index["row"]), strips)  # the earlier snapshot is there until gc
    collect_garbage(folder)
    np.testing.assert_array_equal(used.read(used.index["row"]), strips)  # its files are still open
    for store in (fresh, union):
        with pytest.raises(StoreError, match=r"the snapshot you opened has been deleted.*Open the store again"):
            store.read(store.index["row"])
        with pytest.raises(StoreError, match="Open the store again"):
            next(iter(ec.Loader(store, ec.PatientPairSampler(store.index, pairs=1, seed=0))))
    assert ec.verify(folder).ok


def test_a_shard_that_is_gone_is_not_taken_for_a_later_snapshot(folder):
    store = ec.open(folder)
    save_split(folder, splits.nested(store.index, "another"))  # a later snapshot with the same signals
    collect_garbage(folder)
    (folder / store.segments[0].folder / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="no readable shard"):
        store.read(store.index["row"])


class Stop(BaseException):
    """Stands for a kill."""


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let `steps` renames, links and deletions happen; of index columns, written all alike, only one counts."""
    left = [steps]

    def counted(real):
        def call(path, *args, **kwargs):
            if "index/00" in str(path) and "/age/" not in str(path):
                return real(path, *args, **kwargs)
            if not left[0]:
                raise Stop
            left[0] -= 1
            return real(path, *args, **kwargs)

        return call

    patch.setattr(durable.os, "replace", counted(os.replace))
    patch.setattr(durable.os, "link", counted(os.link))
    patch.setattr(commit.Path, "unlink", counted(Path.unlink))


def test_killed_at_any_step_the_store_is_the_old_or_the_new_and_the_same_command_finishes(folder, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "whole.zarr")
    compact(whole)
    expected = content(whole)
    fingerprints = [ec.open(folder).fingerprint, ec.open(whole).fingerprint]
    strips = signals(ec.open(folder))
    met = []
    for steps in range(0, 300, 3):  # a sample of the steps
        copy = shutil.copytree(folder, tmp_path / f"{steps}.zarr")
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, steps)
            try:
                compact(copy)
            except Stop:
                met.append(fingerprints.index(ec.open(copy).fingerprint))
            else:
                break
        assert signals(ec.open(copy)) == strips
        compact(copy)
        assert content(copy) == expected, f"stopped after {steps} steps"
        shutil.rmtree(copy)
    assert set(met) == {0}  # replacing CURRENT is the last step, and the earlier snapshot stays
    assert 5 < len(met) < 100


@pytest.mark.parametrize("place", [100, -1, "index"])
def test_damage_does_not_pass_for_the_original(folder, place, monkeypatch):
    path = folder / "signals" / "north" / "000001" / "c" / "0" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[-20 if place == "index" else place] ^= 1
    path.write_bytes(data)
    before = content(folder)
    with pytest.raises(StoreError, match=r"does not match its SHA-256\. Restore"):
        compact(folder)
    assert ec.open(folder).fingerprint
    monkeypatch.setattr("ecgcohorts.store.schema.FileEntry.refuse_damaged", lambda *_: None)
    with pytest.raises(StoreError, match="checksum"):  # of the record, or of the index of the shard
        compact(folder)
    assert {name: data for name, data in content(folder).items() if name in before} == before


def test_requests_that_cannot_be_met(folder, tmp_path):
    before = content(folder)
    with pytest.raises(SpecError, match="found no cohort 'east'"):
        compact(folder, "east")
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    with pytest.raises(KeyMismatch):
        compact(folder, key_file=other)
    with writer_lock(folder), pytest.raises(LockHeld):
        compact(folder)
    with pytest.raises(StoreError, match="no such folder"):
        compact(tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()
    assert content(folder) == before
    durable.write_file(folder / ".staging" / ("0" * 32) / "north-0.shard", b"")
    with pytest.raises(StoreError, match="planned or interrupted"):
        compact(folder)
    assert (folder / ".staging" / ("0" * 32) / "north-0.shard").exists()


def test_another_encoding_is_not_copied_under_a_wrong_name(folder, monkeypatch):
    before = ec.open(folder).fingerprint
    monkeypatch.setattr("ecgcohorts.store.upkeep.compact.signals_metadata", lambda *_: b"{}")
    with pytest.raises(StoreError, match=r"zarr\.json: this version encodes signals differently"):
        compact(folder)
    assert ec.open(folder).fingerprint == before


def test_the_command_tells_what_it_did(folder, capsys):
    cli.main(["compact", str(folder), "--cohort", "north"])
    told = capsys.readouterr().out
    assert told.startswith("north: 11 recordings of 2 segments in 1, 2 empty rows left out; fingerprint ")
    assert ec.open(folder).fingerprint[:16] in told
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compact", str(folder), "--cohort", "mars"])
    assert stopped.value.code == 2
    assert "found no cohort 'mars', expected one of north, south" in capsys.readouterr().err
