"""Kept results: one JSON a benchmark in docs/data, with command, commit and machine; docs/benchmarks.md is made of them.

    python tests/benchmarks/results.py      # writes the tables into docs/benchmarks.md again

A benchmark calls `keep` when asked to with `--save`. A test compares the page with the files.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA, PAGE = ROOT / "docs" / "data", ROOT / "docs" / "benchmarks.md"
MEASURED = ("ecgcohorts", "capezoo", "tests", "pyproject.toml")  # a change elsewhere does not change a number
_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def keep(
    name: str, command: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], packages: Sequence[str]
) -> None:
    """Write docs/data/bench_<name>.json and the page. columns and rows: the table as it is to be read.

    packages: whose versions belong to the numbers.
    """
    content = {
        "command": command,
        "commit": _git("rev-parse", "--short", "HEAD")
        + (" with changes" if _git("status", "--porcelain", "--", *MEASURED) else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {package: _version(package) for package in packages},
        "columns": list(columns),
        "rows": [[str(cell) for cell in row] for row in rows],
    }
    (DATA / f"bench_{name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    PAGE.write_text(page(), "utf-8")


def tell(script: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], packages: Sequence[str]) -> None:
    """Print the table of `bench_<name>.py`, and with `--save` on the command line keep it under that name."""
    sys.stdout.write(table(columns, rows) + "\n")
    if "--save" in sys.argv[1:]:
        name = Path(script).stem.removeprefix("bench_")
        keep(name, f"python tests/benchmarks/{Path(script).name} --save", columns, rows, packages)


def machine() -> str:
    """Processor, cores this process may use, memory, system; no name of a host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {cores} cores, {memory_gb:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; every column but the first is a column of numbers."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def page() -> str:
    """docs/benchmarks.md with every table as the kept results have it."""
    return _MARKED.sub(lambda found: f"{found[1]}{_section(found[2])}\n{found[3]}", PAGE.read_text("utf-8"))


def _section(name: str) -> str:
    path = DATA / f"bench_{name}.json"
    if not path.exists():
        return "\nNot measured yet."
    kept = json.loads(path.read_text("utf-8"))
    versions = ", ".join(f"{package} {number}" for package, number in kept["versions"].items())
    made = f"`{kept['command']}`, commit `{kept['commit']}`, {kept['date']}. {kept['machine']}. {versions}."
    return f"\n{made}\n\n{table(kept['columns'], kept['rows'])}\n"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() or ("" if arguments[0] == "status" else "unknown")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} written\n")
