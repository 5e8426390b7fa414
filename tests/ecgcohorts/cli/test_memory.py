"""Little memory is said in one line: libraries of ours spin or wait for ever where none is left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

resource = pytest.importorskip("resource")

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "store-2"
KIB = 1024


def _limited(kib: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run under `ulimit -v`, and with a time that no command needs."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")}
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (kib * KIB, resource.RLIM_INFINITY)),
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
@pytest.mark.parametrize("kib", [250_000, 400_000, 600_000, 800_000, 1_048_575])
@pytest.mark.parametrize("command", ["info", "verify"])
def test_too_little_is_refused_at_the_start(kib, command):
    done = _limited(kib, "ecgcohorts.cli", command, str(GOLDEN))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"ecgcohorts: found a limit of {kib // 1024:,} MiB on memory, expected 1,024 MiB or more. Raise it: "
        "ulimit -v unlimited.\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
@pytest.mark.parametrize("command", [("info",), ("verify",), ("verify", "-j", "2")])
def test_the_least_is_enough(command):
    done = _limited(1 << 20, "ecgcohorts.cli", *command, str(GOLDEN))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_an_ingest_under_the_least_gives_the_same_bytes(make_cohort, tmp_path):
    made = make_cohort(patients=3)
    answers = []
    for number, kib in enumerate((1 << 20, 1 << 24)):
        store = tmp_path / f"{number}.zarr"
        done = _limited(
            kib, "ecgcohorts.cli", "ingest", str(made.folder), str(store), "--cohort", str(made.spec), "-j", "2"
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout.replace(str(store), "").splitlines()[-1])
    assert answers[0] == answers[1]


def test_memory_that_runs_out_is_one_line(monkeypatch, capsys):
    from ecgcohorts.cli import program
    from ecgcohorts.store import union

    def no_memory(names):
        raise MemoryError

    monkeypatch.setattr(union, "open_named", no_memory)
    with pytest.raises(SystemExit) as ended:
        program.main(["info", str(GOLDEN)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("ecgcohorts: memory ran out. Allow more")
