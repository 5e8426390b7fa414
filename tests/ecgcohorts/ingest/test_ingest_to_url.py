"""Ingest into an object store: as into a folder, killed anywhere, by one writer at a time."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.errors import LockHeld, SpecError, StoreError
from ecgcohorts.ingest import IngestOptions, ingest, plan_to_file, run
from ecgcohorts.io.buckets import Bucket

OPTIONS = IngestOptions(shard_records=3, quality=False)


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch) -> Path:
    """The user's cache, where the work folder is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ecgcohorts"


@pytest.fixture
def url(bucket_url: str) -> str:
    return f"{bucket_url}/s.zarr"


def content(place: str | Path) -> dict[str, bytes]:
    if isinstance(place, str):
        bucket = Bucket(place)
        return {name: bucket.get(name) for name in bucket.sizes()}
    files = (path for path in place.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}


def test_the_same_objects_as_files_and_nothing_else(make_cohort, tmp_path, url, work, monkeypatch):
    north, south = make_cohort("north", 4), make_cohort("south", 3, seed=1)
    south.add("copy", next(iter(north.signals.values())))
    folder = tmp_path / "s.zarr"
    for raw in (north, south):
        local = ingest(raw.folder, folder, str(raw.spec), OPTIONS)
    first = ingest(north.folder, url, str(north.spec), OPTIONS)
    fetched, real = [], Bucket.get_range
    monkeypatch.setattr(Bucket, "get_range", lambda self, name, *at: fetched.append(name) or real(self, name, *at))
    second = ingest(south.folder, url, str(south.spec), OPTIONS)
    assert not fetched  # nothing of the signals that were there
    assert first.written
    assert second.accounting == local.accounting
    assert second.fingerprint == local.fingerprint
    assert second.store == url
    assert content(url) == content(folder)
    assert not any(b"CANARY" in data or b"bucket-" in data for data in content(url).values())
    assert not any(work.iterdir())
    again = ingest(south.folder, url, str(south.spec), OPTIONS)
    assert (again.written, again.known) == (False, second.total.inputs)
    assert content(url) == content(folder)
    assert not any(work.iterdir())
    assert ec.verify(url).ok


def test_a_dry_run_writes_nothing(make_cohort, url, work):
    raw = make_cohort()
    report = ingest(raw.folder, url, str(raw.spec), IngestOptions(dry_run=True))
    assert report.plan_rows == len(raw.signals)
    assert content(url) == {}
    assert not work.exists()


def test_killed_anywhere_it_goes_on_without_decoding_again(make_cohort, memory_url, work, kill_at, monkeypatch):
    """Where only files are sent, tests/ecgcohorts/store/test_targets.py does it at every single request."""
    north, south = make_cohort("north", 1), make_cohort("south", 2, seed=1)
    encoded: list[object] = []
    real = run.EncodeTask.encode
    monkeypatch.setattr(run.EncodeTask, "encode", lambda task: encoded.append(task) or real(task))
    before = 0
    for at in range(0, 400, 24):
        url = f"{memory_url}{at}"
        old = ingest(north.folder, url, str(north.spec), OPTIONS).fingerprint
        with kill_at(at) as killed:
            ingest(south.folder, url, str(south.spec), OPTIONS)
        if not killed:
            break
        in_force = ec.open(url).fingerprint
        before += in_force == old
        problems = ec.verify(url).problems
        assert all(problem.endswith("not in the manifest") for problem in problems), problems
        kept = any(work.rglob("*.npz"))
        encoded.clear()
        assert ingest(south.folder, url, str(south.spec), OPTIONS).written == (in_force == old)
        assert bool(encoded) == (in_force == old and not kept)
        assert ec.verify(url).ok
        assert "lock" not in content(url)
        assert not any(work.iterdir())
    assert not killed
    assert before > 6


KILLED = """
import os, signal, sys
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io.buckets import Bucket
name, real = sys.argv[4], getattr(Bucket, sys.argv[4])
def stop(self, what, *args):
    if name == "put" or what == "CURRENT":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, what, *args)
setattr(Bucket, name, stop)
ingest(sys.argv[1], sys.argv[2], sys.argv[3], IngestOptions(shard_records=3, quality=False))
"""


@pytest.mark.parametrize("at", ["put", "replace"])
def test_a_killed_process_leaves_its_lock_to_its_next_run(make_cohort, url, tmp_path, at):
    """SIGKILL before the first file, and before CURRENT."""
    raw = make_cohort(patients=2)
    command = [sys.executable, "-c", KILLED, str(raw.folder), url, str(raw.spec), at]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(StoreError, match="found nothing there"):
        ec.open(url)
    start = time.perf_counter()
    elsewhere = IngestOptions(shard_records=3, quality=False, work=tmp_path / "elsewhere")
    with pytest.raises(LockHeld, match=rf"held the write lock for \d+ seconds\. .*ecgcohorts unlock {url}"):
        ingest(raw.folder, url, str(raw.spec), elsewhere)
    assert time.perf_counter() - start < 1
    assert ingest(raw.folder, url, str(raw.spec), OPTIONS).written
    assert ec.verify(url).ok


def test_two_runs_on_one_machine_are_told_apart_too(make_cohort, url):
    raw = make_cohort(patients=2)
    real = Bucket.put

    def put(self, name, *args):
        with pytest.raises(LockHeld, match="another run has held the write lock"):
            ingest(raw.folder, url, str(raw.spec), OPTIONS)
        return real(self, name, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bucket, "put", put)
        assert ingest(raw.folder, url, str(raw.spec), OPTIONS).written


def test_an_error_leaves_no_lock(make_cohort, url, work):
    raw = make_cohort(patients=2)
    raw.add("short", next(iter(raw.signals.values()))[:, :100])
    with pytest.raises(ec.EcgError):
        ingest(raw.folder, url, str(raw.spec), IngestOptions(on_error="raise"))
    assert content(url) == {}


def test_a_work_folder_may_be_named(make_cohort, url, tmp_path, work):
    raw = make_cohort(patients=2)
    options = IngestOptions(shard_records=3, quality=False, work=tmp_path / "scratch")
    assert ingest(raw.folder, url, str(raw.spec), options).written
    assert not any((tmp_path / "scratch").iterdir())
    assert not work.exists()
    with pytest.raises(SpecError, match="only a store at a URL needs a work folder"):
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), options)


def test_what_needs_a_folder_says_so(make_cohort, url, tmp_path):
    raw = make_cohort(patients=1)
    with pytest.raises(StoreError, match=rf"ecgcohorts copy {url} FOLDER"):
        plan_to_file(raw.folder, url, str(raw.spec), tmp_path / "plan")
    with pytest.raises(SpecError, match="ecgcohorts copy FOLDER URL"):
        ingest(raw.folder, url, str(raw.spec), IngestOptions(runner=ec.ingest.runners.Dask("tcp://127.0.0.1:1")))
    assert content(url) == {}


def test_in_a_terminal(make_cohort, url, tmp_path, monkeypatch, capsys):
    raw = make_cohort(patients=2)
    monkeypatch.chdir(tmp_path)

    def say(*arguments: object, code: int = 0) -> str:
        try:
            cli.main([str(argument) for argument in arguments])
            ended: object = 0
        except SystemExit as end:
            ended = end.code
        said = capsys.readouterr()
        assert ended == code, said.err
        assert "127.0.0.1" not in said.out + said.err
        return said.out + said.err

    assert f"{url}: 3 inputs = 3 stored" in say("ingest", raw.folder, url, "--cohort", raw.spec, "--work", "w")
    assert "all as committed" in say("verify", url)
    assert "3 recordings of 2 patients" in say("info", url)
    assert "2" in say("table1", url)
    assert "files sent" in say("copy", url, "copy.zarr")
    assert "has this snapshot already" in say("copy", "copy.zarr", url)
    assert "had no lock" in say("unlock", url)
    Bucket(url).put("lock", b'{"token": "00000000000000000000000000000000", "made": 0}')
    assert f"ecgcohorts unlock {url}" in say("copy", "copy.zarr", url, code=2)
    assert "days ago" in say("unlock", url)
    assert f"ecgcohorts copy {url} FOLDER" in say("remove", url, "north", "1", code=2)
    assert "this is no URL of an object store" in say("unlock", "copy.zarr", code=2)
