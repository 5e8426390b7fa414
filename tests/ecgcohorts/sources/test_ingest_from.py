"""The store is the same, byte for byte, wherever the raw files come from; nothing of them stays anywhere else."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.ingest import IngestOptions, commit_plan, encode_partition, ingest, plan_to_file
from ecgcohorts.ingest.against import verify_against
from ecgcohorts.ingest.runners import Dask
from ecgcohorts.io.buckets import Bucket

KINDS = ("tar", "tar.gz", "tar.xz", "zip", "stored.zip", "bucket")
OPTIONS = IngestOptions(shard_records=3, quality=False)
SPEC = """\
name: north
title: A cohort made for a test
licence: CC0-1.0
citation: made for a test
mains_hz: 50
layouts:
  - reader: wfdb
    files: {include: ["**/*.hea"], exclude: ["**/*_s?.hea"]}
    tables: [{file: tables/persons.csv, key: record, match: stem}]
    patient: [{header: Patient ID}, {column: patient}]
    age: [{header: Age}, {column: age}]
    sex: {header: Sex}
    acquired_at: {header: Date}
"""


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def raw(make_cohort):
    """Records in folders, one of segments, one whose samples are missing, one that is none, a table, hidden files."""
    made = make_cohort(patients=4)
    made.spec.write_text(SPEC)
    folder = made.folder
    for number, path in enumerate(sorted(folder.iterdir())):
        if number % 3:
            (folder / f"d{number % 2}").mkdir(exist_ok=True)
            path.rename(folder / f"d{number % 2}" / path.name)
    for path in folder.rglob("*.dat"):  # a header and its samples are never apart
        path.rename(next(folder.rglob(f"{path.stem}.hea")).with_suffix(".dat"))
    samples = next(iter(made.signals.values()))
    for part, first in enumerate((0, 2500)):
        made.add(f"CANARYSEG_s{part}", np.roll(samples, 300, axis=1)[:, first : first + 2500])
    lines = ["CANARYSEG/2 12 500 5000", "CANARYSEG_s0 2500", "CANARYSEG_s1 2500", "# Patient ID: CANARYPAT0001"]
    (folder / "CANARYSEG.hea").write_text("\n".join(lines) + "\n")
    (folder / "CANARYjunk.hea").write_text("CANARY\n")
    made.add("CANARYgone", np.roll(samples, 700, axis=1), Age="44")
    (folder / "CANARYgone.dat").unlink()
    (folder / ".hidden.hea").write_text("hidden\n")
    (folder / "tables").mkdir()
    (folder / "tables" / "persons.csv").write_text("record,patient,age\nCANARYSEG,P,51\n")
    return made


@pytest.fixture
def expected(raw, tmp_path):
    """The store made from the folder."""
    report = ingest(raw.folder, tmp_path / "folder.zarr", str(raw.spec), OPTIONS)
    assert report.total.rejected == {"bad_header": 1, "missing_file": 1}
    assert report.total.stored > 6
    return tree(tmp_path / "folder.zarr")


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_bytes(kind, raw, expected, packed, tmp_path, temporary):
    source, store = packed(raw.folder, kind), tmp_path / "other.zarr"
    report = ingest(source, store, str(raw.spec), OPTIONS)
    assert tree(store) == expected
    assert not list(temporary.iterdir())
    again = ingest(source, store, str(raw.spec), OPTIONS)
    assert not again.written
    assert again.known == report.total.inputs
    assert verify_against(store, source, str(raw.spec)).ok
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "bucket"])
def test_two_workers_give_the_same_bytes(kind, raw, expected, packed, tmp_path, temporary):
    options = IngestOptions(shard_records=3, quality=False, workers=2)
    ingest(packed(raw.folder, kind), tmp_path / "other.zarr", str(raw.spec), options)
    assert tree(tmp_path / "other.zarr") == expected
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["tar", "zip", "bucket"])
def test_three_steps_give_the_same_bytes(kind, raw, expected, packed, tmp_path, temporary):
    plan = tmp_path / "run.plan"
    header = plan_to_file(packed(raw.folder, kind), tmp_path / "other.zarr", str(raw.spec), plan, OPTIONS)
    for part in reversed(header.partitions):
        assert encode_partition(plan, part.number)
    commit_plan(plan)
    assert tree(tmp_path / "other.zarr") == expected
    assert not list(temporary.iterdir())


def test_an_archive_below_one_top_folder_is_that_folder(raw, expected, packed, tmp_path):
    for kind in ("zip", "tar"):
        source = packed(raw.folder, kind, "a big cohort-1.0.3/")
        plan = tmp_path / f"{kind}.plan"
        ingest(source, tmp_path / f"{kind}.zarr", str(raw.spec), OPTIONS)
        assert tree(tmp_path / f"{kind}.zarr") == expected
        header = plan_to_file(source, tmp_path / f"{kind}2.zarr", str(raw.spec), plan, OPTIONS)
        for part in header.partitions:
            encode_partition(plan, part.number)
        commit_plan(plan)
        assert tree(tmp_path / f"{kind}2.zarr") == expected


def test_a_folder_that_a_layout_names_is_not_entered(raw, packed, tmp_path):
    """A preset such as ptb_xl names `records500/`: an archive of only that is read as it is."""
    shutil.rmtree(raw.folder / "tables")
    named = SPEC.replace('["**/*.hea"]', '["records/**/*.hea"]').replace("tables:", "#")
    raw.spec.write_text(named.replace("{column: patient}", "{reader: true}").replace(", {column: age}", ""))
    inside = tmp_path / "outer" / "records"
    shutil.copytree(raw.folder, inside)
    ingest(inside.parent, tmp_path / "folder.zarr", str(raw.spec), OPTIONS)
    ingest(packed(raw.folder, "zip", "records/"), tmp_path / "zip.zarr", str(raw.spec), OPTIONS)
    assert tree(tmp_path / "zip.zarr") == tree(tmp_path / "folder.zarr")


@pytest.mark.parametrize("kind", ["zip", "bucket"])
def test_a_trial_reads_no_more_than_it_needs(kind, raw, packed, tmp_path, temporary):
    options = IngestOptions(shard_records=3, quality=False, limit=3)
    source = packed(raw.folder, kind)
    ingest(source, tmp_path / "one.zarr", str(raw.spec), options)
    ingest(raw.folder, tmp_path / "two.zarr", str(raw.spec), options)
    assert tree(tmp_path / "one.zarr") == tree(tmp_path / "two.zarr")
    dry = IngestOptions(dry_run=True)
    assert ingest(source, tmp_path / "no.zarr", str(raw.spec), dry).plan_rows > 3
    assert not list(temporary.iterdir())


def test_files_are_removed_after_an_error_too(raw, packed, tmp_path, temporary, monkeypatch):
    (raw.folder / "CANARYjunk.hea").unlink()
    source = packed(raw.folder, "zip")
    for workers in (1, 2):
        strict = IngestOptions(shard_records=3, quality=False, on_error="raise", workers=workers)
        with pytest.raises(ec.EcgError, match="missing_file") as caught:
            ingest(source, tmp_path / "s.zarr", str(raw.spec), strict)
        assert "CANARY" not in str(caught.value)
        assert not list(temporary.iterdir())
    # The key of a test is random, and so is which recording comes first: without this one, it is the defect in any order.
    (gone,) = raw.folder.rglob("CANARYgone.hea")
    gone.unlink()
    source = packed(raw.folder, "zip")
    monkeypatch.setattr("ecgcohorts.ingest.encode.make_strip", lambda *_: 1 / 0)
    with pytest.raises(ec.EcgError, match="a defect"):
        ingest(source, tmp_path / "t.zarr", str(raw.spec), IngestOptions(on_error="raise"))
    assert not list(temporary.iterdir())


def test_a_killed_run_from_a_zip_is_resumed(raw, expected, packed, tmp_path, temporary):
    source, store = packed(raw.folder, "zip"), tmp_path / "other.zarr"
    script = (
        "import os, sys; import ecgcohorts.ingest.run as run; from ecgcohorts.ingest import IngestOptions, ingest\n"
        "real, done = run.EncodeTask.encode, []\n"
        "def encode(task):\n"
        "    real(task); done.append(1)\n"
        "    len(done) == 2 and os.kill(os.getpid(), 9)\n"
        "run.EncodeTask.encode = encode\n"
        "ingest(*sys.argv[1:], IngestOptions(shard_records=3, quality=False))"
    )
    run = subprocess.run([sys.executable, "-c", script, source, store, raw.spec], check=False)
    assert run.returncode == -9
    staged = {path.name: path.stat().st_mtime_ns for path in store.rglob("*.shard")}
    assert len(staged) == 2
    [left] = temporary.iterdir()  # what a kill leaves behind, for its owner only
    assert left.stat().st_mode & 0o777 == 0o700
    ingest(source, store, str(raw.spec), OPTIONS)
    assert tree(store) == expected
    assert list(temporary.iterdir()) == [left]


def test_sigterm_leaves_a_folder_in_tmpdir_at_worst(raw, packed, tmp_path, temporary):
    source, store = packed(raw.folder, "tar.gz"), tmp_path / "other.zarr"
    script = (
        "import sys, time; import ecgcohorts.ingest.run as run; from ecgcohorts.ingest import IngestOptions, ingest\n"
        "run.EncodeTask.encode = lambda task: (print('now', flush=True), time.sleep(60))\n"
        "ingest(*sys.argv[1:], IngestOptions(shard_records=3))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, source, store, raw.spec], stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGTERM)
    before = {path.name for path in tmp_path.iterdir()}
    assert len(list(temporary.iterdir())) <= 1
    time.sleep(0.1)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_nothing_of_the_input_comes_out(raw, packed, tmp_path, capsys, caplog):
    for kind in ("zip", "bucket"):
        store = tmp_path / f"{kind}.zarr"
        cli.main(["ingest", packed(raw.folder, kind), str(store), "--cohort", str(raw.spec), "--max-reject-frac", "1"])
        cli.main(["verify", str(store)])
        for path in store.rglob("*"):
            assert "CANARY" not in path.name
            assert not path.is_file() or b"CANARY" not in path.read_bytes()
    printed = capsys.readouterr()
    ours = [
        record.getMessage() for record in caplog.records if record.name != "werkzeug"
    ]  # the server, in this process
    assert "CANARY" not in "".join([printed.out, printed.err, *ours])


def test_a_compressed_tar_is_for_one_machine(raw, packed, tmp_path):
    source = packed(raw.folder, "tar.gz")
    with pytest.raises(SpecError, match=r"compressed tar.*gunzip"):
        plan_to_file(source, tmp_path / "s.zarr", str(raw.spec), tmp_path / "run.plan")
    with pytest.raises(SpecError, match=r"compressed tar.*gunzip"):
        ingest(source, tmp_path / "s.zarr", str(raw.spec), IngestOptions(runner=Dask("tcp://127.0.0.1:1")))


def test_an_archive_that_changes_meanwhile_is_refused(raw, packed, tmp_path, monkeypatch):
    import ecgcohorts.ingest.run as run

    source = Path(packed(raw.folder, "tar"))
    real = run.EncodeTask.encode

    def changed(task):
        os.utime(source, ns=(1, 1))
        real(task)

    monkeypatch.setattr(run.EncodeTask, "encode", changed)
    with pytest.raises(SourceError, match="the archive has changed since it was opened"):
        ingest(source, tmp_path / "s.zarr", str(raw.spec), OPTIONS)


def test_an_object_that_is_damaged_on_the_way_is_no_other_recording(raw, packed, tmp_path):
    """A bucket where one signal file is cut: that recording is refused, all others are stored."""
    source = packed(raw.folder, "bucket")
    whole = ingest(source, tmp_path / "whole.zarr", str(raw.spec), OPTIONS).total
    name = next(name for name in Bucket(source).sizes() if name.endswith(".dat") and "SEG" not in name)
    Bucket(source).put(name, b"\0\0")
    cut = ingest(source, tmp_path / "cut.zarr", str(raw.spec), OPTIONS).total
    assert cut.rejected == whole.rejected | {"truncated": 1}
    assert cut.stored == whole.stored - 1
