"""A store in an object store, read in place from a real S3 server: the same bytes, few requests, nothing believed."""

import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import ObjectStoreError, SpecError, StoreError
from ecgcohorts.index import splits
from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io.buckets import Bucket
from ecgcohorts.io.durable import write_file
from ecgcohorts.loading.loader import Loader
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.samplers import PatientPairSampler
from ecgcohorts.store import manifests
from ecgcohorts.store.columns import write_index
from ecgcohorts.store.commit import publish
from ecgcohorts.store.reader import open_store
from ecgcohorts.store.remote.copy import copy_store
from ecgcohorts.store.schema import (
    Accounting,
    FileEntry,
    Manifest,
    Segment,
    group_metadata,
    rejects_name,
    signals_metadata,
)
from ecgcohorts.store.signals.shards import ShardedArray
from ecgcohorts.store.splits import load_split, save_split, split_names
from ecgcohorts.store.upkeep.info import describe
from ecgcohorts.store.upkeep.labels import add_labels
from ecgcohorts.store.upkeep.remove import remove_patient
from ecgcohorts.store.writer import ShardWriter

RAW = [f"CANARYPAT{patient:04d}" for patient in range(4)]


@pytest.fixture
def folder(make_cohort, tmp_path) -> Path:
    """A store of two cohorts, with a split."""
    store = tmp_path / "s.zarr"
    for name, seed in (("north", 0), ("south", 1)):
        raw = make_cohort(name, 4, seed=seed)
        ingest(raw.folder, store, str(raw.spec), IngestOptions(shard_records=3))
    save_split(store, splits.by_patient(ec.open(store).index, {"train": 0.5, "test": 0.5}, "a"))
    return store


@pytest.fixture
def url(folder: Path, bucket_url: str) -> str:
    """The same store below a URL."""
    copy_store(folder, f"{bucket_url}/s.zarr")
    return f"{bucket_url}/s.zarr"


def test_a_store_reads_the_same_in_place(folder, url):
    local, remote = ec.open(folder), ec.open(url)
    assert remote.fingerprint == local.fingerprint
    assert remote.path == url
    assert url in repr(remote)
    for name, column in local.index.columns.items():
        np.testing.assert_array_equal(remote.index[name], column)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(local.n_rows), 2))
    np.testing.assert_array_equal(remote.read(rows), local.read(rows))
    np.testing.assert_array_equal(remote.read_mv(rows[:3]), local.read_mv(rows[:3]))
    assert remote.rejects().equals(local.rejects())
    assert remote.segments == local.segments
    [name] = split_names(remote)
    assert load_split(remote, name).definition == load_split(local, name).definition
    facts = [describe(ec.open(place)) for place in (folder, url)]
    for one in (*facts, *(store for told in facts for store in told["stores"])):
        one["path"] = ""
        one.pop("earlier_generations", None)  # what is copied is the one in force
    assert facts[0] == facts[1]


def test_it_is_one_of_several(folder, url, make_cohort, tmp_path):
    west = make_cohort("west", 3, seed=5)
    ingest(west.folder, tmp_path / "west.zarr", str(west.spec))
    both, local = (ec.open([tmp_path / "west.zarr", place]) for place in (url, folder))
    assert both.fingerprint == local.fingerprint
    assert both.name == "west.zarr + s.zarr"
    np.testing.assert_array_equal(both.read(both.index["row"]), local.read(local.index["row"]))
    with pytest.raises(StoreError, match="a second time"):
        ec.open([url, url])


def test_it_may_be_sent_to_another_process(url):
    store = pickle.loads(pickle.dumps(ec.open(url)))
    row = store.index["row"][0]
    np.testing.assert_array_equal(store.read([row]), ec.open(url).read([row]))


def test_verify_reads_every_byte(url):
    assert ec.verify(url).ok
    bucket = Bucket(url)
    bucket.put("notes.txt", b"hello")
    assert any("notes.txt" in problem for problem in ec.verify(url).problems)
    bucket.delete(["notes.txt"])
    draw = random.Random(0)
    store = ec.open(url)
    shards = [name for name in store.manifest.files if "/c/" in name and name.startswith("signals/")]
    for name in (draw.choice(shards), "zarr.json"):
        good = bucket.get(name)
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1
        bucket.put(name, bytes(bad))
        assert any(name in problem for problem in ec.verify(url).problems)
        bucket.put(name, good)


def test_damage_anywhere_is_named_or_an_error(url):
    """What opening reads is checked against the manifest before it is parsed, and every record by its checksum."""
    bucket = Bucket(url)
    files = ec.open(url).manifest.files
    index = [name for name in files if name.startswith(("index/", "rejects")) and name != "index/zarr.json"]
    index.remove(f"index/{ec.open(url).manifest.generation:06d}/zarr.json")  # names for people; nobody reads it
    draw = random.Random(1)
    for name in draw.sample(index, 8):
        good = bucket.get(name)
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        bucket.put(name, bytes(bad))
        with pytest.raises(StoreError, match=f"{name}: content does not match its checksum"):
            ec.open(url)
        bucket.put(name, good)
    shard = next(name for name in files if name.endswith("c/0/0/0") and name.startswith("signals/"))
    good = bucket.get(shard)
    bad = bytearray(good)
    bad[100] ^= 1
    bucket.put(shard, bytes(bad))
    with pytest.raises(StoreError, match=f"{shard}: found a checksum that does not match in record 0"):
        ec.open(url).read([0, 1, 2])
    bucket.delete([shard])
    with pytest.raises(StoreError, match=f"{shard}: found no file"):
        ec.open(url)


def test_too_much_is_refused_before_it_is_fetched(url):
    bucket = Bucket(url)
    bucket.put("CURRENT", bytes(5000))
    with pytest.raises(StoreError, match="CURRENT: found 5000 bytes, expected at most 4096"):
        ec.open(url)


def test_an_open_store_keeps_its_snapshot_or_says_so(folder, url, tmp_path):
    """Signals never change; where they had to, a store that was opened before does not take the new for the old."""
    store = ec.open(url)
    rows = store.index["row"]
    strips = store.read(rows)
    fresh = ec.open(url)  # has read no shard yet
    (tmp_path / "ef.csv").write_text(f"patient,ef\n{RAW[1]},50\n")
    add_labels(folder, tmp_path / "ef.csv", "north", id_column="patient", kind="patient", columns=["ef"])
    copy_store(folder, url)
    np.testing.assert_array_equal(store.read(rows), strips)
    np.testing.assert_array_equal(fresh.read(rows), strips)
    assert "ef" in ec.open(url).index.labels
    assert "ef" not in store.index.labels
    old = ec.open(url)
    remove_patient(folder, "north", RAW[2])
    copy_store(folder, url)
    assert ec.verify(url).ok
    for some in (store, old):  # the rewritten segment is gone, whenever the bucket was last asked
        for _ in range(2):
            with pytest.raises(StoreError, match="a patient was removed from the store since you opened it"):
                some.read(rows)


def removed_there(folder: Path, url: str) -> None:
    remove_patient(folder, "north", RAW[2])
    copy_store(folder, url)
    time.sleep(1)  # a bucket is asked at most once a second


@pytest.mark.parametrize("generation", [None, 3])
def test_a_removal_is_noticed_where_nothing_was_rewritten(folder, url, generation):
    """By readers of other cohorts, of other snapshots and in other processes: what they opened lists the patient."""
    save_split(folder, splits.by_patient(ec.open(folder).index, {"train": 0.5, "test": 0.5}, "b"))
    copy_store(folder, url)
    store = open_store(url, generation)
    untouched = store.index["row"][store.index["cohort"] == store.index.cohort_code("south")]
    store.read(untouched)
    sent, both = pickle.dumps(store), ec.open([url])
    both.read([0])
    removed_there(folder, url)
    for one in (store, store, pickle.loads(sent), both):
        with pytest.raises(StoreError, match=r"s\.zarr: a patient was removed from the store since you opened it"):
            one.read(untouched)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_loader_of_a_bucket_ends_with_the_reason(folder, url, prefetch):
    store = ec.open(url)
    loader = Loader(store, PatientPairSampler(store.index, 1, seed=0), prefetch=prefetch)
    batches = loader.endless()
    next(batches)
    removed_there(folder, url)
    with pytest.raises(StoreError, match="a patient was removed from the store since you opened it"):
        next(batches)


def test_a_bucket_is_asked_at_most_once_a_second_who_was_removed(url, requests_served):
    store = ec.open(url)
    requests_served.clear()
    begun = time.monotonic()
    while len(requests_served) < 100:
        store.read([0])
    asked = sum(path.endswith("CURRENT") for path in requests_served)
    assert not any("manifest" in path for path in requests_served)
    assert 1 <= asked <= 1 + (time.monotonic() - begun)


def test_an_outage_is_not_taken_for_an_answer(url, monkeypatch):
    """Who was not told that nobody was removed asks again at the next read."""
    store, real, asked = ec.open(url), Bucket.get, []

    def get(self: Bucket, name: str, limit: int | None = None) -> bytes:
        asked.append(name)
        if len(asked) == 1:
            raise ObjectStoreError("down")
        return real(self, name, limit)

    monkeypatch.setattr(Bucket, "get", get)
    monkeypatch.setattr(manifests, "_BUCKET_ASKED_S", 60.0)
    with pytest.raises(ObjectStoreError, match="down"):
        store.read([0])
    store.read([0])
    store.read([0])
    assert asked.count("CURRENT") == 2


def test_an_object_that_was_replaced_is_not_read_as_the_old_one(url):
    store = ec.open(url)
    shard = next(name for name in store.manifest.files if name.endswith("c/0/0/0") and name.startswith("signals/"))
    time.sleep(1.1 - time.time() % 1)  # into the next second: stores tell whole ones
    bucket = Bucket(url)
    bucket.put(shard, bucket.get(shard))
    with pytest.raises(StoreError, match=f"{shard}: has been replaced since the store was opened"):
        store.read([0])
    ec.open(url).read([0])


@pytest.mark.parametrize(
    "change",
    [
        lambda url: save_split(url, splits.by_patient(ec.open(url).index, {"a": 1.0}, "x")),
        lambda url: add_labels(url, "t.csv", "north", id_column="a", columns=["b"]),
        lambda url: remove_patient(url, "north", "1"),
    ],
    ids=["split", "label", "remove"],
)
def test_changes_are_refused_with_the_way_that_works(url, change):
    with pytest.raises(StoreError, match=rf"ecgcohorts copy {url} FOLDER; ecgcohorts copy FOLDER {url}"):
        change(url)


def test_nothing_there_is_said(bucket_url):
    with pytest.raises(StoreError, match=rf"{bucket_url}/x: found nothing there, expected a store"):
        ec.open(f"{bucket_url}/x")
    with pytest.raises(SpecError, match=r"loses a slash\. Give it as text"):
        ec.open(Path("s3://bucket/x"))


def test_a_server_that_does_not_answer_is_no_missing_store(bucket_url, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARYSECRET")
    with pytest.raises((ObjectStoreError, StoreError), match=r"s3://no-such-bucket") as caught:
        ec.open("s3://no-such-bucket/s.zarr")
    assert "CANARY" not in str(caught.value)


# Requests: a store as large as a batch needs, written without decoding anything.


def write_store(folder: Path, patients: int, shard_records: int, seed: int) -> None:
    """Two to five recordings a patient, side by side, each as large as a real one."""
    rng = np.random.default_rng(seed)
    count = rng.integers(2, 6, patients)
    rows, shape = int(count.sum()), (len(CAPE_V1.leads), CAPE_V1.strip_samples)
    segment = "signals/made/000001"
    names = ["zarr.json", "signals/zarr.json", "index/zarr.json", "signals/made/zarr.json"]
    for name in names:
        write_file(folder / name, group_metadata())
    write_file(folder / segment / "zarr.json", signals_metadata(rows, shard_records, CAPE_V1))
    files = {}
    wave = rng.integers(-40, 40, shape).astype(np.int16)
    for shard, first in enumerate(range(0, rows, shard_records)):
        path = f"{segment}/c/{shard}/0/0"
        with ShardWriter(folder / path, shard_records, shape) as writer:
            for row in range(first, min(first + shard_records, rows)):
                writer.append(np.roll(wave, row, axis=1))
        files[path] = writer.entry
    columns = {name: np.zeros(rows, dtype) for name, dtype in COLUMNS.items()}
    columns |= {"row": np.arange(rows), "patient": np.repeat(np.arange(patients), count), "days": columns["days"]}
    columns["valid_stop"][:] = shape[1]
    for name, values in (("recording_id", np.arange(rows)), ("patient_id", columns["patient"])):
        columns[name] = np.ascontiguousarray(values.astype("<u8").view(np.uint8).reshape(-1, 8)).repeat(2, axis=1)
    columns["waveform_digest"] = columns["recording_id"].copy()
    index = CohortIndex(columns, ("made",), ("ward",), ("maker",))
    names += [f"{segment}/zarr.json", *write_index(folder, 1, index), rejects_name(1)]
    no_rejects = pd.DataFrame({"cohort": [], "recording_id": [], "reason": [], "duplicate_of": []})
    write_file(folder / rejects_name(1), no_rejects.to_parquet(index=False))
    files |= FileEntry.of_files(folder, names)
    one = Segment(
        cohort="made",
        name="000001",
        first_row=0,
        rows=rows,
        shard_records=shard_records,
        accounting=Accounting(inputs=rows, stored=rows, duplicates=0, rejected={}),
        spec_sha256="0" * 64,
    )
    fields = {"recipe": CAPE_V1, "key_fingerprint": "0" * 32, "segments": (one,), "cohorts": ("made",), "versions": {}}
    more = {
        "sites": ("ward",),
        "devices": ("maker",),
        "index_columns": tuple(sorted(columns)),
        "files": dict(sorted(files.items())),
    }
    publish(folder, Manifest(generation=1, **fields, **more))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of all range requests from here on."""
    real, asked = Bucket.get_range, []

    def get_range(self: Bucket, name: str, start: int, stop: int) -> object:
        asked.append(stop - start)
        return real(self, name, start, stop)

    monkeypatch.setattr(Bucket, "get_range", get_range)
    return asked


@pytest.fixture
def requests_served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of all requests that the server answers from here on."""
    serving = pytest.importorskip("werkzeug.serving")
    served: list[str] = []
    real = serving.WSGIRequestHandler.run_wsgi

    def run_wsgi(self: object) -> None:
        served.append(self.path)
        real(self)

    monkeypatch.setattr(serving.WSGIRequestHandler, "run_wsgi", run_wsgi)
    return served


PAIRS = 128  # of 520 patients


def test_a_batch_of_pairs_takes_at_most_1_2_requests_a_pair(tmp_path, bucket_url, monkeypatch, requests_served):
    write_store(tmp_path / "s.zarr", 520, 512, seed=0)
    copy_store(tmp_path / "s.zarr", f"{bucket_url}/s.zarr")
    local, remote = ec.open(tmp_path / "s.zarr"), ec.open(f"{bucket_url}/s.zarr")
    loader, expected = (
        Loader(store, PatientPairSampler(store.index, PAIRS, seed=0), prefetch=0) for store in (remote, local)
    )
    remote.read(np.arange(0, remote.n_rows, 512))  # the index of every shard, kept from here on
    asked = counted(monkeypatch)
    remote.refuse_removed()  # once a second
    requests_served.clear()
    batch, same = loader.load(0, 0), expected.load(0, 0)
    np.testing.assert_array_equal(batch.signal, same.signal)
    assert 0.7 * PAIRS < len(asked) <= 1.2 * PAIRS  # fewer than one: patients who stand side by side
    signals = [path for path in requests_served if not path.endswith("CURRENT")]
    assert len(signals) == len(asked)  # one call is one request
    places = remote._arrays[0]._places
    assert sum(asked) < 3 * places[:, 1][places[:, 1] < 2**63].mean() * 2 * PAIRS


def test_all_shards_index_is_read_once(url, monkeypatch):
    store = ec.open(url)
    asked = counted(monkeypatch)
    rows = store.index["row"]
    store.read(rows)
    first = len(asked)
    store.read(rows)
    shards = sum(-(-segment.rows // segment.shard_records) for segment in store.segments)
    assert len(asked) - first == first - shards


def test_requests_go_out_side_by_side(url, monkeypatch):
    """As many as there are shards, although each answer takes a while."""
    store = ec.open(url)
    rows = store.index["row"]
    store.read(rows)
    real: Callable = Bucket.get_range

    def slow(self: Bucket, name: str, start: int, stop: int) -> object:
        time.sleep(0.2)
        return real(self, name, start, stop)

    monkeypatch.setattr(Bucket, "get_range", slow)
    [array] = [one for one in store._arrays if len(one) == store.segments[0].rows][:1]
    assert isinstance(array, ShardedArray)
    far = np.arange(0, len(array), 3)  # one of each shard
    start = time.perf_counter()
    array.read(np.repeat(far, 2))
    assert time.perf_counter() - start < 0.2 * len(far)
