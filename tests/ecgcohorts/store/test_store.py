"""The store: readable by anyone with plain zarr, and unable to pass damage off as data."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

import ecgcohorts as ec
from ecgcohorts.errors import StoreError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.recording import MISSING
from ecgcohorts.store.schema import Manifest
from ecgcohorts.store.upgrade import FORMAT_VERSION, upgraded


def beats(seed: int) -> np.ndarray:
    """(12, 10 s at 500 Hz) of plausible size."""
    coarse = np.random.default_rng(seed).integers(-900, 900, (12, 20))
    return np.repeat(coarse, 250, axis=1).astype(np.int16)


@pytest.fixture
def folder(make_cohort, tmp_path) -> Path:
    """A store of two cohorts, the second in two segments."""
    store = tmp_path / "s.zarr"
    north, south = make_cohort("north", 4), make_cohort("south", 3, seed=1)
    options = IngestOptions(shard_records=3)
    ingest(north.folder, store, str(north.spec), options)
    ingest(south.folder, store, str(south.spec), options)
    south.add("later", np.roll(next(iter(south.signals.values())), 400, axis=1))
    ingest(south.folder, store, str(south.spec), options)
    return store


def test_anyone_reads_it_with_plain_zarr(folder):
    root = zarr.open_group(folder, mode="r")
    manifest = json.loads((folder / json.loads((folder / "CURRENT").read_text())["manifest"]).read_text())
    index = root["index"][f"{manifest['generation']:06d}"]
    rows, cohorts = index["row"][:], np.array(manifest["cohorts"])[index["cohort"][:]]
    signals = [root[f"signals/{one['cohort']}/{one['name']}"] for one in manifest["segments"]]
    strips = np.concatenate([array[:] for array in signals])[rows]
    store = ec.open(folder)
    np.testing.assert_array_equal(strips, store.read(rows))
    assert cohorts.tolist() == store.index.to_pandas()["cohort"].tolist()
    attributes = dict(signals[0].attrs)
    assert attributes["scale_factor"] == 0.001
    assert attributes["leads"] == ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]


def test_rows_come_in_the_order_asked_for(folder):
    store = ec.open(folder)
    rows = np.random.default_rng(0).permutation(np.repeat(store.index["row"], 2))
    together = store.read(rows)
    for row, strip in zip(rows, together, strict=True):
        np.testing.assert_array_equal(strip, store.read([row])[0])


def test_millivolts_are_steps_times_the_step_size(folder):
    store = ec.open(folder)
    row = store.index["row"][0]
    stop = store.index["valid_stop"][0]
    signal_mv, strip = store.read_mv([row])[0], store.read([row])[0]
    np.testing.assert_allclose(signal_mv[:, :stop], strip[:, :stop] * 0.001, rtol=1e-6)
    assert np.isnan(signal_mv[strip == MISSING]).all()


def test_a_row_outside_is_refused(folder):
    store = ec.open(folder)
    with pytest.raises(StoreError, match=f"expected 0 to {store.n_rows - 1}"):
        store.read([store.n_rows])


def test_an_open_store_keeps_showing_its_snapshot(folder, make_cohort):
    store = ec.open(folder)
    rows, strips = store.index["row"].copy(), store.read(store.index["row"])
    west = make_cohort("west", 2, seed=5)
    ingest(west.folder, folder, str(west.spec))
    np.testing.assert_array_equal(store.read(rows), strips)
    assert "west" not in store.index.cohorts
    assert "west" in ec.open(folder).index.cohorts


def test_swapped_shards_of_one_size_open_and_are_named_by_verify(make_cohort, tmp_path):
    """What opening cannot see, as the documentation says."""
    raw, folder = make_cohort(patients=0), tmp_path / "s.zarr"
    for number in range(12):
        raw.add(f"r{number}", np.roll(beats(1), number, axis=1), **{"Patient ID": f"P{number}"})
    ingest(raw.folder, folder, str(raw.spec), IngestOptions(shard_records=1, quality=False))
    by_size: dict[int, list[Path]] = {}
    for path in sorted((folder / "signals" / "north").glob("*/c/*/0/0")):
        by_size.setdefault(path.stat().st_size, []).append(path)
    one, other, *_ = next(paths for paths in by_size.values() if len(paths) > 1)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    ec.open(folder)
    problems = ec.verify(folder).problems
    assert {path.relative_to(folder).as_posix() for path in (one, other)} == {text.split(":")[0] for text in problems}


def test_a_stray_file_is_named(folder):
    (folder / "notes.txt").write_text("hello")
    assert any("notes.txt" in problem for problem in ec.verify(folder).problems)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("gone", "no such folder.*ecgcohorts ingest"),
        ("no CURRENT", "without a committed store"),
        ("version", f"store format 99, expected {FORMAT_VERSION}"),
        ("foreign manifest", "does not match CURRENT"),
    ],
)
def test_what_is_no_store_says_what_to_do(folder, damage, message):
    store = ec.open(folder)
    manifest = folder / f"manifest-{store.manifest.generation:06d}.json"
    if damage == "gone":
        shutil.rmtree(folder)
    elif damage == "no CURRENT":
        (folder / "CURRENT").unlink()
    elif damage == "version":
        manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"format_version": 99}))
        current = {"manifest": manifest.name, "sha256": hashlib.sha256(manifest.read_bytes()).hexdigest()}
        (folder / "CURRENT").write_text(json.dumps(current))
    else:
        manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(StoreError, match=message):
        ec.open(folder)


def test_the_manifest_survives_json(folder):
    manifest = ec.open(folder).manifest
    assert Manifest.model_validate_json(upgraded(folder, manifest.to_bytes())) == manifest


def test_index_selections(folder):
    index = ec.open(folder).index
    north = index.where(cohort="north")
    assert set(north.to_pandas()["cohort"]) == {"north"}
    assert north.n_patients == 4
    women = index.where(sex="female", age=(30, 32))
    assert ((women["age"] >= 30) & (women["age"] < 32) & (women["sex"] == 1)).all()
    with pytest.raises(ec.SpecError, match="no cohort 'nowhere', expected one of north, south"):
        index.where(cohort="nowhere")


def test_a_split_keeps_patients_apart_and_still_when_records_are_added(folder, make_cohort):
    index = ec.open(folder).index
    parts = index.split_by_patient({"train": 0.5, "test": 0.5}, salt="a")
    ids = {name: {row.tobytes() for row in part["patient_id"]} for name, part in parts.items()}
    assert not ids["train"] & ids["test"]
    assert sum(len(part) for part in parts.values()) == len(index)
    west = make_cohort("west", 5, seed=9)
    ingest(west.folder, folder, str(west.spec))
    later = ec.open(folder).index.split_by_patient({"train": 0.5, "test": 0.5}, salt="a")
    assert ids["train"] <= {row.tobytes() for row in later["train"]["patient_id"]}
