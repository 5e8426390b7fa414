"""Faults at every point of everything that writes to a store, and in a store at rest: what `make soak` runs.

    python tests/faults/soak.py --sample                            what `make test` runs
    python tests/faults/soak.py --jobs 2 --log build/soak.jsonl     again after an interruption: goes on
    python tests/faults/soak.py kill "power loss" --jobs 2
    python tests/faults/soak.py live                                all campaigns whose names begin so
    python tests/faults/soak.py --write                             put the last results kept into docs/soak.md

Every trial is a forked child of this process, which has imported all that is needed and has one thread. A trial makes a
store in a folder of its own, harms it or the process that writes to it, and tells what is wrong afterwards. Nothing is
drawn from a clock but the moments of live kills.
"""

import argparse
import errno
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
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
import journal  # noqa: E402
import limits  # noqa: E402
import live  # noqa: E402
import trials  # noqa: E402
from corpus import STORE, Corpus, clear  # noqa: E402
from ground import Size, Soak, Tally, must  # noqa: E402
from journal import Journal  # noqa: E402
from page import PAGE, RESULTS, table, write_page  # noqa: E402

import ecgcohorts as ec  # noqa: E402

os.fsync = lambda handle: None  # only a loss of power could tell, and that is played

UNDISTURBED = 3  # runs before live kills, the longest of which counts: a kill may come as late as that
FLIPS_AT_ONCE = 100
NEEDED_BYTES = 512 << 20  # ten times what is used
TROUBLES = {"no space left": errno.ENOSPC, "disk error": errno.EIO, "too many open files": errno.EMFILE}


FULL = Size(every=1, kills=77, flips=10_000, meetings=28, seconds=60, harmed=1)
SAMPLE = Size(every=251, kills=1, flips=60, meetings=2, seconds=2, harmed=17)


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


def live_kills(name: str, soak: Soak) -> Tally:
    """So many processes of one command killed, at moments drawn over the time that it takes."""
    tally, site, row = Tally(), live.Site(soak.corpus), live.ROWS[name]
    kills = [f"{name}, kill {number}" for number in range(soak.size.kills)]
    known = soak.knows_all(kills)
    with nullcontext() if known else site.ready_for(row):
        if not known:
            soak.need(row.start)
            runs = min(soak.size.kills, UNDISTURBED)
            rehearsal, undisturbed = soak.work(), soak.work()
            if runs > 1:
                soak.warmed(lambda: site.rehearse(row, rehearsal))
            reference = must(forks.in_child(lambda: asdict(live.undisturbed(site, name, undisturbed, runs))))

        def trial(number: int, work: Path) -> dict[str, Any]:
            found = live.killed(site, live.Reference(**reference), number, work)
            return {"when": found.when, "problems": [f"{kills[number]}: {one}" for one in found.problems]}

        calls = [(kill, partial(trial, number)) for number, kill in enumerate(kills)]
        for answer in soak.spread(calls, 1 if site.cluster else soak.jobs):
            is_told = isinstance(answer, dict)
            tally.add(answer["problems"] if is_told else answer)
            if is_told:
                tally.note(f"killed {answer['when']} its changes")
    return tally


def meeting_writers(soak: Soak) -> Tally:
    tally = Tally()
    [expected] = [one.expected for one in soak.references if one.command.name == "ingest, first"]
    for meeting in range(soak.size.meetings):
        work, count = soak.work(), 2 + meeting % 7
        meet = partial(crowd.writers_meet, soak.corpus, count, meeting % 2 == 1, expected, work)
        tally.add(soak.journal.once(soak.campaign, f"meeting {meeting}", meet))
        tally.note("writers", count)
        clear(work)
    return tally


def reading_beside_commits(soak: Soak) -> Tally:
    work, tally, seconds = soak.work(), Tally(), soak.size.seconds
    read = partial(crowd.readers_meet_commits, soak.corpus, seconds, 2, work)
    tally.failed, tally.notes = soak.journal.once(soak.campaign, f"{seconds:g} seconds", read)
    tally.tried = tally.notes["opened"]
    clear(work)
    return tally


def bit_flips(soak: Soak) -> Tally:
    def block(numbers: range, work: Path) -> dict[str, int]:
        soak.corpus.fresh("both", work)
        contents = damage.Contents(work / STORE)
        found = Counter(damage.flip(contents, number) for number in numbers)
        assert contents.noticed_by() == "nobody", "the store did not come back"
        return dict(found)

    return _in_blocks(soak, soak.size.flips, block, "both")


def weight_flips(soak: Soak) -> Tally:
    return _flips_in("weights", soak, soak.size.flips // 10)


def checkpoint_flips(soak: Soak) -> Tally:
    return _flips_in("checkpoints", soak, soak.size.flips // 20)


def _flips_in(what: str, soak: Soak, count: int) -> Tally:
    """In what `capezoo` writes: torch is imported only for these."""
    folder = {"weights": live.WEIGHTS, "checkpoints": f"{live.RUN}/checkpoints"}[what]

    def block(numbers: range, work: Path) -> dict[str, int]:
        import weights  # and torch, which no other campaign needs

        flip = {"weights": weights.flip_in_weights, "checkpoints": weights.flip_in_checkpoints}[what]
        soak.corpus.fresh("published", work)
        return dict(Counter(flip(work / folder, number) for number in numbers))

    return _in_blocks(soak, count, block, "published")


def _in_blocks(soak: Soak, count: int, block: Callable[[range, Path], dict[str, int]], state: str) -> Tally:
    """So many flips, many of them within one process: it takes longer to make what is harmed than to harm it."""
    tally = Tally()
    firsts = range(0, count, FLIPS_AT_ONCE)
    blocks = {
        f"{one} to {min(one + FLIPS_AT_ONCE, count) - 1}": range(one, min(one + FLIPS_AT_ONCE, count)) for one in firsts
    }
    if not soak.knows_all(blocks):
        soak.need(state)
    for found in soak.spread([(name, partial(block, numbers)) for name, numbers in blocks.items()]):
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
    "writers": meeting_writers,
    "readers": reading_beside_commits,
    "bit flips": bit_flips,
    "harmed files": harmed_files,
    **{f"live: {name}": partial(live_kills, name) for name in live.ROWS},
    "weight flips": weight_flips,
    "checkpoint flips": checkpoint_flips,
}


def run(soak: Soak, names: list[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in names:
        start, soak.campaign = time.monotonic(), name
        tally = CAMPAIGNS[name](soak)
        found[name] = {**asdict(tally), "seconds": round(time.monotonic() - start)}
        state = f"{len(tally.failed)} failed" if tally.failed else "all held"
        print(f"{name}: {tally.tried} tried, {state}, {found[name]['seconds']} s {tally.notes or ''}", flush=True)
        for failure in tally.failed[:10]:
            print(f"  {failure}", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CAMPAIGNS)}, or how some begin; all, if none is named")
    parser.add_argument("--sample", action="store_true", help="a small part of everything")
    parser.add_argument("--every", type=int, help="of the points of each command, one in so many")
    parser.add_argument("--kills", type=int, help="at random moments, of each command")
    parser.add_argument("--flips", type=int, help="single bits to flip in stores")
    parser.add_argument("--seconds", type=float, help="of reading beside commits")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--log", type=Path, help="file of what was tried; given again, only the rest is tried")
    parser.add_argument("--results", type=Path, help="JSON file that the documentation takes its table from")
    parser.add_argument("--table", action="store_true", help="only print the table of the results kept")
    parser.add_argument("--write", action="store_true", help=f"only put that table into {PAGE.name}")
    options = parser.parse_args()
    if options.table or options.write:
        print(table(json.loads(RESULTS.read_text("utf-8"))))
        if options.write:
            write_page()
        return 0
    names = [name for name in CAMPAIGNS if not options.names or name.startswith(tuple(options.names))]
    if unknown := [one for one in options.names if not any(name.startswith(one) for name in CAMPAIGNS)]:
        parser.error(f"found {unknown[0]!r}, expected the beginning of one of {', '.join(CAMPAIGNS)}")
    size = SAMPLE if options.sample else FULL
    given = {name: getattr(options, name) for name in ("every", "kills", "flips", "seconds") if getattr(options, name)}
    size = replace(size, **given)
    kept = Journal(options.log, journal.commit_now(), journal.code_now())
    with tempfile.TemporaryDirectory(dir=_memory()) as place:
        found = run(Soak(Path(place).resolve(), size, options.jobs, journal=kept), names)
    if options.results:
        about = {
            "command": shlex.join(["python", os.path.relpath(__file__, ROOT), *sys.argv[1:]]),
            "commit": kept.commit,
            "every": size.every,
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "minutes": round(kept.seconds / 60),
        }
        options.results.write_text(json.dumps({**about, "campaigns": found}, indent=1) + "\n", "utf-8")
    return 1 if any(one["failed"] for one in found.values()) else 0


def _memory() -> Path | None:
    """A disk of memory, if there is one with room: trials make and delete a hundred files each."""
    disk = Path("/dev/shm")
    has_room = disk.is_dir() and os.access(disk, os.W_OK) and shutil.disk_usage(disk).free > NEEDED_BYTES
    return disk if has_room else None


if __name__ == "__main__":
    raise SystemExit(main())
