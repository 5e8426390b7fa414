"""A Dask cluster as it is in life: processes started by hand, workers that come late, a scheduler that dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.ingest.runners import Dask

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'ecgcohorts[dask]'")
PATIENCE_SECONDS = 60


def until(happened: Callable[[], object]) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


class Cluster:
    """`dask scheduler` and `dask worker`, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []
        self.file = folder / "scheduler.json"

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments]
        # Each writes into a file: a pipe that nobody empties would stop it.
        with (self.folder / "cluster.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        self.processes.append(process)
        return process

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        self.file.unlink(missing_ok=True)
        scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file)
        )
        until(self.file.exists)
        return scheduler

    @property
    def address(self) -> str:
        with distributed.Client(scheduler_file=str(self.file)) as client:
            return str(client.scheduler_info()["address"])

    def start_worker(self, processes: int = 1) -> None:
        self._start(
            "worker", "--scheduler-file", str(self.file), "--nworkers", str(processes), "--nthreads", "1",
            "--no-dashboard", "--local-directory", str(self.folder),
        )  # fmt: skip

    def workers(self) -> int:
        with distributed.Client(scheduler_file=str(self.file)) as client:
            return len(client.nthreads())

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    made = Cluster(folder)
    yield made
    made.kill()


def most_at_once(lines: list[str]) -> int:
    """Return how many tasks ran at a time, from the times at which each began and ended."""
    running = most = 0
    for line in sorted(lines, key=lambda line: int(line.split()[1])):
        running += 1 if line.startswith("begin") else -1
        most = max(most, running)
    return most


def test_workers_that_come_late_are_given_work(cluster, tmp_path):
    cluster.start_scheduler()
    cluster.start_worker()
    until(lambda: cluster.workers() == 1)
    log = tmp_path / "times"
    task = f"echo begin $(date +%s%N) >> {log}; sleep 0.4; echo end $(date +%s%N) >> {log}"
    done = 0
    for _ in Dask(cluster.address).run((f"{task} # {number}" for number in range(60)), os.system):
        done += 1
        if done == 1:
            cluster.start_worker(processes=3)
    assert done == 60
    assert most_at_once(log.read_text().splitlines()) == 4


def test_a_cluster_without_workers_is_told_of_once_in_a_while(cluster, caplog, monkeypatch):
    monkeypatch.setattr(ec.ingest.runners, "_LONELY_SECONDS", 0.0)
    monkeypatch.setattr(ec.ingest.runners, "_LOOK_SECONDS", 0.1)
    cluster.start_scheduler()

    def told() -> list[str]:
        return [record.message for record in caplog.records if "has no worker" in record.message]

    def hire() -> None:
        until(lambda: len(told()) > 1)
        cluster.start_worker()

    thread = threading.Thread(target=hire)
    thread.start()
    try:
        assert list(Dask(cluster.address).run(["true"], os.system)) == ["true"]
    finally:
        thread.join()
    assert set(told()) == {"the Dask scheduler has no worker; waiting until one comes"}


def test_tasks_are_named_by_cohort_and_partition(cluster, make_cohort, tmp_path):
    cluster.start_scheduler()
    cluster.start_worker()
    raw = make_cohort(patients=4)
    with distributed.Client(cluster.address) as client, distributed.get_task_stream(client) as stream:
        options = IngestOptions(shard_records=2, runner=Dask(cluster.address))
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), options)
    names = sorted(task["key"].rpartition("-")[0] for task in stream.data)
    assert names == [f"encode-north-{number}" for number in range(4)]


def test_a_lost_scheduler_is_one_line_and_the_same_command_goes_on(cluster, make_cohort, tmp_path):
    raw, store = make_cohort(patients=30), tmp_path / "s.zarr"

    def start_ingest() -> subprocess.Popen[str]:
        words = ["ingest", raw.folder, store, "--cohort", raw.spec, "--shard", 1, "--scheduler", cluster.address]
        command = [sys.executable, "-m", "ecgcohorts.cli", *map(str, words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    scheduler = cluster.start_scheduler()
    cluster.start_worker()
    first = start_ingest()
    until(lambda: len(list(store.glob(".staging/*/*.npz"))) > 2)
    scheduler.kill()
    _, complaint = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode == 2
    assert len(complaint.strip().splitlines()) == 1, complaint
    line = complaint
    assert "lost the Dask scheduler" in line
    assert "finished partitions are kept" in line
    assert not list(tmp_path.glob("*.plan"))
    finished = {path.name: path.stat().st_mtime_ns for path in store.glob(".staging/*/*.npz")}
    assert 2 < len(finished) < 60

    cluster.kill()
    cluster.start_scheduler()
    cluster.start_worker()
    second = start_ingest()
    _, complaint = second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 0, complaint
    alone = ingest(raw.folder, tmp_path / "alone.zarr", str(raw.spec), IngestOptions(shard_records=1))
    assert ec.open(store).fingerprint == alone.fingerprint
