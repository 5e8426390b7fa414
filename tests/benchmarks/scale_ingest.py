"""A whole ingest of many recordings: throughput over time, memory, open files, and what that means for millions.

    OMP_NUM_THREADS=1 python tests/benchmarks/scale_ingest.py WORK [--records 200000] [--workers 2] [--save]

Writes a raw corpus below WORK (120 kB a recording; kept for the next run), ingests a quarter of it and then all of it with
`ecgcohorts ingest -j`, looks at every process of the run twice a second, and verifies and opens the store. Needs Linux
(/proc) and nothing else to do on the machine: throughput is wall time.
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import corpus
import results

SECONDS = 0.5  # between two looks
SHARD = 1024  # records: 49 shards of the default size are too few for tenths
MILLIONS = (5_200_000, 11_000_000)  # CAPE, and next
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Watch:
    """What the processes of one command did: by the time of each look in s, memory in bytes and open files."""

    command: list[str]
    store: Path
    times: list[float] = field(default_factory=list)
    main: list[int] = field(default_factory=list)  # bytes of the process that was started
    workers: list[int] = field(default_factory=list)  # of the largest child
    files: list[int] = field(default_factory=list)  # open in all of them
    finished: dict[str, float] = field(default_factory=dict)  # shard -> when it was whole
    seconds: float = 0.0

    def run(self) -> "Watch":
        start = time.time()
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        done = threading.Event()
        looker = threading.Thread(target=self._look, args=(process.pid, start, done))
        looker.start()
        code = process.wait()
        done.set()
        looker.join()
        self.seconds = time.time() - start
        if code:
            raise SystemExit(f"{' '.join(self.command)} ended with {code}")
        return self

    def _look(self, pid: int, start: float, done: threading.Event) -> None:
        while not done.wait(SECONDS):
            children = _children(pid)
            self.times.append(time.time() - start)
            self.main.append(_memory(pid))
            self.workers.append(max(map(_memory, children), default=0))
            self.files.append(sum(map(_open_files, [pid, *children])))
            for path in (self.store / ".staging").glob("*/*.npz"):
                if path.name not in self.finished:
                    self.finished[path.name] = path.stat().st_mtime - start


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def ingest(work: Path, records: int, workers: int, shard: int) -> Watch:
    store = work / f"store_{records}.zarr"
    shutil.rmtree(store, ignore_errors=True)
    arguments = [str(work / "raw"), str(store), "--cohort", str(work / "large.yaml"), "-j", str(workers)]
    options = ["--limit", str(records), "--shard", str(shard), "--key", str(work / "key")]
    return Watch([*_ecgcohorts("ingest"), *arguments, *options], store).run()


def _ecgcohorts(command: str) -> list[str]:
    return [sys.executable, "-m", "ecgcohorts.cli", command]


def throughput(watch: Watch, shard: int, tenths: int = 10) -> list[float]:
    """Recordings a second in each tenth of the shards, from the first whole shard to the last."""
    when = sorted(watch.finished.values())
    edges = [round(place * (len(when) - 1) / tenths) for place in range(tenths + 1)]
    return [shard * (stop - first) / (when[stop] - when[first]) for first, stop in itertools.pairwise(edges)]


def report(quarter: tuple[int, Watch], whole: tuple[int, Watch], workers: int, shard: int) -> list[tuple[str, ...]]:
    (few, small), (many, large) = quarter, whole
    rates = throughput(large, shard)
    encoding = [
        place
        for place, time_s in enumerate(large.times)
        if min(large.finished.values()) < time_s < max(large.finished.values())
    ]
    tenth = len(encoding) // 10
    first, last = encoding[:tenth], encoding[-tenth:]
    slope = (max(large.main) - max(small.main)) / (many - few)
    stored = sum(path.stat().st_size for path in large.store.rglob("*") if path.is_file())
    rate = statistics.median(rates)
    rest = (large.seconds - many / rate) / many  # planning and committing, in s a recording

    def mb(values: list[int], places: list[int]) -> str:
        return f"{statistics.median(values[place] for place in places) / 1e6:.0f} MB"

    rows = [
        ("recordings", f"{many:,}", *(f"{n:,}" for n in MILLIONS)),
        (f"whole run, {workers} processes", _hours(large.seconds), *(_hours(n / rate + n * rest) for n in MILLIONS)),
        ("encoding, recordings/s: median of tenths", f"{rate:.0f}", "", ""),
        ("first and last tenth", f"{rates[0]:.0f}, {rates[-1]:.0f} ({rates[-1] / rates[0] - 1:+.1%})", "", ""),
        ("slowest and fastest tenth", f"{min(rates):.0f}, {max(rates):.0f}", "", ""),
        ("largest worker, first and last tenth", f"{mb(large.workers, first)}, {mb(large.workers, last)}", "", ""),
        ("largest worker, peak", f"{max(large.workers) / 1e6:.0f} MB", "", ""),
        (
            f"main process, peak ({slope:.0f} B a recording)",
            f"{max(large.main) / 1e6:.0f} MB",
            *(f"{(max(large.main) + slope * (n - many)) / 1e6:.0f} MB" for n in MILLIONS),
        ),
        ("open files of all processes, first and last tenth", f"{_middle(large.files, first)}, {_middle(large.files, last)}", "", ""),
        ("store", f"{stored / 1e9:.1f} GB", *(f"{stored / many * n / 1e9:.0f} GB" for n in MILLIONS)),
    ]  # fmt: skip
    for what, command in (("verify", "verify"), ("open and describe", "info")):
        watch = Watch([*_ecgcohorts(command), str(large.store)], large.store).run()
        peak = max(watch.main, default=0)
        rows.append(
            (what, f"{watch.seconds:.0f} s, {peak / 1e6:.0f} MB", *(_hours(watch.seconds * n / many) for n in MILLIONS))
        )
    return rows


def _middle(values: list[int], places: list[int]) -> int:
    return int(statistics.median(values[place] for place in places))


def _hours(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"


COLUMNS = ("what", "measured", "5.2 million, extrapolated", "11 million, extrapolated")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard", type=int, default=SHARD)
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    corpus.write_corpus(asked.work, asked.records)
    quarter = asked.records // 4
    few, many = (ingest(asked.work, n, asked.workers, asked.shard) for n in (quarter, asked.records))
    rows = report((quarter, few), (asked.records, many), asked.workers, asked.shard)
    print(results.table(COLUMNS, rows))
    if asked.save:
        command = (
            f"python tests/benchmarks/scale_ingest.py WORK --records {asked.records} --workers {asked.workers} --save"
        )
        results.keep("scale", command, COLUMNS, rows, ("ecgcohorts", "numpy", "scipy", "numcodecs"))


if __name__ == "__main__":
    main()
