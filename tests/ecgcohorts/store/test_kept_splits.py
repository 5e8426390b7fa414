"""Splits kept in a store: as safe as the signals, and in nobody's way."""

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

import ecgcohorts as ec
from ecgcohorts.errors import LockHeld, SpecError, StoreError
from ecgcohorts.index import splits
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.store import load_split, save_split, split_names
from ecgcohorts.store.commit import writer_lock


@pytest.fixture
def folder(make_cohort, tmp_path) -> Path:
    """A store of two cohorts."""
    for seed, (name, patients) in enumerate((("north", 6), ("south", 4))):
        cohort = make_cohort(name, patients, seed)
        ingest(cohort.folder, tmp_path / "s.zarr", str(cohort.spec), IngestOptions(shard_records=4))
    return tmp_path / "s.zarr"


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_split_is_kept_by_name(folder):
    before, store = content(folder), ec.open(folder)
    split = splits.by_patient(store.index, {"train": 0.5, "test": 0.5}, "study")
    other = splits.leave_cohort_out(store.index, "south", "lodo-south")
    assert save_split(folder, split) == ec.open(folder).fingerprint != store.fingerprint
    save_split(folder, other)
    again = ec.open(folder)
    assert set(split_names(again)) == {"study", "lodo-south"}
    for one in (split, other):
        back = load_split(again, one.name)
        assert back.definition == one.definition
        np.testing.assert_array_equal(back.column(again.index), one.column(store.index))
    assert ec.verify(folder).ok
    after = content(folder)
    assert after == content(folder)
    for name, data in before.items():  # every file is still there, those of a generation under a new number
        new = name.replace("index/000002", "index/000004").replace("rejects-000002", "rejects-000004")
        if not name.startswith(("manifest-", "CURRENT")):
            assert after[new] == data, name
    assert again.index.fingerprint == store.index.fingerprint
    np.testing.assert_array_equal(store.read(store.index["row"]), again.read(again.index["row"]))
    with pytest.raises(SpecError, match="no split 'other', expected one of: lodo-south, study"):
        load_split(again, "other")


def test_saving_again_changes_nothing_and_another_only_on_demand(folder):
    index = ec.open(folder).index
    split = splits.by_patient(index, {"train": 0.5, "test": 0.5}, "study")
    fingerprint = save_split(folder, split)
    before = content(folder)
    assert save_split(folder, splits.by_patient(index, {"train": 0.5, "test": 0.5}, "study")) == fingerprint
    assert content(folder) == before
    another = splits.by_patient(index, {"train": 0.2, "test": 0.8}, "study")
    with pytest.raises(StoreError, match=r"another split is called 'study'.*replace=True"):
        save_split(folder, another)
    assert content(folder) == before
    assert save_split(folder, another, replace=True) != fingerprint
    assert load_split(ec.open(folder), "study").definition == another.definition
    assert ec.verify(folder).ok


def test_recordings_that_come_later_are_in_no_part(folder, make_cohort):
    index = ec.open(folder).index
    split = splits.by_patient(index, {"train": 0.5, "test": 0.5}, "study")
    save_split(folder, split)
    north = make_cohort("north", 9)
    ingest(north.folder, folder, str(north.spec))
    store = ec.open(folder)
    assert len(store.index) > len(index)
    assert ec.verify(folder).ok
    back = load_split(store, "study")
    is_old = np.isin(store.index["row"], index["row"])
    code = back.column(store.index)
    np.testing.assert_array_equal(code[is_old], split.column(store.index)[is_old])
    assert (code[~is_old] == splits.UNASSIGNED).all()
    assert (~is_old).any()
    anew = splits.make_split(store.index, "study", back.definition.rule)
    np.testing.assert_array_equal(anew.column(store.index)[is_old], code[is_old])
    assert (anew.column(store.index) >= 0).all()
    save_split(folder, anew, replace=True)
    assert (load_split(ec.open(folder), "study").column(store.index) >= 0).all()


def test_anyone_reads_it_with_plain_zarr(folder):
    store = ec.open(folder)
    split = splits.by_patient(store.index, {"train": 0.5, "test": 0.5}, "study")
    save_split(folder, split)
    group = zarr.open_group(folder, mode="r")["splits"]["study"]["000003"]
    assert group.attrs["split"]["rule"]["fractions"] == {"train": 0.5, "test": 0.5}
    np.testing.assert_array_equal(group["part"][:][store.index["row"]], split.column(store.index))


def test_damage_is_noticed(folder):
    save_split(folder, splits.nested(ec.open(folder).index, "curve"))
    files = [name for name in content(folder) if name.startswith("splits/")]
    assert len(files) == 7
    for name in files:
        good = (folder / name).read_bytes()
        for place in (0, len(good) // 2, len(good) - 1):
            bad = bytearray(good)
            bad[place] ^= 1
            (folder / name).write_bytes(bad)
            assert any(name in problem for problem in ec.verify(folder).problems)
        (folder / name).unlink()
        with pytest.raises(StoreError, match="found no file"):
            ec.open(folder)
        (folder / name).write_bytes(good)
    assert ec.verify(folder).ok


def test_a_split_for_other_rows_is_refused(folder):
    store = ec.open(folder)
    save_split(folder, splits.nested(store.index, "curve"))
    store = ec.open(folder)
    store.index["recording_id"][3, 0] ^= 1
    with pytest.raises(StoreError, match=r"made for other rows\. Make it again"):
        load_split(store, "curve")


def test_a_split_of_several_stores_is_kept_in_each(folder, make_cohort, tmp_path):
    west = make_cohort("west", 6, seed=4)
    ingest(west.folder, tmp_path / "w.zarr", str(west.spec))
    both = ec.open([folder, tmp_path / "w.zarr"])
    split = splits.by_patient(both.index, {"train": 0.5, "test": 0.5}, "study")
    with pytest.raises(StoreError, match=r"are not in this store. Save.*split\.on"):
        save_split(folder, split)
    parts = []
    for path in (folder, tmp_path / "w.zarr"):
        save_split(path, split.on(ec.open(path).index))
        parts.append(load_split(ec.open(path), "study").column(both.index))
    np.testing.assert_array_equal(np.maximum(*parts), split.column(both.index))
    sampler = ec.PatientPairSampler(split.of(both.index)["train"], pairs=1, seed=0, singles="self")
    assert sum(1 for _ in ec.Loader(both, sampler)) == len(sampler)


def test_nothing_is_saved_into_a_store_at_work(folder, tmp_path):
    split = splits.nested(ec.open(folder).index, "curve")
    before = content(folder)
    with writer_lock(folder), pytest.raises(LockHeld):
        save_split(folder, split)
    staged = folder / ".staging" / ("0" * 32) / "north-0.npz"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"shard results of an ingest that was killed")
    with pytest.raises(StoreError, match=r"interrupted here. Finish it by running it again.*\.staging"):
        save_split(folder, split)
    staged.unlink()
    staged.parent.rmdir()
    staged.parent.parent.rmdir()
    assert content(folder) == before
    with pytest.raises(StoreError, match="no such folder"):
        save_split(tmp_path / "nothing", split)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("call", ["link", "replace", "mkdir"])
def test_a_save_that_is_stopped_leaves_the_store_as_it_was(folder, monkeypatch, call):
    """Stopped before each of its steps; saved again, it is as if it had never been stopped."""
    store = ec.open(folder)
    split = splits.by_patient(store.index, {"train": 0.5, "test": 0.5}, "study")
    owner, genuine = (Path, Path.mkdir) if call == "mkdir" else (os, getattr(os, call))
    stops = 0
    while True:
        left = stops

        def maybe(*args, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return genuine(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, call, maybe)
            try:
                save_split(folder, split)
                break
            except KeyboardInterrupt:
                stops += 7  # a sample of the steps: there are over a hundred
        assert ec.open(folder).fingerprint == store.fingerprint or "study" in split_names(ec.open(folder))
    assert stops
    assert ec.verify(folder).ok
    np.testing.assert_array_equal(load_split(ec.open(folder), "study").column(store.index), split.column(store.index))


def test_without_links_files_are_copied(folder, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    save_split(folder, splits.nested(ec.open(folder).index, "curve"))
    assert ec.verify(folder).ok
