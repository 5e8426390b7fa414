"""Runners: the same bytes from each, and a worker that dies is told with what it was at."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

import ecgcohorts as ec
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.ingest.encode import EncodeTask
from ecgcohorts.ingest.runners import Dask, InProcess, ProcessPool, WorkerDied

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'ecgcohorts[dask]'")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a scheduler with two worker processes of its own."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**options) as cluster:
        yield cluster.scheduler_address


def test_every_runner_makes_the_same_store(make_cohort, tmp_path, scheduler):
    raw = make_cohort(patients=6)
    runners = {"here": InProcess(), "pool": ProcessPool(2), "address": Dask(scheduler), "cluster": Dask(workers=2)}
    prints = set()
    for name, runner in runners.items():
        steps: list[tuple[str, int, int]] = []
        options = IngestOptions(shard_records=2, runner=runner)
        store = tmp_path / f"{name}.zarr"
        report = ingest(raw.folder, store, str(raw.spec), options, progress=lambda *step, to=steps: to.append(step))
        assert report.total.stored == len(raw.signals)
        told = [done for step, done, total in steps if (step, total) == ("encode", len(raw.signals))]
        assert len(told) == len(steps)
        assert (told[0], told[-1]) == (0, len(raw.signals))
        assert told == sorted(told)
        assert not list(tmp_path.glob("*.plan"))
        prints.add(report.fingerprint)
    assert len(prints) == 1


def test_dask_workers_are_processes_of_their_own(scheduler):
    with distributed.Client(scheduler) as client:
        found = client.run(os.getpid)
    assert len({*found.values(), os.getpid()}) == 3


def test_a_plan_for_other_machines_goes_where_it_is_told(make_cohort, tmp_path):
    raw, seen = make_cohort(patients=3), []

    class Elsewhere:
        elsewhere = True

        def run(self, tasks, encode):
            seen.append([path.name for path in tmp_path.rglob("*.plan")])
            for task in tasks:
                assert isinstance(task, int)
                encode(task)
                yield task

    for plan_file in (None, tmp_path / "mine.plan"):
        options = IngestOptions(shard_records=2, runner=Elsewhere(), plan_file=plan_file)
        ingest(raw.folder, tmp_path / f"{len(seen)}.zarr", str(raw.spec), options)
    assert seen == [["0.zarr.plan"], ["mine.plan"]]
    assert not list(tmp_path.rglob("*.plan"))


def test_a_run_killed_when_all_is_encoded_leaves_no_plan_once_it_is_given_again(make_cohort, tmp_path, monkeypatch):
    """A plan names the paths of the input. SIGKILL lets nobody delete it, so the test puts it back."""
    raw, plan = make_cohort(patients=3), tmp_path / "s.zarr.plan"

    class Elsewhere:
        elsewhere = True

        def run(self, tasks, encode):
            shutil.copy(plan, tmp_path / "kept")
            for task in tasks:
                encode(task)
                yield task

    options = IngestOptions(shard_records=2, runner=Elsewhere())
    with monkeypatch.context() as patch:
        patch.setattr("ecgcohorts.ingest.run.commit", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), options)
    shutil.move(tmp_path / "kept", plan)
    assert ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), options).written
    assert not plan.exists()


@pytest.mark.parametrize("runner", [InProcess(), ProcessPool(2)], ids=["here", "pool"])
def test_all_tasks_are_done_and_an_error_ends_the_rest(runner):
    assert sorted(runner.run(iter([0.0, 0.02, 0.01, 0.03]), time.sleep)) == [0.0, 0.01, 0.02, 0.03]
    assert list(runner.run([], time.sleep)) == []
    started = time.monotonic()
    with pytest.raises(ValueError, match="non-negative"):
        list(runner.run([-1.0, *[30.0] * 10], time.sleep))
    assert time.monotonic() - started < 20


def test_dask_gives_back_errors_as_they_are(scheduler):
    with pytest.raises(ValueError, match="non-negative"):
        list(Dask(scheduler).run([-1.0, 0.0, 0.0], time.sleep))
    assert sorted(Dask(scheduler).run([0.0, 0.01], time.sleep)) == [0.0, 0.01]


def test_dask_that_is_not_there_is_told():
    with pytest.raises(ec.SpecError, match="found no Dask scheduler at nonsense"):
        list(Dask("nonsense://x").run([0.0], time.sleep))
    for wrong in (Dask, ProcessPool):
        with pytest.raises(ec.SpecError, match="found workers=0"):
            wrong(workers=0)


@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGKILL, "killed by the system.*lack of memory"), (signal.SIGSEGV, "ended by signal 11")],
)
def test_a_worker_that_dies_is_told_with_its_task(number, how):
    with pytest.raises(WorkerDied, match=how) as death:
        list(ProcessPool(2).run([0, number], signal.raise_signal))
    assert death.value.task == number


def test_where_a_worker_died_is_told(make_cohort, tmp_path):
    raw = make_cohort(patients=5)

    class Deadly:
        elsewhere = False

        def run(self, tasks, encode):
            for task in tasks:
                assert isinstance(task, EncodeTask)
                if task.partition.number == 1:
                    task.files.now.parent.mkdir(parents=True, exist_ok=True)
                    task.files.now.write_text(f"{task.names[0]} 000000000")
                    raise WorkerDied(task, "was killed by the system, most likely for lack of memory")
                encode(task)
                yield task

    with pytest.raises(ec.EcgError, match=r"partition 1, at recording [0-9a-f]{32}: its process was killed"):
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(shard_records=3, runner=Deadly()))
    assert ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(shard_records=3)).written
    assert ec.verify(tmp_path / "s.zarr").ok


KILLED = """
import os, signal, sys
import ecgcohorts.ingest.encode as encode
from ecgcohorts.errors import EcgError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.ingest.runners import Dask, ProcessPool
os.fsync = lambda handle: None  # as for all tests here
raw, spec, store, runner = sys.argv[1:]
real = encode._encode_row
def deadly(task, row, name, rows):
    if task.partition.number == 1 and row == 2 and os.path.exists(store + ".deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(task, row, name, rows)
encode._encode_row = deadly
if __name__ == "__main__":
    try:
        ingest(raw, store, spec, IngestOptions(shard_records=3, runner={"pool": ProcessPool, "dask": Dask}[runner](workers=2)))
    except EcgError as error:
        print(error)
"""


@pytest.mark.parametrize(("runner", "how"), [("pool", "killed by the system"), ("dask", "for lack of memory")])
def test_a_worker_killed_while_it_encodes(make_cohort, tmp_path, monkeypatch, runner, how):
    monkeypatch.setenv(
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0"
    )  # tried once: each new process takes a second
    raw, script, store = make_cohort(patients=5), tmp_path / "run.py", tmp_path / "s.zarr"
    script.write_text(KILLED)
    (tmp_path / "s.zarr.deadly").touch()
    command = [sys.executable, str(script), str(raw.folder), str(raw.spec), str(store), runner]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "partition 1, at recording " in first.stdout, first
    assert how in first.stdout
    [named] = [word.rstrip(":") for word in first.stdout.split() if len(word.rstrip(":")) == 32]
    (tmp_path / "s.zarr.deadly").unlink()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
    assert named in set(ec.open(store).index.to_pandas()["recording_id"])
    assert not list(Path(store).rglob("*.on"))


def test_a_worker_starts_without_the_packages_that_it_does_not_use():
    script = (
        "import sys, ecgcohorts.ingest.encode, ecgcohorts.store\n"
        "assert not sys.modules.keys() & {'zarr', 'torch', 'wfdb', 'h5py', 'sklearn'}, sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
