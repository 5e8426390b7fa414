"""A snapshot arrives whole or not at all, wherever the sender dies; and only one may send."""

import hashlib
import json
import time
from pathlib import Path

import pytest

from ecgcohorts.errors import LockHeld, ObjectStoreError, StoreError
from ecgcohorts.io import buckets as objects
from ecgcohorts.io.buckets import Bucket
from ecgcohorts.io.durable import write_file
from ecgcohorts.io.place import place_at
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.store.commit import publish
from ecgcohorts.store.manifests import manifest_bytes
from ecgcohorts.store.remote.bucket_lock import _BucketLock, _refuse_unconditional, bucket_lock, unlock
from ecgcohorts.store.remote.copy import copy_store
from ecgcohorts.store.schema import FileEntry, Manifest

URL = "s3://memory/s.zarr"
FIRST = {"zarr.json": b"group", "signals/north/000001/c/0/0/0": b"one", "index/000001/row/c/0": b"0 1 2"}
SECOND = {
    "zarr.json": b"group",
    "signals/north/000001/c/0/0/0": b"one",
    "signals/north/000002/c/0/0/0": b"two",
    "index/000002/row/c/0": b"0 1 2 3",
}


def write(folder: Path, generation: int, content: dict[str, bytes], **fields: object) -> Path:
    """A folder with a snapshot of these files; for what sends and checks it, that is a store."""
    for name, data in content.items():
        write_file(folder / name, data)
    names = ("segments", "cohorts", "sites", "devices", "index_columns")
    manifest = Manifest(
        generation=generation,
        recipe=CAPE_V1,
        versions={},
        files=FileEntry.of_files(folder, list(content)),
        **(dict.fromkeys(names, ()) | {"key_fingerprint": "0" * 32} | fields),
    )
    publish(folder, manifest)
    return folder


@pytest.fixture
def places(tmp_path, monkeypatch, memory_url) -> tuple[Path, Path]:
    """Two snapshots of one store as folders; object stores in memory keep conditions as real ones do."""
    assert memory_url == URL
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write(tmp_path / "first", 1, FIRST), write(tmp_path / "second", 2, SECOND)


def content(bucket: Bucket) -> dict[str, bytes]:
    return {name: bucket.get(name) for name in bucket.sizes()}


def fingerprint(place: str | Path) -> str:
    """Of the snapshot in force, every byte of which is checked."""
    files = place_at(place)
    manifest, data = manifest_bytes(files)
    manifest.check_files(files)
    for name, entry in manifest.files.items():
        assert files.sha256_of(name) == entry.sha256
    return hashlib.sha256(data).hexdigest()


def test_killed_at_every_request_it_leaves_a_whole_snapshot_and_goes_on(places, kill_at, tmp_path):
    first, second = places
    before = after = 0
    for at in range(200):
        url = f"{URL}{at}"
        copy_store(first, url)
        with kill_at(at) as killed:
            copy_store(second, url)
        if not killed:
            break
        in_force = fingerprint(url)
        assert in_force in (fingerprint(first), fingerprint(second))
        before, after = before + (in_force == fingerprint(first)), after + (in_force == fingerprint(second))
        copy_store(second, url)  # knows the lock it left
        assert fingerprint(url) == fingerprint(second)
        assert content(Bucket(url)) == {
            name: (second / name).read_bytes() for name in (*SECOND, "CURRENT", "manifest-000002.json")
        }
    assert before > 20
    assert after >= 2
    assert not list((tmp_path / "cache" / "ecgcohorts").iterdir())


def test_what_arrived_before_a_kill_is_not_sent_again_unless_it_differs(places, kill_at):
    _, second = places
    with kill_at(16) as killed:
        copy_store(second, URL)
    assert killed
    bucket = Bucket(URL)
    arrived = set(bucket.sizes()) & set(SECOND)
    assert 0 < len(arrived) < len(SECOND)
    bucket.put(min(arrived), SECOND[min(arrived)], "0" * 64)  # the same bytes, but who knows?
    assert copy_store(second, URL).files == len(SECOND) - len(arrived) + 1
    assert fingerprint(URL) == fingerprint(second)


def test_between_any_two_places_and_only_what_is_new(places, tmp_path):
    first, second = places
    assert copy_store(first, URL).files == len(FIRST)
    report = copy_store(second, URL)
    assert (report.files, report.of_files, report.written) == (2, 4, True)
    assert not copy_store(second, URL).written
    copy_store(URL, f"{URL}2")
    copy_store(f"{URL}2", tmp_path / "back")
    names = {path.relative_to(second) for path in second.rglob("*") if path.is_file()}
    assert names | {Path("lock")} == {
        path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("*") if path.is_file()
    }
    assert all((tmp_path / "back" / name).read_bytes() == (second / name).read_bytes() for name in names)
    copy_store(first, tmp_path / "older")
    assert copy_store(second, tmp_path / "older").files == 2
    assert fingerprint(tmp_path / "older") == fingerprint(second)


def test_a_folder_copy_that_was_interrupted_goes_on(places, tmp_path, monkeypatch):
    _, second = places
    copy_store(second, URL)
    real, left = Bucket.fetch, [2]

    def fetch(self, name, path):
        left[0] -= 1
        if left[0] < 0:
            raise ObjectStoreError("gone away")
        real(self, name, path)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "fetch", fetch)
        with pytest.raises(ObjectStoreError):
            copy_store(URL, tmp_path / "down")
    with pytest.raises(StoreError, match="without a committed store"):
        manifest_bytes(place_at(tmp_path / "down"))
    assert copy_store(URL, tmp_path / "down").files == len(SECOND) - 2
    assert fingerprint(tmp_path / "down") == fingerprint(second)


@pytest.mark.parametrize(
    "fields", [{"key_fingerprint": "1" * 32}, {"removed": ("ab",)}, {"index_columns": ("label_ef",)}, {"generation": 3}]
)
def test_what_holds_anything_else_is_refused(places, tmp_path, fields):
    _, second = places
    other = write(tmp_path / "other", **{"generation": 1, "content": FIRST} | fields)
    copy_store(other, URL)
    before = content(Bucket(URL))
    with pytest.raises(StoreError, match="found another store, or a later snapshot"):
        copy_store(second, URL)
    with pytest.raises(StoreError, match="found another store, or a later snapshot"):
        copy_store(second, other)
    assert content(Bucket(URL)) == before


def test_a_file_in_force_never_gets_other_content(places, tmp_path):
    _, second = places
    other = write(tmp_path / "other", 1, FIRST | {"zarr.json": b"another"})
    copy_store(other, URL)
    with pytest.raises(StoreError, match=r"another zarr\.json is in force there"):
        copy_store(second, URL)
    assert fingerprint(URL) == fingerprint(other)


def test_foreign_objects_and_places_are_refused_and_left_alone(places, tmp_path):
    _, second = places
    Bucket(URL).put("holiday.jpg", b"dear to me")
    with pytest.raises(StoreError, match=r"found 'holiday.jpg', which no store holds"):
        copy_store(second, URL)
    assert content(Bucket(URL)) == {"holiday.jpg": b"dear to me"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").write_bytes(b"dear to me")
    with pytest.raises(StoreError, match=r"found 'holiday\.jpg', which no store holds"):
        copy_store(second, tmp_path / "mine")
    copy_store(second, f"{URL}2")
    with pytest.raises(StoreError, match="lies in it or around it"):
        copy_store(second, second)
    with pytest.raises(objects.SpecError, match="source and target are one place"):
        copy_store(f"{URL}2", f"{URL}2/")


def test_a_damaged_source_is_not_passed_on(places, tmp_path):
    _, second = places
    shard = second / "signals/north/000002/c/0/0/0"
    shard.write_bytes(b"tow")
    for target in (URL, tmp_path / "copy"):
        with pytest.raises(StoreError, match="content does not match its SHA-256"):
            copy_store(second, target)
        assert not place_at(target).sizes(["CURRENT"])


def test_a_snapshot_with_a_file_missing_is_never_put_in_force(places, monkeypatch):
    first, second = places
    copy_store(first, URL)
    real = Bucket.put
    monkeypatch.setattr(Bucket, "put", lambda self, *args: real(self, *args) or self.delete(["index/000002/row/c/0"]))
    with pytest.raises(StoreError, match="index/000002/row/c/0: found no file"):
        copy_store(second, URL)
    assert fingerprint(URL) == fingerprint(first)


# The lock


def test_a_second_writer_is_told_how_old_the_lock_is(places, tmp_path, monkeypatch):
    _, second = places
    bucket = Bucket(URL)
    with bucket_lock(bucket, tmp_path / "token"):
        start = time.perf_counter()
        with pytest.raises(LockHeld, match=rf"held the write lock for 0 seconds\. .*ecgcohorts unlock {URL}"):
            copy_store(second, URL)
        assert time.perf_counter() - start < 1
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3 * 3600)
        with pytest.raises(LockHeld, match="for 3 hours"):
            copy_store(second, URL)
        monkeypatch.undo()
    assert bucket.sizes() == {}


def test_a_lock_tells_a_token_and_a_time_only(places, tmp_path):
    bucket = Bucket(URL)
    with bucket_lock(bucket, tmp_path / "token"):
        note = bucket.get("lock")
    assert set(json.loads(note)) == {"token", "made"}


@pytest.mark.parametrize("left", [b"", b"{}", b'{"token": 1}', b"\xff"])
def test_a_lock_of_any_content_holds_until_it_is_removed_by_command(places, left):
    _, second = places
    Bucket(URL).put("lock", left)
    with pytest.raises(LockHeld, match="since an unknown time"):
        copy_store(second, URL)
    assert unlock(URL) == "unknown age"
    assert unlock(URL) is None
    assert copy_store(second, URL).written


def test_a_writer_whose_lock_was_taken_away_stops(places, monkeypatch):
    first, second = places
    copy_store(first, URL)
    real = Bucket.put

    def put(self, name, content, sha256=None):
        real(self, name, content, sha256)
        unlock(URL)

    monkeypatch.setattr(Bucket, "put", put)
    with pytest.raises(LockHeld, match="lock was removed while it was writing"):
        copy_store(second, URL)
    assert fingerprint(URL) == fingerprint(first)


@pytest.mark.parametrize("name", ["CURRENT", "manifest-000002.json"])
def test_of_two_that_write_in_spite_of_the_lock_one_wins(places, tmp_path, monkeypatch, name):
    """Somebody unlocked, and both go on: the second to finish is told, and the first one's snapshot stays."""
    first, second = places
    copy_store(first, URL)
    monkeypatch.setattr(_BucketLock, "check", lambda self: None)
    real = Bucket.replace if name == "CURRENT" else Bucket.put_new
    rival = write(tmp_path / "rival", 2, SECOND | {"rejects-000002.parquet": b""})

    def faster(self, asked, *args):
        if asked == name:
            with monkeypatch.context() as patch:
                patch.setattr(Bucket, "replace" if name == "CURRENT" else "put_new", real)
                unlock(URL)
                patch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
                copy_store(rival, URL)
        return real(self, asked, *args)

    monkeypatch.setattr(Bucket, real.__name__, faster)
    with pytest.raises(LockHeld):
        copy_store(second, URL)
    monkeypatch.setattr(Bucket, real.__name__, real)
    assert fingerprint(URL) == fingerprint(rival)


def test_answers_that_get_lost_are_not_taken_for_a_refusal(places, monkeypatch):
    """The request was granted, the answer lost, and the library asked again."""
    first, second = places
    copy_store(first, URL)
    monkeypatch.setattr("ecgcohorts.store.remote.bucket_lock._refuse_unconditional", lambda bucket: None)
    for name in ("put_new", "replace"):
        real = getattr(Bucket, name)
        monkeypatch.setattr(Bucket, name, lambda self, *args, real=real: bool(real(self, *args)) and False)
    copy_store(second, URL)
    assert fingerprint(URL) == fingerprint(second)
    assert "lock" not in Bucket(URL).sizes()


@pytest.mark.parametrize("ignored", ["create", "replace", "both"])
def test_an_object_store_that_ignores_conditions_is_refused(places, monkeypatch, ignored):
    _, second = places
    real = Bucket._put

    def put(self, name, content, mode, sha256=None):
        kind = "create" if mode == "create" else "replace"
        return real(self, name, content, None if ignored in (kind, "both") else mode, sha256)

    monkeypatch.setattr(Bucket, "_put", put)
    with pytest.raises(ObjectStoreError, match=r"ignores conditions on writes \(If-None-Match, If-Match\)"):
        copy_store(second, URL)
    assert Bucket(URL).sizes() == {}


def test_a_real_server_keeps_conditions(bucket_url):
    _refuse_unconditional(Bucket(bucket_url))
    assert Bucket(bucket_url).sizes() == {}
