"""How a run ends is written down: collapsed, failed, died; and two processes never write one folder."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from torch import nn

from capezoo import encoders
from capezoo.cli import program as cli
from capezoo.specs import HeldOutSpec
from capezoo.training import loop, monitor
from capezoo.training.loop import pretrain
from capezoo.training.run_folder import RunFolder
from ecgcohorts.errors import LockHeld, ObjectStoreError, SourceError, StateMismatch

SLOW = """
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("tiny_runs", sys.argv[1])
tiny = importlib.util.module_from_spec(spec)
sys.modules["tiny_runs"] = tiny
spec.loader.exec_module(tiny)
from capezoo.training.loop import pretrain
pretrain(tiny.make_store(), tiny.make_config(), Path(sys.argv[2]), progress=lambda report: time.sleep(float(sys.argv[3])))
"""


def start(out: Path, seconds: float = 0.5) -> subprocess.Popen:
    """A run in a process of its own that rests after each step; returns once it trains."""
    helpers = Path(__file__).with_name("conftest.py")
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(helpers), str(out), str(seconds)])
    deadline = time.monotonic() + 60
    while not (out / "status.json").is_file():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return process


class Equal(nn.Module):
    """Features that no signal changes, with a weight so that it can be trained."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.bias.expand(len(x), 8)


def test_a_collapsed_run_ends_with_a_state_of_its_own(store, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encoders, "build", lambda spec, seed, num_classes=0: Equal())
    run = pretrain(store, config(max_steps=3), tmp_path / "run")
    status = RunFolder(run).last_status()
    assert (status["state"], status["step"]) == ("collapsed", 3)
    assert status["val_loss"] == pytest.approx(status["val_untrained"], rel=1e-4)  # the loss is at its bound
    cli.main(["status", str(run)])
    assert "collapsed: all recordings have the same features; 3 of 3 steps" in capsys.readouterr().out


def test_a_run_that_was_not_measured_is_done(store, config, tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "build", lambda spec, seed, num_classes=0: Equal())
    run = pretrain(store, config(max_steps=2, held_out=HeldOutSpec(fraction=0)), tmp_path / "run")
    assert RunFolder(run).last_status()["state"] == "done"


def test_spread_tells_equal_rows_from_rows_that_differ():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 6, generator=generator)
    assert monitor.spread(rows) == pytest.approx(1, abs=0.1)
    assert monitor.spread(rows[:1].expand(50, 6)) < 1e-12
    assert monitor.spread(torch.zeros(50, 6)) == 0
    assert monitor.spread(1000 + rows) < monitor.COLLAPSED < monitor.spread(10 + rows)


@pytest.mark.parametrize(
    ("error", "state"), [(ObjectStoreError("gone"), "failed"), (OSError("stale"), "failed"), (KeyboardInterrupt(), "interrupted")]
)  # fmt: skip
def test_whatever_ends_a_run_is_its_state(store, config, tmp_path, error, state):
    def stop(report):
        if report.step == 4:
            raise error

    with pytest.raises(type(error)):
        pretrain(store, config(), tmp_path / "run", progress=stop)
    status = RunFolder(tmp_path / "run").last_status()
    assert (status["state"], status["step"]) == (state, 4)
    assert status["reason"] == (str(error) or type(error).__name__)
    pretrain(store, config(), tmp_path / "run")
    assert RunFolder(tmp_path / "run").last_status()["state"] == "done"


def test_a_killed_run_is_not_running(tmp_path, capsys):
    process = start(tmp_path / "run")
    try:
        assert RunFolder(tmp_path / "run").last_status()["state"] == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "running"
    assert RunFolder(tmp_path / "run").last_status()["state"] == "died"
    cli.main(["status", str(tmp_path / "run")])
    assert "run: died; " in capsys.readouterr().out
    cli.main(["status", str(tmp_path / "run"), "--json"])
    assert json.loads(capsys.readouterr().out)["status"]["state"] == "died"


def test_a_run_killed_behind_its_last_checkpoint_is_done_by_the_next(store, config, tmp_path, monkeypatch):
    whole = RunFolder(pretrain(store, config(), tmp_path / "whole")).last_status()

    class Killed(BaseException):
        """Nothing is written after it."""

    real = loop._save

    def save(run, state, sampler):
        real(run, state, sampler)
        if state.step == 12:
            monkeypatch.setattr(RunFolder, "status", lambda *_: None)
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_save", save)
        with pytest.raises(Killed):
            pretrain(store, config(), tmp_path / "run")
    monkeypatch.undo()
    assert RunFolder(tmp_path / "run").last_status()["step"] < 12
    pretrain(store, config(), tmp_path / "run")
    status = RunFolder(tmp_path / "run").last_status()
    of_time = ("ecg_per_s", "wall_ecg_per_s", "written", "process", "seconds_left")
    assert {key: value for key, value in status.items() if key not in of_time} == {
        key: value for key, value in whole.items() if key not in of_time
    }
    assert status.keys() == whole.keys()


def test_two_processes_never_write_one_run(store, config, tmp_path, rows_of):
    process = start(tmp_path / "run")
    try:
        with pytest.raises(LockHeld, match=r"run: another process is writing to this run. Wait for it, or stop it"):
            pretrain(store, config(), tmp_path / "run")
    finally:
        assert process.wait(timeout=120) == 0
    assert [int(row["step"]) for row in rows_of(tmp_path / "run")] == list(range(1, 13))
    pretrain(store, config(), tmp_path / "run")  # the lock is gone with its process


def test_a_stranger_folder_gets_no_lock(store, config, tmp_path):
    (tmp_path / "mine.csv").write_text("x")
    with pytest.raises(StateMismatch, match=r"found mine.csv"):
        pretrain(store, config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_a_run_elsewhere_counts_as_running_while_it_speaks(undisturbed, tmp_path):
    """Where the lock of another machine cannot be seen, its last word counts."""
    import shutil

    run = RunFolder(shutil.copytree(undisturbed, tmp_path / "copy"))
    for ago, machine, state in ((0, "another", "running"), (3600, "another", "died"), (0, None, "died")):
        run.status({"state": "running", "step": 1, "total_steps": 12})
        status = json.loads((run.path / "status.json").read_text())
        status["written"] = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(timespec="seconds")
        status["machine"] = machine or status["machine"]
        (run.path / "status.json").write_text(json.dumps(status))
        assert run.last_status()["state"] == state


def test_a_folder_without_a_run_is_said_in_one_line(tmp_path):
    with pytest.raises(SourceError, match=r"found no config.yaml"):
        RunFolder(tmp_path).last_status()


def test_the_status_names_the_process_and_not_the_machine(undisturbed):
    status = json.loads((undisturbed / "status.json").read_text())
    assert status["process"] == os.getpid()
    assert len(status["machine"]) == 12
