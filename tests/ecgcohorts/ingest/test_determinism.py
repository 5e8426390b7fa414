"""The bytes of a store depend on the input, the options and the key, and on nothing else about a run."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecgcohorts.ingest import IngestOptions, ingest

SCRIPT = """
import os, random, sys
umask, order, how, raw, spec, store = sys.argv[1:]
os.umask(int(umask, 8))
os.fsync = lambda handle: None  # as for all tests here
walk = os.walk
def shuffled(*args, **kwargs):
    for folder, folders, files in walk(*args, **kwargs):
        for names in (folders, files):
            names.sort()
            random.Random(order).shuffle(names)
        yield folder, folders, files
os.walk = shuffled
from ecgcohorts.ingest import IngestOptions, commit_plan, encode_partition, ingest, plan_to_file
if __name__ == "__main__":
    if how == "steps":
        header = plan_to_file(raw, store, spec, store + ".plan", IngestOptions(shard_records=3))
        numbers = list(range(len(header.partitions)))
        random.Random(order).shuffle(numbers)
        for number in numbers:
            encode_partition(store + ".plan", number)
        commit_plan(store + ".plan")
    else:
        ingest(raw, store, spec, IngestOptions(workers=int(how), shard_records=3))
"""
# umask, order of listing, how, PYTHONHASHSEED, TZ, LC_ALL
RUNS = [
    ("022", "0", "1", "0", "UTC", "C"),
    ("077", "1", "2", "7", "Asia/Tokyo", "C.UTF-8"),
    ("002", "2", "3", "99", "America/St_Johns", "POSIX"),
    ("027", "3", "steps", "random", "Pacific/Apia", "C.UTF-8"),
]


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


@pytest.fixture
def corpus(make_cohort):
    """Patients with several recordings, times that are equal or missing, copies, and files that are refused."""
    raw = make_cohort(patients=6)
    samples = next(iter(raw.signals.values()))
    for name in ("Ä", "b", "a"):
        rolled = np.roll(samples, 100 * (1 + len(raw.signals)), axis=1)
        raw.add(f"sub{name}", rolled, **{"Patient ID": "CANARYPAT0001"}, Date="2010-03-01T10:00:00")
        raw.add(f"none{name}", np.roll(rolled, 50, axis=1), **{"Patient ID": "CANARYPAT0001"})
    raw.add("copy", samples)
    raw.add("short", samples[:, :500])
    (raw.folder / "junk.hea").write_text("junk\n")
    return raw


def test_bytes_do_not_depend_on_how_or_where_it_ran(corpus, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    found = set()
    for number, (umask, order, how, seed, zone, locale) in enumerate(RUNS):
        cwd, store = tmp_path / f"cwd{number}", tmp_path / f"s{number}.zarr"
        cwd.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale, "PYTHONUTF8": "1"}
        source = corpus.folder if number % 2 else os.path.relpath(corpus.folder, cwd)
        command = [sys.executable, str(script), umask, order, how, str(source), str(corpus.spec), str(store)]
        subprocess.run(command, check=True, env=environment, cwd=cwd)
        found.add(digest(store))
    assert len(found) == 1


def test_bytes_do_not_depend_on_the_names_of_folders_or_on_what_was_there(corpus, tmp_path):
    moved = tmp_path / "other name"
    ingest(corpus.folder, tmp_path / "a.zarr", str(corpus.spec), IngestOptions(shard_records=4))
    corpus.folder.rename(moved)
    (tmp_path / "b.zarr").mkdir()
    ingest(moved, tmp_path / "b.zarr", str(corpus.spec), IngestOptions(shard_records=4))
    assert digest(tmp_path / "a.zarr") == digest(tmp_path / "b.zarr")
