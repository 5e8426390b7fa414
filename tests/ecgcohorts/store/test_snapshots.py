"""Snapshots before the one in force: readable, verified, and gone on command only."""

from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.errors import LockHeld, StoreError
from ecgcohorts.index.splits import by_patient
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.store import open_store, save_split
from ecgcohorts.store.commit import writer_lock
from ecgcohorts.store.upkeep.garbage import collect_garbage
from ecgcohorts.store.upkeep.remove import remove_patient


@pytest.fixture
def folder(make_cohort, tmp_path) -> Path:
    """Three generations: north; north and south; a split."""
    store = tmp_path / "s.zarr"
    for seed, name in enumerate(("north", "south")):
        raw = make_cohort(name, 3, seed=seed)
        ingest(raw.folder, store, str(raw.spec), IngestOptions(shard_records=4))
    save_split(store, by_patient(ec.open(store).index, {"train": 0.5, "test": 0.5}, "halves"))
    return store


def test_every_snapshot_stays_readable(folder):
    now, first = ec.open(folder), open_store(folder, generation=1)
    assert (first.manifest.generation, now.manifest.generation) == (1, 3)
    assert first.index.cohorts == ("north",)
    north = now.index.where(cohort="north")
    np.testing.assert_array_equal(first.read(first.index["row"]), now.read(north["row"]))
    assert first.fingerprint == now.manifest.earlier[-1].sha256
    assert open_store(folder, generation=3).fingerprint == now.fingerprint


def test_a_generation_that_is_not_there_names_those_that_are(folder):
    with pytest.raises(StoreError, match="found no generation 7, expected one of 3, 2, 1"):
        open_store(folder, generation=7)


def test_garbage_is_collected_on_command_only(folder, capsys):
    before = {path: path.read_bytes() for path in (folder / "signals").rglob("*") if path.is_file()}
    main(["info", str(folder)])
    assert "until `ecgcohorts gc`: 2, 1" in capsys.readouterr().out
    main(["gc", str(folder)])
    assert not list((folder / "index").glob("00000[12]"))
    assert {path: path.read_bytes() for path in before} == before
    assert ec.verify(folder).ok
    with pytest.raises(StoreError, match="expected one of 3"):
        open_store(folder, generation=1)
    assert collect_garbage(folder) == (0, 0)


def test_the_next_snapshot_names_no_earlier_one_that_is_gone(folder, make_cohort):
    collect_garbage(folder)
    raw = make_cohort("west", 2, seed=7)
    ingest(raw.folder, folder, str(raw.spec))
    assert [one.generation for one in ec.open(folder).manifest.earlier] == [3]


@pytest.mark.parametrize("name", ["manifest-000001.json", "index/000001/age/c/0", "rejects-000001.parquet"])
@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_damage_in_an_earlier_snapshot_is_found(folder, name, damage):
    path = folder / name
    if damage == "flip":
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    else:
        path.unlink()
    assert not noticed_nothing(folder, is_manifest=name.startswith("manifest") and damage == "missing")


def noticed_nothing(folder: Path, is_manifest: bool) -> bool:
    """A manifest that is gone is a snapshot that `gc` took: its files are strangers then."""
    try:
        problems = ec.verify(folder).problems
    except StoreError:
        return False
    return not any("not in the manifest" in one if is_manifest else "SHA-256" in one for one in problems)


def test_a_removed_patient_is_in_no_snapshot(folder):
    remove_patient(folder, "north", "CANARYPAT0001")
    assert ec.open(folder).manifest.earlier == ()
    assert {path.name for path in folder.glob("manifest-*")} == {"manifest-000004.json"}
    assert ec.verify(folder).ok


def test_gc_waits_for_no_writer(folder):
    with writer_lock(folder), pytest.raises(LockHeld):
        collect_garbage(folder)


def test_gc_refuses_what_is_no_store(tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        collect_garbage(tmp_path / "none")
    assert not (tmp_path / "none").exists()
