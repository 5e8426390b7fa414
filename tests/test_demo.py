"""The demo: its commands are commands, half of the control runs beside the other, and its last lines are the control's."""

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import click
import pytest

import capezoo.cli.program
import ecgcohorts.cli.program
from ecgcohorts.cli._job_log import LOG

ROOT = Path(__file__).parents[1]
PROGRAMS = {"ecgcohorts": ecgcohorts.cli.program.ECGCOHORTS, "capezoo": capezoo.cli.program.CAPEZOO}
SECONDS = 600  # to give up


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accepted(words: list[str]) -> str:
    """Parse a typed line without running it; return the command's name. Raises click's errors."""
    command: click.Command = PROGRAMS[words[0]]
    ctx, place = click.Context(command, info_name=words[0]), 1
    while isinstance(command, click.Group):
        below = command.get_command(ctx, words[place])
        assert below is not None, words
        command, place = below, place + 1
    ctx.meta[LOG] = Mock()
    command.make_context(words[place - 1], words[place:], parent=ctx)
    return str(command.name)


@pytest.mark.parametrize("seeds", [0, 1, 10])
def test_every_line_is_a_command(demo, seeds):
    lines = list(demo.commands(60, 0, 40, 32, seeds))
    names = [accepted(shlex.split(line.removesuffix("&"))) for line in lines if line != "wait"]
    assert names[-1] == "report"
    assert names.count("artefact") == {0: 0, 1: 1, 10: 3}[seeds]
    assert ("--study control" in lines[-1]) == (seeds > 0)


def test_two_processes_share_the_seeds_and_the_last_command_has_all(demo):
    *_, beside, here, wait, whole = demo.control_commands(3, 7)
    assert beside.endswith("--seed 7 --seeds 3 &")
    assert here.endswith("--seed 3 --seeds 4")
    assert (wait, whole.endswith("--seed 3 --seeds 7")) == ("wait", True)


def test_a_command_that_fails_beside_another_stops_the_demo(demo, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    behind: list[subprocess.Popen[bytes]] = []
    demo.run("ecgcohorts info nowhere.zarr &", behind)
    with pytest.raises(SystemExit, match="failed"):
        demo.run("wait", behind)
    assert "nowhere.zarr" in capfd.readouterr().err


@pytest.mark.slow
def test_the_demo_runs_from_an_empty_folder(tmp_path):
    """All commands, with one seed of the control: about a minute and a half of one quiet core."""
    words = [sys.executable, str(ROOT / "examples" / "demo.py"), "demo", "--control-seeds", "1", "--steps", "4"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "Made-up devices, the same hearts" in done.stdout
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
