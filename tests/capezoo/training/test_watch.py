"""A process of several that stands still ends the run with its name, in real processes that torchrun started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capezoo.training.run_folder import RunFolder
from capezoo.training.watch import Watch

SCRIPT = Path(__file__).with_name("slow_ranks.py")
STALL_S = 4.0


def launch(out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    return subprocess.Popen([*command, str(out), str(STALL_S), *more], stderr=subprocess.PIPE, text=True)


def wait_for(what, seconds: float = 90.0):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def rank(out: Path, number: int) -> dict | None:
    try:
        return json.loads((out / "ranks" / f"{number}.json").read_text())
    except (OSError, ValueError):
        return None


def test_a_frozen_process_is_named_and_the_run_goes_on_from_its_checkpoint(tmp_path):
    out = tmp_path / "run"
    launched = launch(out)
    frozen = wait_for(lambda: (told := rank(out, 1)) and told["step"] >= 2 and told["process"])
    os.kill(frozen, signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        status = wait_for(lambda: (told := RunFolder(out).last_status()) and told["state"] == "stalled" and told)
        assert time.monotonic() - stopped < 10 * STALL_S
    finally:
        os.kill(frozen, signal.SIGKILL)
        _, complaint = launched.communicate(timeout=120)
    assert f"nothing has moved for 4 s. Rank 1 does not answer (process {frozen})." in status["reason"]
    assert f"capezoo, rank 0: {status['reason']}" in complaint
    assert launched.returncode != 0
    again = launch(out)
    again.communicate(timeout=180)
    assert again.returncode == 0
    assert RunFolder(out).last_status()["state"] == "done"


def test_a_process_that_waits_for_its_data_is_named(tmp_path):
    launched = launch(tmp_path / "run", "1")
    _, complaint = launched.communicate(timeout=180)
    assert launched.returncode != 0
    status = RunFolder(tmp_path / "run").last_status()
    assert status["state"] == "stalled"
    process = rank(tmp_path / "run", 1)["process"]
    assert f"Rank 1 is reading a batch (process {process})." in status["reason"]
    assert status["reason"] in complaint


@pytest.mark.parametrize("beats", [True, False])
def test_one_process_has_nobody_to_watch(tmp_path, beats):
    with Watch(tmp_path / "ranks", 0, 1, 0.01, pytest.fail) as watch:
        if beats:
            watch.beat(1, "reading a batch")
        time.sleep(0.2)
    assert not (tmp_path / "ranks").exists()
