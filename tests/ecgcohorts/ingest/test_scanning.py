"""Headers read by several processes: the same recordings in the same order, and errors without a trace of the input."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import MachineError
from ecgcohorts.ingest import IngestOptions, _scanning, plan_to_file
from ecgcohorts.ingest._scanning import _scanned
from ecgcohorts.sources import open_source


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_scanning, "_FEW", 4)
    monkeypatch.setattr(_scanning, "_BLOCK", 3)


def test_several_processes_plan_what_one_does(make_cohort, tmp_path):
    raw = make_cohort(patients=10)
    (raw.folder / "CANARYjunk.hea").write_text("CANARY\n")
    plans = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.plan"
        options = IngestOptions(workers=workers)
        plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), out, options)
        plans.append(out.read_bytes())
    assert plans[0] == plans[1]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_items_come_in_order_and_files_left_closed_stay_so(kind, make_cohort, tmp_path):
    import shutil

    raw = make_cohort(patients=10)
    where = raw.folder if kind == "folder" else shutil.make_archive(str(tmp_path / "raw"), "zip", raw.folder)
    left_closed = sorted(raw.signals)[3]
    with open_source(where) as source:
        files = CohortSpec.load(str(raw.spec)).find(source)
        found = [
            [item.path for item in _scanned(files, None, lambda path, _: left_closed in path, workers)]
            for workers in (1, 2)
        ]
    assert found[0] == found[1]
    assert len(found[0]) == len(raw.signals) - 1


def test_an_error_of_the_machine_is_one_without_the_trace_of_its_process(make_cohort, monkeypatch):
    raw = make_cohort(patients=10)
    with open_source(raw.folder) as source:
        files = CohortSpec.load(str(raw.spec)).find(source)
        names = [*files.paths(), "CANARYgone.hea"]
        with pytest.raises(MachineError) as caught:
            list(_scanned(files, names, None, 2))
    assert caught.value.__cause__ is None
    assert "CANARY" not in str(caught.value)


def test_where_a_process_is_killed_reading_goes_on_in_this_one(make_cohort, monkeypatch, caplog):
    raw = make_cohort(patients=10)
    monkeypatch.setattr(_scanning, "_begin", _die)
    with open_source(raw.folder) as source:
        files = CohortSpec.load(str(raw.spec)).find(source)
        found = [item.path for item in _scanned(files, None, None, 2)]
        assert found == list(files.paths())
    [told] = [one.message for one in caplog.records if "reads headers" in one.message]
    assert "going on in this process" in told


@pytest.mark.parametrize("last", [1, 4, 5, 6])
def test_nothing_is_lost_where_no_more_blocks_can_be_sent(last, make_cohort, monkeypatch):
    """Processes may die between an answer and the next question, which then raises as it is sent."""
    raw = make_cohort(patients=10)
    real, sent = _scanning.ProcessPoolExecutor.submit, []

    def submit(pool, *arguments):
        sent.append(arguments)
        if len(sent) > last:
            raise BrokenProcessPool
        return real(pool, *arguments)

    monkeypatch.setattr(_scanning.ProcessPoolExecutor, "submit", submit)
    with open_source(raw.folder) as source:
        files = CohortSpec.load(str(raw.spec)).find(source)
        assert [item.path for item in _scanned(files, None, None, 2)] == list(files.paths())
    assert len(sent) == last + 1


def test_a_script_without_a_guard_reads_all_the_same(make_cohort, tmp_path):
    raw = make_cohort(patients=10)
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from ecgcohorts.ingest import IngestOptions, _scanning, ingest\n"
        "_scanning._FEW = 4\n"
        f"report = ingest({str(raw.folder)!r}, 's.zarr', {str(raw.spec)!r}, IngestOptions(workers=2, dry_run=True))\n"
        "print('planned', report.plan_rows)\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"planned {len(raw.signals)}\n"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc shows which processes have started")
def test_an_interrupt_while_processes_start_is_one_line(make_cohort, tmp_path):
    raw = make_cohort(patients=10)
    script = tmp_path / "guarded.py"
    words = ["plan", raw.folder, tmp_path / "s.zarr", "--cohort", raw.spec, "-o", tmp_path / "run.plan", "-j", 2]
    script.write_text(
        "from ecgcohorts.cli.program import main\n"
        "from ecgcohorts.ingest import _scanning\n"
        "from ecgcohorts.ingest import planning\n"
        "import signal, time\n"
        # Whatever started this test may ignore interrupts, as a shell does for what it runs in the background.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "_scanning._FEW = 4\n"
        "scanned = planning._scanned\n"
        "def slowly(*arguments):\n"
        "    for item in scanned(*arguments):\n"
        "        yield item\n"
        "        time.sleep(0.5)\n"
        "planning._scanned = slowly\n"
        f"if __name__ == '__main__':\n    main({[*map(str, words)]!r})\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not (children.exists() and len(children.read_text().split()) > 1):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert "Traceback" not in told, told
    assert process.returncode == 130


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
