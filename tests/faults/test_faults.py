"""A sample of the faults that `make soak` goes through, and proof that it sees what it looks for."""

import json
import subprocess
import sys
from pathlib import Path

import forks
import pytest

SOAK = Path(forks.__file__).parents[1] / "faults" / "soak.py"
SECONDS = 500  # on a machine that does a dozen other things
# Names of campaigns, so that each group takes about as long.
GROUPS = {
    "one fault": ("kill", "power loss", "no space left", "disk error", "too many open files", "real limits"),
    "processes": ("writers", "readers"),
    "damage": ("bit flips", "harmed files"),
    "live kills": tuple(
        f"live: {name}"
        for name in ("ingest -j", "append", "update", "remove", "compact", "label", "split", "copy", "commit")
    ),
    "with torch": ("live: publish", "weight flips", "checkpoint flips"),
}
SLOW = ("live: ingest on Dask", "live: pretrain")
# Campaign: a defect it has to see, as what is replaced by what.
DEFECTS = {
    "kill": ("ecgcohorts.store.upkeep.remove.remove_unlisted", "lambda *_: None"),
    "power loss": ("ecgcohorts.io.durable.sync_folder", "lambda _: None"),
    "no space left": ("ecgcohorts.store.commit.machine_errors", "lambda _: contextlib.nullcontext()"),
    "writers": ("fcntl.flock", "lambda *_: None"),
    "readers": ("ecgcohorts.store.reader.read_index", "stale"),
    "bit flips": ("ecgcohorts.store.upkeep.verify._Checks.file", "lambda *_: []"),
    "harmed files": ("ecgcohorts.store.schema.Manifest.check_files", "lambda *_: None"),
    "live: remove": ("ecgcohorts.store.upkeep.remove.remove_unlisted", "lambda *_: None"),
    "weight flips": ("capezoo.zoo.create._located", "lambda weights, check: Path(weights)"),
    "checkpoint flips": ("capezoo.training.checkpoint.read", "lambda path: {'step': 12}"),
}
DEFECTIVE = """
import contextlib, json, sys, tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock
sys.path.insert(0, {folder!r})
import soak

real, kept = soak.ec.store.reader.read_index, []

def stale(*arguments):
    kept.append(real(*arguments))
    return kept[0]  # the index of the first snapshot that was opened

if __name__ == "__main__":
    soak.crowd.PATIENCE = 3.0
    size = soak.Size(every=120, kills=8, flips=100, meetings=1, seconds=1, harmed=40)
    with tempfile.TemporaryDirectory() as place:
        ready, failed = soak.Soak(Path(place).resolve(), size, 1, ("ingest, first", "remove")), {{}}
        ready.record()
        for name, (target, defect) in json.loads(sys.argv[1]).items():
            with mock.patch(target, eval(defect)):
                if name == "power loss":
                    ready.record()  # what is replayed
                ready.size = replace(size, every=31 if name == "power loss" else size.every)
                failed[name] = len(soak.CAMPAIGNS[name](ready).failed)
    print(json.dumps(failed))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.parametrize("names", [*GROUPS.values(), pytest.param(SLOW, marks=pytest.mark.slow)], ids=[*GROUPS, "slow"])
def test_a_sample_of_faults(names: tuple[str, ...], tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    soak = run(str(SOAK), *names, "--sample", "--results", str(results))
    assert soak.returncode == 0, soak.stdout + soak.stderr
    found = json.loads(results.read_text())["campaigns"]
    assert list(found) == list(names)
    assert all(one["tried"] for one in found.values()), found


# One defect while a command writes and one in a store at rest; `make test-slow` tries all of them.
@pytest.mark.parametrize(
    "names", [("kill", "harmed files"), pytest.param(tuple(DEFECTS), marks=pytest.mark.slow)], ids=["two", "all"]
)
def test_defects_are_seen(names: tuple[str, ...], tmp_path: Path) -> None:
    script = tmp_path / "defective.py"
    script.write_text(DEFECTIVE.format(folder=str(SOAK.parent)))
    soak = run(str(script), json.dumps({name: DEFECTS[name] for name in names}))
    assert soak.returncode == 0, soak.stderr
    failed = json.loads(soak.stdout.splitlines()[-1])
    assert tuple(failed) == names
    assert all(failed.values()), failed


def test_a_soak_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Killed in the middle of writing a line, even. Nothing is tried twice, and what failed stays so."""
    log, results = tmp_path / "soak.jsonl", tmp_path / "results.json"
    command = (str(SOAK), "disk error", "--every", "2000", "--log", str(log), "--results", str(results))
    assert run(*command).returncode == 0
    header, *lines = log.read_text().splitlines()
    assert len(lines) > 2
    failed = json.dumps(json.loads(lines[0]) | {"answer": ["it was not held"]})
    log.write_text("\n".join([header, failed, lines[1]]) + "\n" + lines[2][:40])
    again = run(*command)
    assert again.returncode == 1
    assert "2 trials are done already" in again.stdout
    found = json.loads(results.read_text())["campaigns"]["disk error"]
    assert (found["tried"], found["failed"]) == (len(lines), ["it was not held"])
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    assert [one["session"] for one in kept if "session" in one] == [1, 2]
    tried = [one["trial"] for one in kept if "trial" in one]
    assert sorted(tried) == sorted(json.loads(line)["trial"] for line in lines)


def test_a_log_of_other_code_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "soak.jsonl"
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from journal import Journal\n"
        "kept = Journal(Path(sys.argv[2]), sys.argv[3], sys.argv[4]); print(kept.once('kill', 'one', lambda: sys.argv[3]))"
    )
    told = [
        run("-c", script, str(SOAK.parent), str(log), *one).stdout for one in (("c1", "x"), ("c2", "x"), ("c3", "y"))
    ]
    assert told[0] == "c1\n"
    assert "begun at commit c1, now c2; the code is the same" in told[1]
    assert told[1].endswith("\nc1\n")
    assert "found trials of other code (commit c1), kept as soak-c1.jsonl. A new log begins." in told[2]
    assert told[2].endswith("\nc3\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["soak-c1.jsonl", "soak.jsonl"]


def test_the_page_shows_the_results_kept() -> None:
    page = (SOAK.parents[2] / "docs" / "soak.md").read_text("utf-8")
    shown = run(str(SOAK), "--table")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() in page, "run: python tests/faults/soak.py --write"
