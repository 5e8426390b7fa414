"""Faults at every point of everything that writes to a store, and in a store at rest: what `make soak` runs.

    python tests/faults/soak.py --sample                            what `make test` runs
    python tests/faults/soak.py --jobs 2 --results docs/data/soak.json
    python tests/faults/soak.py kill "power loss" --jobs 2
    python tests/faults/soak.py "bit flips" --flips 10000
    python tests/faults/soak.py --write                             put the last results kept into docs/store.md

Every trial is a forked child of this process, which has imported all that is needed and has one thread. A trial makes a
store in a folder of its own, harms it or the process that writes to it, and tells what is wrong afterwards. Nothing is
drawn from a clock but the moments of random kills.
"""

import argparse
import errno
import gc
import importlib
import json
import os
import pickle
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "fuzz"))
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import crowd  # noqa: E402
import damage  # noqa: E402
import forks  # noqa: E402
import limits  # noqa: E402
import trials  # noqa: E402
from corpus import COMMANDS, STORE, Corpus, clear  # noqa: E402

import ecgcohorts as ec  # noqa: E402

os.fsync = lambda handle: None  # only a loss of power could tell, and that is played

PAGE, RESULTS = ROOT / "docs" / "store.md", ROOT / "docs" / "data" / "soak.json"
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
FLIPS_AT_ONCE = 25
NEEDED_BYTES = 512 << 20  # ten times what is used
TROUBLES = {"no space left": errno.ENOSPC, "disk error": errno.EIO, "too many open files": errno.EMFILE}


@dataclass(frozen=True)
class Size:
    """How much is tried."""

    every: int  # of the points of each command, one in so many
    kills: int  # at random
    flips: int
    meetings: int  # of writers
    seconds: float  # of reading beside commits
    harmed: int  # of the files, one in so many


FULL = Size(every=1, kills=50, flips=1000, meetings=28, seconds=60, harmed=1)
SAMPLE = Size(every=251, kills=2, flips=60, meetings=2, seconds=2, harmed=17)


@dataclass
class Tally:
    """What came of a campaign. `failed`: what was wrong, by trial."""

    tried: int = 0
    failed: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def add(self, problems: Any) -> None:
        self.tried += 1
        if problems:
            self.failed.append("; ".join(problems) if isinstance(problems, list) else str(problems))

    def count(self, found: Any, missed: tuple[str, ...]) -> None:
        """How often whom; those that begin with one of `missed` failed."""
        if not isinstance(found, dict):
            self.add(found)
            return
        for by, number in found.items():
            self.tried += number
            if by.startswith(missed):
                self.failed += [by] * number
            else:
                self.note(by, number)

    def note(self, what: str, count: int = 1) -> None:
        self.notes[what] = self.notes.get(what, 0) + count


class Soak:
    """The inputs, an undisturbed run of every command, and folders for trials."""

    def __init__(self, place: Path, size: Size, jobs: int, commands: Sequence[str] = tuple(COMMANDS)) -> None:
        self.place, self.size, self.jobs, self.commands = place, size, jobs, commands
        self.corpus = Corpus(place / "corpus")
        self._count = 0
        home = place / "home"
        home.mkdir()
        os.environ["XDG_CONFIG_HOME"] = str(home)  # nobody's own pseudonym key is touched
        _must(forks.in_child(self.corpus.make))
        self.record()
        assert threading.active_count() == 1, "forking is for processes of one thread"
        gc.freeze()  # children share the pages of what is imported

    def record(self) -> None:
        """Run every command undisturbed, and import here what it imports late, so that children need not."""
        kept = self.place / "references"

        def run_all() -> list[str]:
            references = []
            for name in self.commands:
                work = self.work()
                references.append(trials.undisturbed(self.corpus, COMMANDS[name], work))
                clear(work)
            kept.write_bytes(pickle.dumps(references))
            return list(sys.modules)

        for name in _must(forks.in_child(run_all)):
            if name not in sys.modules and not name.startswith("_"):
                importlib.import_module(name)
        self.references: list[trials.Reference] = pickle.loads(kept.read_bytes())

    def work(self) -> Path:
        self._count += 1
        return self.place / f"w{self._count}"

    def spread(self, trials_by_name: Iterable[tuple[str, Callable[[Path], Any]]]) -> Iterator[Any]:
        """Carry out trials, each in a child and a folder of its own; problems come back with the name of the trial."""

        def trial(name: str, call: Callable[[Path], Any]) -> Any:
            work = self.place / f"w-{os.getpid()}"
            try:
                answer = call(work)
            finally:
                clear(work)
            return [f"{name}: {problem}" for problem in answer] if isinstance(answer, list) else answer

        return forks.spread((partial(trial, *one) for one in trials_by_name), self.jobs)

    def points(self, name: str, count: int) -> range:
        """A sample of the points of a command, all in the end for `every` 1; where it begins depends on the name."""
        return range(self.first(name), count, self.size.every)

    def first(self, name: str) -> int:
        return sum(name.encode()) % self.size.every


def _must(answer: Any) -> Any:
    if isinstance(answer, str):
        raise AssertionError(answer)
    return answer


def kills(soak: Soak) -> Tally:
    return _at_changes(soak, trials.kill)


def power_losses(soak: Soak) -> Tally:
    return _at_changes(soak, trials.lose_power)


def _at_changes(soak: Soak, attack: Callable[[Corpus, trials.Reference, int, Path], list[str]]) -> Tally:
    tally = Tally()
    calls = [
        (f"{one.command.name}, change {place}", partial(attack, soak.corpus, one, place))
        for one in soak.references
        for place in soak.points(one.command.name, len(one.changes))
    ]
    for problems in soak.spread(calls):
        tally.add(problems)
    return tally


def errors(number: int, soak: Soak) -> Tally:
    tally = Tally()
    calls = [
        (f"{one.command.name}, chance {chance}", partial(trials.fail, soak.corpus, one, number, chance))
        for one in soak.references
        for chance in soak.points(one.command.name, trials.chances(one, number))
    ]
    for problems in soak.spread(calls):
        tally.add(problems)
    return tally


def real_limits(soak: Soak) -> Tally:
    tally = Tally()
    amounts = {
        "bytes a file": limits.FILE_BYTES,
        "open files": limits.MORE_FILES,
        "bytes on the disk": limits.DISK_PAGES,
    }
    if not limits.can_mount(soak.work()):
        del amounts["bytes on the disk"]
        tally.note("no right to mount a small disk here: a full disk was only played")
    calls = [
        (f"{one.command.name}, {kind} {amount}", partial(limits.run_limited, soak.corpus, one, kind, amount))
        for one in soak.references
        for kind in amounts
        for amount in amounts[kind][soak.first(one.command.name) % len(amounts[kind]) :: soak.size.every]
    ]
    for problems in soak.spread(calls):
        tally.add(problems)
    return tally


def random_kills(soak: Soak) -> Tally:
    forks.in_child(lambda: crowd.make_many(soak.corpus))
    work = soak.work()
    took, expected = forks.in_child(lambda: crowd.undisturbed_pool(soak.corpus, work))
    tally = Tally()
    calls = [
        (f"kill {number}", partial(crowd.killed_at_random, soak.corpus, number, took, expected))
        for number in range(soak.size.kills)
    ]
    for problems in soak.spread(calls):
        tally.add(problems)
    return tally


def meeting_writers(soak: Soak) -> Tally:
    tally = Tally()
    [expected] = [one.expected for one in soak.references if one.command.name == "ingest, first"]
    for meeting in range(soak.size.meetings):
        work, count = soak.work(), 2 + meeting % 7
        tally.add(crowd.writers_meet(soak.corpus, count, meeting % 2 == 1, expected, work))
        tally.note("writers", count)
        clear(work)
    return tally


def reading_beside_commits(soak: Soak) -> Tally:
    work, tally = soak.work(), Tally()
    problems, counts = crowd.readers_meet_commits(soak.corpus, soak.size.seconds, 2, work)
    clear(work)
    tally.tried, tally.failed, tally.notes = counts["opened"], problems, counts
    return tally


def bit_flips(soak: Soak) -> Tally:
    def block(first: int, work: Path) -> dict[str, int]:
        soak.corpus.fresh("both", work)
        contents = damage.Contents(work / STORE)
        last = min(first + FLIPS_AT_ONCE, soak.size.flips)
        found = Counter(damage.flip(contents, number) for number in range(first, last))
        assert contents.noticed_by() == "nobody", "the store did not come back"
        return dict(found)

    tally = Tally()
    for found in soak.spread([("", partial(block, first)) for first in range(0, soak.size.flips, FLIPS_AT_ONCE)]):
        tally.count(found, damage.MISSED)
    return tally


def harmed_files(soak: Soak) -> Tally:
    """Every file of the snapshot in force. Opening must notice all, but a content of the same size: that, `verify`."""
    sizes = forks.in_child(
        lambda: {name: one.size for name, one in ec.open(soak.corpus.place / "both" / STORE).manifest.files.items()}
    )

    def one_file(name: str, work: Path) -> dict[str, int]:
        soak.corpus.fresh("both", work)
        contents = damage.Contents(work / STORE)
        found = Counter(
            f"{by}: {kind}, {name}"[: None if by != "opening" else 7]
            for kind, by in damage.harm(contents, name).items()
        )
        other = damage.partner(contents, name, sizes)
        for both in (False, True) if other else ():
            by = damage.swap(contents, name, str(other), both)
            same = sizes[name] == sizes[str(other)]
            found[by if by == "opening" else f"{by}, of the same size" if same else f"{by}: swapped, {name}"] += 1
        return dict(found)

    tally = Tally()
    for found in soak.spread([(name, partial(one_file, name)) for name in list(sizes)[:: soak.size.harmed]]):
        tally.count(found, ("reading:", "verify:", "only verify:", "nobody"))
    return tally


CAMPAIGNS: dict[str, Callable[[Soak], Tally]] = {
    "kill": kills,
    "power loss": power_losses,
    **{name: partial(errors, number) for name, number in TROUBLES.items()},
    "real limits": real_limits,
    "random kills": random_kills,
    "writers": meeting_writers,
    "readers": reading_beside_commits,
    "bit flips": bit_flips,
    "harmed files": harmed_files,
}
# What each shows, for the documentation: fault, what must hold, number of the goal.
TOLD = {
    "kill": (
        "`kill -9` before or in the middle of every write, flush, rename, link, deletion",
        "the snapshot before, or from the rename of `CURRENT` on the new one; the same command ends in the same bytes",
    ),
    "power loss": (
        "power fails at every such point; of what was not flushed, nothing, all names or a selection is left",
        "the same",
    ),
    "no space left": (
        "every call that may find the disk full, and all later ones",
        "an error of one line; the same command, with room again, ends in the same bytes",
    ),
    "disk error": (
        "every call fails once with an input/output error, opening of inputs included",
        "the same; no recording is refused for it",
    ),
    "too many open files": ("every opening of a file, and all later ones", "the same"),
    "real limits": ("a full disk, files that may not grow, few open files, by the system itself", "the same"),
    "random kills": (
        "`kill -9` to an ingest with two workers at a random time, to all or to the first process",
        "the same command ends in the same bytes",
    ),
    "writers": (
        "2 to 8 ingests at once; the one at work is killed every second time",
        "one writes, the others are told within 1 s",
    ),
    "readers": (
        "opening and reading all the time beside ingest, label, `gc` and remove",
        "whole snapshots only, never an earlier one again",
    ),
    "bit flips": (
        "one bit anywhere in a store, earlier snapshots included",
        "an error when it is read, or found by `verify`",
    ),
    "harmed files": (
        "every file missing, empty, one byte shorter or longer, doubled, swapped",
        "opening fails; a content of the same size is found by `verify`",
    ),
}


def run(soak: Soak, names: list[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in names:
        start = time.monotonic()
        tally = CAMPAIGNS[name](soak)
        found[name] = {**asdict(tally), "seconds": round(time.monotonic() - start)}
        state = f"{len(tally.failed)} failed" if tally.failed else "all held"
        print(f"{name}: {tally.tried} tried, {state}, {found[name]['seconds']} s {tally.notes or ''}", flush=True)
        for failure in tally.failed[:10]:
            print(f"  {failure}", file=sys.stderr)
    return found


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| fault | must hold | tried | failed |", "|---|---|---|---|"]
    for name, one in results["campaigns"].items():
        fault, must = TOLD[name]
        lines.append(f"| {fault} | {must} | {one['tried']:,} | {len(one['failed'])} |")
    if results["every"] > 1:
        lines += ["", f"Of the points of each command, one in {results['every']} was tried."]
    about = f"`{results['command']}`, commit {results['commit']}, {results['date']}, {results['machine']}, {results['minutes']} minutes."
    return "\n".join([*lines, "", about])


def write_page() -> None:
    text = PAGE.read_text("utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table(json.loads(RESULTS.read_text('utf-8')))}\n{END}{after}", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CAMPAIGNS)}; all, if none is named")
    parser.add_argument("--sample", action="store_true", help="a small part of everything")
    parser.add_argument("--every", type=int, help="of the points of each command, one in so many")
    parser.add_argument("--flips", type=int, help="single bits to flip")
    parser.add_argument("--seconds", type=float, help="of reading beside commits")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--results", type=Path, help="JSON file that the documentation takes its table from")
    parser.add_argument("--table", action="store_true", help="only print the table of the results kept")
    parser.add_argument("--write", action="store_true", help=f"only put that table into {PAGE.name}")
    options = parser.parse_args()
    if options.table or options.write:
        print(table(json.loads(RESULTS.read_text("utf-8"))))
        if options.write:
            write_page()
        return 0
    size = SAMPLE if options.sample else FULL
    given = {name: getattr(options, name) for name in ("every", "flips", "seconds") if getattr(options, name)}
    size = replace(size, **given)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_memory()) as place:
        found = run(Soak(Path(place).resolve(), size, options.jobs), options.names or list(CAMPAIGNS))
    if options.results:
        about = {
            "command": shlex.join(["python", os.path.relpath(__file__, ROOT), *sys.argv[1:]]),
            "commit": _commit(),
            "every": size.every,
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "minutes": round((time.monotonic() - start) / 60),
        }
        options.results.write_text(json.dumps({**about, "campaigns": found}, indent=1) + "\n", "utf-8")
    return 1 if any(one["failed"] for one in found.values()) else 0


def _memory() -> Path | None:
    """A disk of memory, if there is one with room: trials make and delete a hundred files each."""
    disk = Path("/dev/shm")
    has_room = disk.is_dir() and os.access(disk, os.W_OK) and shutil.disk_usage(disk).free > NEEDED_BYTES
    return disk if has_room else None


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
