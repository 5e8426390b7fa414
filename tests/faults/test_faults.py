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
    "processes": ("random kills", "writers", "readers"),
    "damage": ("bit flips", "harmed files"),
}
# Campaign: a defect it has to see, as what is replaced by what.
DEFECTS = {
    "kill": ("ecgcohorts.store.upkeep.remove.remove_unlisted", "lambda *_: None"),
    "power loss": ("ecgcohorts.io.durable.sync_folder", "lambda _: None"),
    "no space left": ("ecgcohorts.store.commit.machine_errors", "lambda _: contextlib.nullcontext()"),
    "writers": ("fcntl.flock", "lambda *_: None"),
    "readers": ("ecgcohorts.store.reader.read_index", "stale"),
    "bit flips": ("ecgcohorts.store.upkeep.verify._Checks.file", "lambda *_: []"),
    "harmed files": ("ecgcohorts.store.schema.Manifest.check_files", "lambda *_: None"),
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
    size = soak.Size(every=120, kills=0, flips=5, meetings=1, seconds=1, harmed=40)
    with tempfile.TemporaryDirectory() as place:
        ready, failed = soak.Soak(Path(place).resolve(), size, 1, ("ingest, first", "remove")), {{}}
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


@pytest.mark.parametrize("group", GROUPS)
def test_a_sample_of_faults(group: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    soak = run(str(SOAK), *GROUPS[group], "--sample", "--results", str(results))
    assert soak.returncode == 0, soak.stdout + soak.stderr
    found = json.loads(results.read_text())["campaigns"]
    assert list(found) == list(GROUPS[group])
    assert all(one["tried"] for one in found.values()), found


# One defect while a command writes and one in a store at rest; `make test-slow` tries all seven, half a minute's work.
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


def test_the_page_shows_the_results_kept() -> None:
    page = (SOAK.parents[2] / "docs" / "store.md").read_text("utf-8")
    assert run(str(SOAK), "--table").stdout.strip() in page, "run: python tests/faults/soak.py --write"
