"""500 mutants of every format (2,000 with `make test-slow`), and proof that the fuzzer sees what it looks for.

`make fuzz` tries 200,000.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import victims

FUZZ = Path(victims.__file__).with_name("fuzz.py")
MUTANTS = (500, pytest.param(2000, marks=pytest.mark.slow))
SECONDS = 300  # on a machine that does a dozen other things

EVIL = '''
"""A reader that misbehaves as the first bytes of its file say."""
import ctypes, signal, socket, subprocess, time
from pathlib import Path
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers import wfdb

SUFFIXES, VARIANTS = (".evil",), ("none",)

def sniff(head):
    return head.startswith(b"EVIL")

def scan(path):
    return read(path)

def read(path, entries=None):
    what = path.read_bytes()
    if what == b"EVIL":
        yield from wfdb.read(path.with_name("r.hea"))
    elif {do}
    else:
        raise UnreadableRecording(Reason.HEADER, "a mutant", "EVIL")
'''
WRITER = """
import sys
import victims
CANARIES = ("nobody at all",)

def write(folder, seconds=None):
    victims.writer_of("wfdb").write(folder)
    (folder / "x.evil").write_bytes(b"EVIL")
    return folder / "x.evil", []
"""
DEEDS = {
    "untyped error": ("len(what) % 2: raise ValueError('odd')", "ValueError: odd"),
    "no end": ("len(what) % 2: time.sleep(60)", "TookTooLong"),
    "no end, deaf": ("len(what) % 2: signal.pthread_sigmask(0, [signal.SIGALRM]); time.sleep(60)", "no progress"),
    "segfault": ("len(what) % 2: ctypes.string_at(0)", "exit status -11"),
    "memory": ("len(what) % 2: bytearray(600 << 20)", "MemoryError"),
    "other file": ("len(what) % 2: Path('/etc/hostname').read_bytes()", "/etc/hostname"),
    "way out": ("len(what) % 2: path.parent.joinpath('../../x').read_bytes()", "../x"),
    "writing": ("len(what) % 2: path.with_name('y').write_bytes(b'')", "for writing"),
    "network": ("len(what) % 2: socket.create_connection(('127.0.0.1', 9), 1)", "socket."),
    "process": ("len(what) % 2: subprocess.run(['true'])", "subprocess.Popen"),
}


def fuzz(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FUZZ), *arguments]
    surroundings = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=surroundings)


@pytest.mark.parametrize("mutants", MUTANTS)
@pytest.mark.parametrize("name", victims.NAMES)
def test_mutants_end_in_a_recording_or_a_typed_error(name: str, mutants: int, tmp_path: Path) -> None:
    run = fuzz(name, "--mutants", str(mutants), "--work", str(tmp_path), "--results", str(tmp_path / "results.json"))
    assert run.returncode == 0, f"{run.stderr}\nKept in {tmp_path / 'crashers'}"
    found = json.loads((tmp_path / "results.json").read_text())[name]
    assert found["mutants"] == found["refused"] + found["read"] == mutants
    assert found["refused"] > mutants / 10, "too few mutants were damaged in a way that shows"


def register(folder: Path, name: str, code: str, writer: str) -> dict[str, str]:
    """A distribution of one reader, and the environment in which it is installed."""
    (folder / f"{name}.py").write_text(code)
    (folder / f"write_{name}.py").write_text(writer)
    about = folder / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[ecgcohorts.readers]\n{name} = {name}\n")
    return {"PYTHONPATH": str(folder), "ECGCOHORTS_WRITERS": str(folder)}


@pytest.mark.parametrize("deed", DEEDS)
def test_every_misdeed_is_seen(deed: str, tmp_path: Path) -> None:
    act, seen = DEEDS[deed]
    environment = register(tmp_path, "evil", EVIL.replace("{do}", act), WRITER)
    run = fuzz("evil", "--mutants", "9", "--work", str(tmp_path / "work"), FUZZ_SECONDS="1", **environment)
    assert run.returncode == 1, run.stderr
    kept = sorted((tmp_path / "work" / "crashers").glob("evil-*"))
    assert kept, run.stderr
    assert any(seen in (folder / "crasher.json").read_text() for folder in kept), run.stderr


def test_a_crasher_can_be_replayed_and_a_finished_block_is_not_tried_again(tmp_path: Path) -> None:
    environment = register(tmp_path, "evil", EVIL.replace("{do}", DEEDS["untyped error"][0]), WRITER)
    arguments = ("evil", "--mutants", "40", "--work", str(tmp_path / "work"))
    first = fuzz(*arguments, **environment)
    crasher = next((tmp_path / "work" / "crashers").glob("evil-*"))
    replayed = fuzz("--replay", str(crasher), **environment)
    assert replayed.returncode == 1
    assert "ValueError: odd" in replayed.stderr
    start = time.monotonic()
    second = fuzz(*arguments, **environment)
    assert second.stdout == first.stdout
    blocks = list((tmp_path / "work" / "blocks").iterdir())
    assert len(blocks) == 1
    assert blocks[0].stat().st_mtime < time.time() - (time.monotonic() - start)
