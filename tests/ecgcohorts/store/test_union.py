"""Several stores as one: every strip of every store, each person once, no recording twice."""

import multiprocessing
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import RecipeMismatch, StoreError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io.place import Folder
from ecgcohorts.store.union import _join_stores


@pytest.fixture
def key(tmp_path) -> Path:
    """Another hospital's key."""
    path = tmp_path / "other.key"
    path.write_text("ab" * 32)
    return path


@pytest.fixture
def stores(make_cohort, tmp_path) -> list[Path]:
    """Two stores of one hospital on two disks: north and south here, west there."""
    north, south, west = make_cohort("north", 4), make_cohort("south", 3, seed=1), make_cohort("west", 5, seed=2)
    text = west.spec.read_text().replace("AF}}", "AF}}\n      lbbb: {find: {header: AF}}")
    west.spec.write_text(text)
    for cohort, store in ((north, "a"), (south, "a"), (west, "b")):
        ingest(cohort.folder, tmp_path / f"{store}.zarr", str(cohort.spec), IngestOptions(shard_records=3))
    return [tmp_path / "a.zarr", tmp_path / "b.zarr"]


def by_recording(store, column) -> dict[bytes, object]:
    values = column if isinstance(column, np.ndarray) else store.index[column]
    return {row.tobytes(): value for row, value in zip(store.index["recording_id"], values, strict=True)}


def test_every_strip_and_every_fact_is_that_of_its_store(stores):
    a, b = map(ec.open, stores)
    both = ec.open(stores)
    assert isinstance(both, ec.UnionStore)
    assert (both.n_rows, len(both.index)) == (a.n_rows + b.n_rows, len(a.index) + len(b.index))
    assert both.index.n_patients == a.index.n_patients + b.index.n_patients
    assert both.index.cohorts == ("north", "south", "west")
    assert both.lsb_uv == a.lsb_uv
    assert both.recipe == a.recipe
    strips = by_recording(both, both.read(both.index["row"]))
    named = both.index.to_pandas().set_index("recording_id")
    for one in (a, b):
        mine = one.index.to_pandas().set_index("recording_id").drop(columns=["row", "patient"])
        theirs = named.loc[mine.index, mine.columns]
        assert mine.astype(object).where(mine.notna(), None).equals(theirs.astype(object).where(theirs.notna(), None))
        for recording, strip in by_recording(one, one.read(one.index["row"])).items():
            np.testing.assert_array_equal(strips[recording], strip)
    for name, dtype in COLUMNS.items():
        assert both.index[name].dtype == dtype


def test_rows_of_all_stores_are_read_in_any_order(stores):
    both = ec.open(stores)
    rows = np.random.default_rng(0).permutation(np.repeat(both.index["row"], 2))
    for row, strip in zip(rows, both.read(rows), strict=True):
        np.testing.assert_array_equal(strip, both.read([row])[0])
    with pytest.raises(StoreError, match=f"expected 0 to {both.n_rows - 1}"):
        both.read([both.n_rows])


def test_what_a_store_never_had_is_unknown_there(stores):
    both = ec.open(stores)
    at_west = both.index["cohort"] == both.index.cohort_code("west")
    assert np.isnan(both.index["label_lbbb"][~at_west]).all()
    assert np.isfinite(both.index["label_lbbb"][at_west]).all()
    a, b = map(ec.open, stores)
    less = replace(b, index=replace(b.index, columns={k: v for k, v in b.index.columns.items() if k != "q_n_clip"}))
    column = _join_stores([a, less]).index["q_n_clip"]
    assert column.dtype == np.float32
    assert np.isnan(column).sum() == len(b.index)


def test_segments_and_rejects_are_those_of_all(stores):
    a, b = map(ec.open, stores)
    both = ec.open(stores)
    assert [segment.cohort for segment in both.segments] == ["north", "south", "west"]
    ends = np.cumsum([segment.rows for segment in both.segments])
    assert [segment.first_row for segment in both.segments] == [0, *ends[:-1]]
    assert len(both.rejects()) == len(a.rejects()) + len(b.rejects())
    assert repr(both) == "UnionStore('a.zarr + b.zarr': 22 recordings of 12 patients in north, south, west)"


def test_the_order_given_decides_rows_and_the_fingerprint(stores):
    one, again, other = ec.open(stores), ec.open(tuple(map(str, stores))), ec.open(stores[::-1])
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert one.index.fingerprint == again.index.fingerprint != other.index.fingerprint
    assert other.index.cohorts == ("west", "north", "south")
    assert ec.open(stores[:1]).fingerprint != ec.open(stores[0]).fingerprint
    np.testing.assert_array_equal(ec.open(stores[:1]).index["row"], ec.open(stores[0]).index["row"])


def test_a_patient_of_two_stores_is_one_only_under_one_key(make_cohort, key, tmp_path):
    north = make_cohort("north", 4)
    ingest(north.folder, tmp_path / "a.zarr", str(north.spec))
    for name in [*north.signals]:
        for suffix in (".hea", ".dat"):
            (north.folder / f"{name}{suffix}").unlink()
    for patient in range(4):
        signal = np.roll(next(iter(north.signals.values())), 40 * (patient + 1), axis=1)
        north.add(f"later{patient}", signal, **{"Patient ID": f"CANARYPAT{patient:04d}"}, Date="2030-01-01T10:00:00")
    ingest(north.folder, tmp_path / "b.zarr", str(north.spec))
    ingest(north.folder, tmp_path / "c.zarr", str(north.spec), IngestOptions(key_file=key))

    joined = ec.open([tmp_path / "a.zarr", tmp_path / "b.zarr"]).index
    assert joined.cohorts == ("north",)
    assert joined.n_patients == 4
    assert len(joined) == len(ec.open(tmp_path / "a.zarr").index) + 4
    a_rows = ec.open(tmp_path / "a.zarr").n_rows
    assert (np.isnan(joined["days"]) == (joined["row"] >= a_rows)).all()  # two stores, two first days
    for patient in range(4):
        rows = joined.rows_of(patient)
        assert (np.diff(rows) > 0).all()
        assert rows[-1] >= a_rows > rows[-2]
        assert len(np.unique(joined["patient_id"][joined["patient"] == patient], axis=0)) == 1

    strangers = ec.open([tmp_path / "a.zarr", tmp_path / "c.zarr"])
    keys = [ec.open(tmp_path / f"{name}.zarr").manifest.key_fingerprint[:8] for name in "ac"]
    assert strangers.index.cohorts == tuple(f"north_{one}" for one in keys)
    assert strangers.index.n_patients == 8
    assert [segment.cohort for segment in strangers.segments] == list(strangers.index.cohorts)
    assert np.isfinite(strangers.index["days"]).all()


def test_a_name_of_two_descriptions_under_one_key_is_refused(make_cohort, tmp_path):
    north = make_cohort("north", 2)
    ingest(north.folder, tmp_path / "a.zarr", str(north.spec))
    north.spec.write_text(north.spec.read_text().replace("Patient ID", "Age"))
    north.add("another", np.roll(next(iter(north.signals.values())), 99, axis=1), Age="50")
    ingest(north.folder, tmp_path / "b.zarr", str(north.spec))
    with pytest.raises(StoreError, match=r"'north' is described differently.*under a name of its own"):
        ec.open([tmp_path / "a.zarr", tmp_path / "b.zarr"])


def test_copies_stay_once_and_are_told(make_cohort, key, tmp_path):
    north, copy = make_cohort("north", 4), make_cohort("copy", 2, seed=7)
    for number, (name, signal) in enumerate(list(north.signals.items())[:3]):
        copy.add(f"of{number}", signal, **{"Patient ID": f"CANARYPAT9{name[-5:-2]}"})
    ingest(north.folder, tmp_path / "a.zarr", str(north.spec))
    ingest(copy.folder, tmp_path / "b.zarr", str(copy.spec), IngestOptions(key_file=key))
    a, b = ec.open(tmp_path / "a.zarr"), ec.open(tmp_path / "b.zarr")
    both = ec.open([tmp_path / "a.zarr", tmp_path / "b.zarr"])
    assert both.n_duplicates == 3
    assert len(both.index) == len(a.index) + len(b.index) - 3
    assert max(Counter(row.tobytes() for row in both.index["waveform_digest"]).values()) == 1
    table = both.duplicates()
    assert set(table["reason"]) == {"waveform"}
    assert set(table["cohort"]) == {"copy"}
    assert set(table["duplicate_of_cohort"]) == {"north"}
    digests = [by_recording(store, "waveform_digest") for store in (a, b)]
    for line in table.itertuples():
        np.testing.assert_array_equal(
            digests[0][bytes.fromhex(line.duplicate_of)], digests[1][bytes.fromhex(line.recording_id)]
        )
    patients = {row.tobytes().hex() for row in both.index["patient_id"]}
    assert set(table["duplicate_of_patient"]) <= patients
    assert (np.diff(np.unique(both.index["patient"])) == 1).all()
    other = ec.open([tmp_path / "b.zarr", tmp_path / "a.zarr"])
    assert set(other.duplicates()["cohort"]) == {"north"}


def test_a_recording_met_before_stays_as_the_first_store_has_it(make_cohort, tmp_path):
    north = make_cohort("north", 3)
    ingest(north.folder, tmp_path / "a.zarr", str(north.spec))
    name, signal = next(iter(north.signals.items()))
    north.add(name, np.roll(signal, 200, axis=1), **{"Patient ID": "CANARYPAT0000"})  # measured anew, under the same id
    ingest(north.folder, tmp_path / "b.zarr", str(north.spec))
    both = ec.open([tmp_path / "a.zarr", tmp_path / "b.zarr"])
    assert both.n_duplicates == len(north.signals)
    assert set(both.duplicates()["reason"]) == {"recording_id"}
    np.testing.assert_array_equal(both.index["row"], ec.open(tmp_path / "a.zarr").index["row"])


def test_a_copy_of_a_copy_names_what_stays(stores):
    a, b = map(ec.open, stores)
    columns = {name: column.copy() for name, column in b.index.columns.items()}
    columns["waveform_digest"][0] = a.index["waveform_digest"][1]
    first = replace(b, index=replace(b.index, columns=columns))
    again = {name: column[:1].copy() for name, column in columns.items()}  # the id of one copy, another waveform
    again["waveform_digest"][:] = 9
    again["patient"][:] = 0
    second = replace(b, place=Folder(Path("c.zarr")), fingerprint="c" * 64, index=replace(b.index, columns=again))
    table = _join_stores([a, first, second]).duplicates()
    assert table["reason"].tolist() == ["waveform", "recording_id"]
    assert set(table["duplicate_of"]) == {a.index["recording_id"][1].tobytes().hex()}


def test_what_does_not_belong_together_is_refused(stores, tmp_path):
    with pytest.raises(StoreError, match="list of stores is empty"):
        ec.open([])
    with pytest.raises(StoreError, match="a second time"):
        ec.open([stores[0], stores[1], tmp_path / "." / "a.zarr"])
    with pytest.raises(StoreError, match="no such folder"):
        ec.open([stores[0], tmp_path / "nothing.zarr"])
    a, b = map(ec.open, stores)
    with pytest.raises(StoreError, match="a second time"):  # a copy of it elsewhere
        _join_stores([a, replace(a, place=Folder(tmp_path / "copy.zarr"))])
    recipe = b.recipe.model_copy(update={"name": "cape-ref-1"})
    other = replace(b, manifest=b.manifest.model_copy(update={"recipe": recipe}))
    with pytest.raises(RecipeMismatch, match=r"b\.zarr: found recipe cape-ref-1, expected cape-v1 as in .*a\.zarr"):
        _join_stores([a, other])


def test_batches_of_one_cohort_from_stores_of_two(stores):
    both = ec.open(stores)
    sampler = ec.InDistributionBatchSampler(both.index, pairs=2, seed=0, singles="self")
    strips = dict(zip(both.index["row"].tolist(), both.read(both.index["row"]), strict=True))
    cohort_of = dict(zip(both.index["row"].tolist(), both.index["cohort"].tolist(), strict=True))
    cohorts = set()
    for batch in ec.Loader(both, sampler, window=2800):
        assert batch.signal.shape == (2, 2, 8, 2800)
        found = {cohort_of[row] for row in batch.plan.rows.ravel().tolist()}
        assert len(found) == 1
        cohorts |= found
        for row, window in zip(batch.plan.rows.ravel().tolist(), batch.signal.reshape(-1, 8, 2800), strict=True):
            strip = strips[row]
            assert any((strip[:, at : at + 2800] == window).all() for at in range(strip.shape[1] - 2800 + 1))
    assert len(cohorts) == 3


@pytest.mark.parametrize("kind", ["one", "both"])
def test_a_store_goes_to_another_process(stores, kind):
    store = ec.open(stores[0] if kind == "one" else stores)
    rows = store.index["row"][-2:]
    expected = store.read(rows)
    again = pickle.loads(pickle.dumps(store))
    assert again.fingerprint == store.fingerprint
    np.testing.assert_array_equal(again.read(rows), expected)
    for name in BYTE_COLUMNS:
        np.testing.assert_array_equal(again.index[name], store.index[name])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(store.read, (rows,)), expected)


def test_an_open_union_keeps_showing_its_snapshot(stores, make_cohort):
    both = ec.open(stores)
    strips = both.read(both.index["row"])
    east = make_cohort("east", 2, seed=5)
    ingest(east.folder, stores[0], str(east.spec))
    np.testing.assert_array_equal(both.read(both.index["row"]), strips)
    later = ec.open(stores)
    assert "east" in later.index.cohorts
    assert later.fingerprint != both.fingerprint
