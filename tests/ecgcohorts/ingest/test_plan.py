"""The plan: rows in their order, a file that others can work from, and three steps that make what one call makes."""

import fcntl
import hashlib
import importlib.metadata
import os
import random
import shutil
import stat
import subprocess
import sys
import tracemalloc
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.ingest import IngestOptions, commit_plan, encode_partition, ingest, plan_to_file
from ecgcohorts.ingest._ids import ids_of
from ecgcohorts.ingest.commit import _spans
from ecgcohorts.ingest.plan import AnyPlan, Request
from ecgcohorts.ingest.planning import Known, make_plan
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.privacy.pseudonyms import PseudonymKey, load_key
from ecgcohorts.recording import Recording
from ecgcohorts.sources import open_source
from ecgcohorts.sources.names import path_of, uri_of
from ecgcohorts.store.commit import writer_lock

KEY = PseudonymKey(b"k" * 32)
OPTIONS = IngestOptions(shard_records=3)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def header(name: str, patient: str, time: datetime | None) -> Recording:
    empty, one = np.zeros((1, 0), np.int32), np.ones(1)
    fields = {"Patient ID": patient, "Age": "50.5", "AF": "1"} | ({"Date": time.isoformat()} if time else {})
    return Recording(
        name, ("I",), 500.0, empty, one, one, n_samples=5000, patient_id=patient, acquired_at=time, fields=fields
    )


def request_of(spec: Path, folder: Path) -> Request:
    return Request(
        source=uri_of(folder), store=uri_of(folder / "s.zarr"), spec=CohortSpec.load(str(spec)), recipe=CAPE_V1,
        shard_records=5, quality=True, on_error="quarantine", key_fingerprint=KEY.fingerprint, generation=1, base="",
        versions={},
    )  # fmt: skip


@pytest.fixture
def scanned(monkeypatch, make_cohort, tmp_path):
    """scanned(items) plans those items as if they had been found below a folder."""

    def plan(items, known=None):
        monkeypatch.setattr(Found, "scan", lambda files, *_: iter(items))
        asked = request_of(make_cohort(patients=0).spec, tmp_path)
        return make_plan(asked, Found(asked.spec.layouts[0], open_source(tmp_path)), KEY, known or Known())

    return plan


def rows_of(plan, name: str) -> list:
    return [value for part in plan.header.partitions for value in plan.rows(part, [name])[name].to_pylist()]


def some_items(count: int, seed: int) -> list[SourceItem]:
    rng = random.Random(seed)
    times = [None, *(datetime(2010, 1, 1) + timedelta(days=day / 4) for day in range(4))]
    items = []
    for number in range(count):
        patient = rng.choice([f"P{n}" for n in range(9)])
        items.append(SourceItem(f"a/r{number:03d}.hea", "", header(f"r{number}", patient, rng.choice(times))))
    return items


@pytest.mark.parametrize("seed", range(3))
def test_rows_stand_in_the_order_written_out_by_hand(scanned, seed):
    items = some_items(60, seed)
    plan = scanned(items)

    def place(item):
        patient = KEY.pseudonym("north", "patient", item.header.patient_id)
        return KEY.pseudonym("north", "order", patient.hex()), item.header.acquired_at or datetime.max, item.stem

    expected = sorted(items, key=place)
    assert rows_of(plan, "path") == [item.path.encode() for item in expected]
    assert rows_of(plan, "recording_id") == [KEY.pseudonym("north", "recording", item.stem) for item in expected]
    days = rows_of(plan, "days")
    for item, day in zip(expected, days, strict=True):
        own = [one.header.acquired_at for one in items if one.header.patient_id == item.header.patient_id]
        first = min(time for time in own if time) if any(own) else None
        since = np.nan if item.header.acquired_at is None else (item.header.acquired_at - first).total_seconds() / 86400
        np.testing.assert_equal(day, np.float32(since))
    assert [part.rows for part in plan.header.partitions] == [5] * 12
    assert plan.header.n_rows == 60


def test_ids_met_before_or_twice_are_counted_once(scanned):
    items = some_items(6, 0)
    first = scanned(items[:2])
    ids = np.concatenate(
        [ids_of(first.rows(part, ["recording_id"])["recording_id"]) for part in first.header.partitions]
    )
    plan = scanned([*items, items[4]], Known(ids))
    assert plan.header.known == 2
    assert plan.header.n_rows == 4
    assert [one.reason for one in plan.refused("north")] == ["recording_id_twice"]
    again = np.frombuffer(plan.refused("north")[0].recording_id, np.uint8).reshape(1, 16)
    assert scanned([*items, items[4]], Known(np.concatenate([ids, again]))).header.known == 3


def test_a_plan_takes_little_room(scanned):
    def items(count):
        for number in range(count):
            path = f"files/p{number % 1000}/p1000{number:06d}/s4000{number:06d}/4000{number:06d}.hea"
            yield SourceItem(path, "", header("x", str(number // 4), datetime(2010, 1, 1)))

    scanned(items(16000))  # fills what pathlib and others keep for good
    peaks = []
    for count in (4000, 16000):
        tracemalloc.start()
        scanned(items(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 12000 < 190  # bytes a recording at the peak, 57 of them its path


@pytest.fixture
def planned(make_cohort, tmp_path):
    raw = make_cohort(patients=5)
    raw.add("CANARYcopy", next(iter(raw.signals.values())))
    (raw.folder / "CANARYjunk.hea").write_text("CANARY\n")
    path = tmp_path / "run.plan"
    plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), path, OPTIONS)
    return path


def test_three_steps_make_what_one_call_makes(make_cohort, tmp_path, planned):
    assert not (tmp_path / "s.zarr").exists()
    parts = len(AnyPlan.open(planned).header.partitions)
    assert parts == 4
    assert [encode_partition(planned, part) for part in reversed(range(parts))] == [True] * parts
    assert not encode_partition(planned, 1)
    report = commit_plan(planned)
    assert report.written
    raw = tmp_path / "raw_north"
    assert ingest(raw, tmp_path / "t.zarr", str(tmp_path / "north.yaml"), OPTIONS).total == report.total
    assert tree(tmp_path / "s.zarr") == tree(tmp_path / "t.zarr")
    again = commit_plan(planned)
    assert not again.written
    assert again.fingerprint == report.fingerprint
    with pytest.raises(ec.StoreError, match=r"another snapshot.*Plan again"):
        encode_partition(planned, 0)
    with pytest.raises(ec.SourceError, match="nothing new: all 11 inputs"):
        plan_to_file(raw, tmp_path / "s.zarr", str(tmp_path / "north.yaml"), planned, OPTIONS)


def test_commit_names_what_is_missing_and_where_it_stopped(tmp_path, planned):
    encode_partition(planned, 1)
    with pytest.raises(ec.StoreError, match=r"missing partitions 0, 2-3 of 4"):
        commit_plan(planned)
    [shard] = (tmp_path / "s.zarr").rglob("*.shard")
    shard.write_bytes(shard.read_bytes()[:-1])
    shard.with_name("north-2.on").write_text("ab" * 16 + " 000000001")
    with pytest.raises(ec.StoreError, match=r"missing partitions 0-3 of 4.*Partition 2 stopped.*abababab"):
        commit_plan(planned)
    assert _spans([0, 1, 3, 5, 6, 7]) == "0-1, 3, 5-7"


@pytest.mark.parametrize("number", [4, -1])
def test_a_partition_out_of_range_is_refused(planned, number):
    with pytest.raises(ec.SpecError, match=rf"found partition {number}, expected 0 to 3: this plan has 4"):
        encode_partition(planned, number)


def test_a_plan_is_for_its_owner_only_and_holds_no_key(planned, tmp_path):
    script = (
        "import os, sys; os.umask(0); from pathlib import Path; from ecgcohorts.ingest.plan import *\n"
        "plan = AnyPlan.open(Path(sys.argv[1])); plan.write(Path(sys.argv[2]))"
    )
    copy = tmp_path / "copy.plan"
    subprocess.run([sys.executable, "-c", script, planned, copy], check=True)
    for path in (planned, copy):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        data = path.read_bytes()
        assert load_key().secret not in data
        assert load_key().secret.hex().encode() not in data
        assert b"CANARYPAT" not in data
    assert copy.read_bytes() == planned.read_bytes()


def test_what_a_killed_plan_left_is_deleted_and_what_is_being_written_is_not(planned):
    """Both name paths of the input. The living writer holds a lock, which a death takes away."""
    of_the_dead, of_the_living, another = (
        planned.with_name(f"{name}.part") for name in ("run.plan.0123abcd", "run.plan.89abcdef", "run.planned.0123abcd")
    )
    for path in (of_the_dead, of_the_living, another):
        path.write_bytes(b"PAR1")
    with of_the_living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        AnyPlan.open(planned).write(planned)
    assert [path.exists() for path in (of_the_dead, of_the_living, another)] == [False, True, True]
    AnyPlan.open(planned).write(planned)
    assert sorted(path.name for path in planned.parent.glob("*.part")) == [another.name]


def test_paths_of_the_input_stay_out_of_the_store(tmp_path, planned):
    encode_partition(planned, 0)
    for path in (tmp_path / "s.zarr").rglob("*"):
        assert "CANARY" not in path.name
        assert not path.is_file() or b"CANARY" not in path.read_bytes()


def test_any_damage_to_a_plan_is_told(planned, tmp_path):
    data, damaged = planned.read_bytes(), tmp_path / "damaged.plan"
    whole = AnyPlan.open(planned)
    rows = [whole.rows(part).to_pylist() for part in whole.header.partitions]
    rng, undetected = random.Random(0), 0
    for _ in range(150):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(changed)
        try:
            plan = AnyPlan.open(damaged)
            read = [plan.rows(part).to_pylist() for part in plan.header.partitions]
        except ec.SpecError:
            continue
        assert plan.header == whole.header
        assert str(read) == str(rows)  # a flip in what nobody reads: a statistic, a name of the writer
        undetected += 1
    assert undetected < 100  # about 60 of 150 by the share of such bytes; a plan without sums would leave far more
    for size in range(0, len(data), 97):
        damaged.write_bytes(data[:size])
        with pytest.raises(ec.SpecError, match="plan"):
            AnyPlan.open(damaged)


def test_what_is_no_plan_is_refused_and_never_replaced(make_cohort, tmp_path):
    raw, other = make_cohort(patients=2), tmp_path / "mine.parquet"
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    shutil.copy(next((tmp_path / "s.zarr").glob("rejects-*")), other)
    raw.add("later", np.roll(next(iter(raw.signals.values())), 400, axis=1))
    for path in (other, raw.spec):
        before = path.read_bytes()
        with pytest.raises(ec.SpecError, match="plan"):
            commit_plan(path)
        with pytest.raises(ec.SpecError, match="no whole plan"):
            plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), path)
        assert path.read_bytes() == before
    with pytest.raises(ec.SpecError, match="no readable plan"):
        encode_partition(tmp_path / "none.plan", 0)
    for inside in (tmp_path / "s.zarr", raw.folder):
        with pytest.raises(ec.SpecError, match="outside of input and store"):
            plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), inside / "run.plan")
    with pytest.raises(ec.SourceError, match="expected one to write the plan into"):
        plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), tmp_path / "none" / "run.plan")


def rewritten(path: Path, **changes) -> Path:
    plan = AnyPlan.open(path)
    changed = plan.header.model_copy(update=changes)
    object.__setattr__(plan, "header", changed)
    other = path.with_name("other.plan")
    plan.write(other)
    return other


def test_another_version_of_a_library_is_refused(planned):
    other = rewritten(planned, versions={**AnyPlan.open(planned).header.versions, "numpy": "1.0"})
    for step in (lambda: encode_partition(other, 0), lambda: commit_plan(other)):
        with pytest.raises(ec.SpecError, match=r"planned with numpy 1\.0.*Use one environment"):
            step()


def test_a_checkout_that_was_never_installed_plans_all_the_same(monkeypatch):
    known = importlib.metadata.version

    def version(name):
        if name == "ecgcohorts":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert Request.versions_here()["ecgcohorts"] == ec.__version__


def test_a_plan_never_leads_out_of_its_source(scanned, tmp_path):
    plan = scanned([SourceItem("a/../../secret.hea", "", header("x", "P", None))])
    plan.write(tmp_path / "x.plan")
    with pytest.raises(ec.SpecError, match="leads out of the source"):
        encode_partition(rewritten(tmp_path / "x.plan", versions={}), 0)


KILLED_WHILE_PLANNING = """
import os, signal, sys
from ecgcohorts.cli.program import main
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)  # all is written, under a name aside
main(sys.argv[1:])
"""


def test_what_a_killed_plan_left_is_cleared_and_what_another_writes_is_not(make_cohort, tmp_path):
    raw, out = make_cohort(patients=2), tmp_path / "run.plan"
    words = ["plan", raw.folder, tmp_path / "s.zarr", "--cohort", raw.spec, "-o", out]
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_PLANNING, *map(str, words)])
    assert killed.returncode == -9
    [left] = tmp_path.glob("run.plan.*.part")
    assert stat.S_IMODE(left.stat().st_mode) == 0o600  # it names paths of the input
    other = tmp_path / "run.plan.01234567.part"
    with other.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as a process that is still writing does
        (tmp_path / "run.plan.notes.part").touch()
        plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), out)
        assert sorted(path.name for path in tmp_path.glob("*.part")) == [other.name, "run.plan.notes.part"]
    plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), out)
    assert [path.name for path in tmp_path.glob("*.part")] == ["run.plan.notes.part"]


def test_another_commit_of_the_same_version_is_refused(planned, tmp_path):
    """Two checkouts that differ in a line, as on two nodes of a cluster."""
    copy = tmp_path / "elsewhere" / "ecgcohorts"
    shutil.copytree(Path(ec.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "ecgcohorts.cli", "encode", str(planned), "--partition", "0"]
    there = {"cwd": copy.parent, "env": os.environ | {"PYTHONPATH": str(copy.parent)}}
    run = partial(subprocess.run, command, capture_output=True, text=True, **there)
    with (copy / "preprocess" / "filter.py").open("a") as file:
        file.write("# another commit\n")
    refused = run()
    assert refused.returncode == 2
    assert "planned with another commit of ecgcohorts" in refused.stderr
    shutil.copy(Path(ec.__file__).parent / "preprocess" / "filter.py", copy / "preprocess")
    assert run().returncode == 0, run().stderr


def test_names_that_are_no_text_survive_a_plan(tmp_path):
    strange = tmp_path / os.fsdecode(b"caf\xe9 #1")
    assert path_of(uri_of(strange)) == strange


def test_a_commit_in_between_makes_a_plan_stale_and_clears_it(make_cohort, tmp_path, planned):
    encode_partition(planned, 0)
    staged = tmp_path / "s.zarr" / ".staging"
    south = make_cohort("south", 2, seed=1)
    with writer_lock(tmp_path / "s.zarr"):
        encode_partition(planned, 1)  # needs no lock
    assert len(list(staged.rglob("*.shard"))) == 2
    ingest(south.folder, tmp_path / "s.zarr", str(south.spec), OPTIONS)
    assert not staged.exists()
    before = tree(tmp_path / "s.zarr")
    for step in (lambda: encode_partition(planned, 2), lambda: commit_plan(planned)):
        with pytest.raises(ec.StoreError, match=r"another snapshot.*another writer was faster. Plan again"):
            step()
    assert tree(tmp_path / "s.zarr") == before
    assert ec.verify(tmp_path / "s.zarr").ok


def test_an_ingest_that_is_not_done_leaves_a_plan_under_way_alone(make_cohort, tmp_path, planned, monkeypatch):
    encode_partition(planned, 0)
    south = make_cohort("south", 2, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("ecgcohorts.ingest.run._encode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ingest(south.folder, tmp_path / "s.zarr", str(south.spec), OPTIONS)
    assert not encode_partition(planned, 0)
    for part in range(1, 4):
        encode_partition(planned, part)
    assert commit_plan(planned).written
    assert ec.verify(tmp_path / "s.zarr").ok


def test_a_commit_while_a_partition_is_encoded_leaves_no_litter(make_cohort, tmp_path, planned, monkeypatch):
    import ecgcohorts.ingest.run as run

    south = make_cohort("south", 2, seed=1)
    real = run.EncodeTask.encode

    def overtaken(task):
        real(task)
        monkeypatch.setattr(run.EncodeTask, "encode", real)
        ingest(south.folder, tmp_path / "s.zarr", str(south.spec), OPTIONS)
        real(task)  # its last writes, after the commit

    monkeypatch.setattr(run.EncodeTask, "encode", overtaken)
    with pytest.raises(ec.StoreError, match="another writer was faster"):
        encode_partition(planned, 0)
    assert ec.verify(tmp_path / "s.zarr").ok


def test_a_plan_of_refusals_only_is_committed(make_cohort, tmp_path):
    raw = make_cohort(patients=0)
    raw.folder.mkdir()
    (raw.folder / "junk.hea").write_text("CANARY\n")
    path = tmp_path / "run.plan"
    assert plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), path).partitions == ()
    with pytest.raises(ec.SpecError, match="nothing to encode, commit it"):
        encode_partition(path, 0)
    assert commit_plan(path).total.rejected == {"bad_header": 1}
    assert not commit_plan(path).written
