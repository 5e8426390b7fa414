"""`verify` says that nothing else is there: links, folders and the content of `lock` count as well."""

import os
from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts.io.buckets import Bucket

STRANGE = {
    "link to the same bytes": lambda folder, out: (folder / "again").symlink_to(folder / "zarr.json"),
    "link that leads out": lambda folder, out: (folder / "signals" / "far").symlink_to(out),
    "link to nothing": lambda folder, out: (folder / "index" / "gone").symlink_to("nothing"),
    "link of a chunk's name": lambda folder, out: (folder / "signals/north/000001/c/9").symlink_to(out),
    "pipe": lambda folder, out: os.mkfifo(folder / "signals" / "pipe"),
    "empty folder": lambda folder, out: (folder / "signals" / "west").mkdir(),
    "empty folders": lambda folder, out: (folder / "signals/north/000009/c").mkdir(parents=True),
    "hidden folder": lambda folder, out: (folder / ".git").mkdir(),
    "empty staging": lambda folder, out: (folder / ".staging" / ("0" * 32)).mkdir(parents=True),
    "lock": lambda folder, out: (folder / "lock").write_bytes(b"a whole file system"),
    "folder for lock": lambda folder, out: [(folder / "lock").unlink(), (folder / "lock").mkdir()],
    "in lock": lambda folder, out: [(folder / "lock").unlink(), (folder / "lock" / "x").mkdir(parents=True)],
    "file": lambda folder, out: (folder / "signals" / "notes.txt").write_text("hello"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_it_is_named(hostile, tmp_path, case):
    before = {path.relative_to(hostile.folder).as_posix() for path in hostile.folder.rglob("*")}
    assert ec.verify(hostile.folder).ok
    STRANGE[case](hostile.folder, tmp_path)
    new = {path.relative_to(hostile.folder).as_posix() for path in hostile.folder.rglob("*")} - before
    problems = ec.verify(hostile.folder).problems
    assert {problem.split(":")[0].rstrip("/") for problem in problems} == new | ({"lock"} if "lock" in case else set())


def test_the_lock_of_a_bucket_is_the_note_of_a_writer(hostile, as_bucket):
    url = as_bucket(hostile.folder)
    Bucket(url).delete(["lock"])
    assert ec.verify(url).ok
    Bucket(url).put("lock", b'{"token": "' + b"0" * 32 + b'", "made": 1}')
    assert ec.verify(url).ok
    Bucket(url).put("lock", b"something else")
    assert [one.split(":")[0] for one in ec.verify(url).problems] == ["lock"]


def test_a_store_without_a_lock_file_is_whole(hostile):
    Path(hostile.folder / "lock").unlink()
    assert ec.verify(hostile.folder).ok
