"""A small hostile file is refused within 1 s and 256 MB more than the same command takes on a good one.

Each command runs as a process of its own; seconds are those of the processor, so that a busy machine changes nothing.
"""

import gzip
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ecgcohorts.simulate import simulate

SECONDS, MEBIBYTES = 1.0, 256

# Run in between, since a process that was forked from a large one counts that one's memory as its own.
_MEASURE = """
import os, resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "ecgcohorts.cli", *sys.argv[1:]], capture_output=True, text=True, timeout=100)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss)
print(done.stderr[:4000])
"""

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
DESCRIPTIONS = {
    "aliases": lambda good: BOMB + good.replace("title: ", "title: *a8 #"),
    "brackets": lambda good: good + "x: " + "[" * 100_000,
    "digits": lambda good: good.replace("name: ", "name: " + "9" * 100_000 + " #"),
    "base 60": lambda good: good.replace("name: ", "name: 1" + ":59" * 100_000 + " #"),
    "keys": lambda good: good + "".join(f"k{n}: 1\n" for n in range(40_000)),
    "a key twice": lambda good: good + "name: other\n",
    "a 45th day": lambda good: good.replace("name: ", "name: 2020-13-45 #"),
    "a table elsewhere": lambda good: good.replace(
        "  recording:", "  tables: [{file: /etc/passwd, key: x}]\n  recording:"
    ),
}


def _pax_tar(path: Path) -> None:
    """A global header of 80,000 records under 20,000 members: 284 kB that took a minute."""
    records = "".join(f"{len(body) + 2}{body}" for body in (f" k{number:06d}=\n" for number in range(80_000))).encode()
    info = tarfile.TarInfo("pax")
    info.type, info.size = b"g", len(records)
    members = b"".join(tarfile.TarInfo(f"records/{number}.hea").tobuf(tarfile.USTAR_FORMAT) for number in range(20_000))
    whole = info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512) + members + bytes(1024)
    path.write_bytes(gzip.compress(whole))


def _pax_headers(path: Path) -> None:
    """Two headers of 170,000 records each for every member."""
    record = b"6 a=b\n"
    info = tarfile.TarInfo("pax")
    info.type, info.size = b"x", 170_000 * len(record)
    one = info.tobuf(tarfile.USTAR_FORMAT) + record * 170_000 + bytes(-info.size % 512)
    path.write_bytes(gzip.compress(one * 30 + tarfile.TarInfo("records/a.hea").tobuf() + bytes(1024)))


def _empty_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60_000):
            archive.writestr(zipfile.ZipInfo(f"records/{number}.hea"), b"")


ARCHIVES: dict[str, Callable[[Path], None]] = {
    "global.tar.gz": _pax_tar,
    "headers.tar.gz": _pax_headers,
    "empty.zip": _empty_members,
}


class Used(NamedTuple):
    """What one command took."""

    code: int
    seconds: float
    mebibytes: float
    said: str


def _used(*command: str) -> Used:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=True,
    )
    first, _, said = done.stdout.partition("\n")
    code, seconds, kib = first.split()
    return Used(int(code), float(seconds), float(kib) / 1024, said)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Used]:
    """A cohort, and what a dry run of its ingest takes."""
    folder = tmp_path_factory.mktemp("good") / "raw"
    simulate(folder, patients_per_cohort=4, seed=0)
    north = folder / "north"
    used = _used("ingest", str(north), str(folder / "s.zarr"), "--cohort", str(north / "cohort.yaml"), "--dry-run")
    assert used.code == 0, used.said
    return north, used


def _refused_cheaply(found: Used, base: Used) -> None:
    assert found.code == 2, found.said
    assert len(found.said.strip().splitlines()) == 1
    assert len(found.said) < 1500
    assert found.seconds < base.seconds + SECONDS
    assert found.mebibytes < base.mebibytes + MEBIBYTES


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_description_is_refused_cheaply(case, good, tmp_path):
    north, base = good
    spec = tmp_path / "cohort.yaml"
    spec.write_text(DESCRIPTIONS[case]((north / "cohort.yaml").read_text()))
    used = _used("ingest", str(north), str(tmp_path / "s.zarr"), "--cohort", str(spec), "--dry-run")
    _refused_cheaply(used, base)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("case", ["aliases", "brackets", "digits", "base 60", "a key twice"])
def test_a_recipe_is_refused_cheaply(case, good, tmp_path):
    north, base = good
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(DESCRIPTIONS[case]("name: mine-1\ntitle: a\n")[: 1 << 16])
    spec = str(north / "cohort.yaml")
    used = _used("ingest", str(north), str(tmp_path / "s.zarr"), "--cohort", spec, "--recipe", str(recipe), "--dry-run")
    _refused_cheaply(used, base)


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_is_refused_cheaply(case, good, tmp_path):
    north, base = good
    ARCHIVES[case](tmp_path / case)
    spec = str(north / "cohort.yaml")
    used = _used("ingest", str(tmp_path / case), str(tmp_path / "s.zarr"), "--cohort", spec, "--dry-run")
    _refused_cheaply(used, base)


def test_a_plan_file_is_refused_cheaply(good, tmp_path):
    _, base = good
    plan = tmp_path / "x.plan"
    for content in (
        b"PAR1" + b"[" * 1_000_000,
        b"PAR1" + bytes(1_000_000) + b"PAR1",
        b"{" * 100_000,
    ):
        plan.write_bytes(content)
        _refused_cheaply(_used("encode", str(plan), "0"), base)
