"""One command, one fault, and what must hold afterwards: the snapshot in force opens, and the command run again finishes.

Before the act that replaces CURRENT the old snapshot is in force, after it the new one. Run again, the command leaves
the same bytes, files and folders as if nothing had happened, and the same accounts.
"""

import errno
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import forks
import power
from corpus import CANARY, PLAN, STORE, Command, Corpus, make_plan, snapshot, tree
from disk import CHANGES, Act, Disk

import ecgcohorts as ec


@dataclass(frozen=True)
class Reference:
    """An undisturbed run of a command: what it did to the disk, and the snapshots and files before and after."""

    command: Command
    acts: list[Act]
    before: str  # fingerprint; empty where no store is
    after: str
    expected: dict[str, str]  # tree of the working folder

    @cached_property
    def changes(self) -> list[Act]:
        return [act for act in self.acts if act.kind in CHANGES]

    @cached_property
    def commit(self) -> int:
        """Place of the change that puts the new snapshot in force; behind the last one if there is none such."""
        return next((place for place, act in enumerate(self.changes) if _is_commit(act)), len(self.changes))

    @cached_property
    def safe(self) -> int:
        """Place of the change from which on the new snapshot survives a loss of power."""
        return next(
            (place for place, act in enumerate(self.changes) if place > self.commit and _is_flush(act)),
            len(self.changes),
        )


def _is_commit(act: Act) -> bool:
    return act.kind == "replace" and act.target == f"{STORE}/CURRENT"


def _is_flush(act: Act) -> bool:
    """Of the store's own folder, which makes CURRENT safe."""
    return act.kind == "fsync" and act.file < 0 and act.path == STORE


def undisturbed(corpus: Corpus, command: Command, work: Path) -> Reference:
    """Run a command, noting its acts. The store afterwards must verify, and the command run again must change nothing."""
    corpus.fresh(command.start, work)
    before, acts = snapshot(work / STORE), list[Act]()
    with Disk(work, corpus.raw, acts.append):
        command.run(corpus, work)
    expected = tree(work)
    report = ec.verify(work / STORE)
    assert report.ok, report.problems
    command.run(corpus, work)
    assert tree(work) == expected, f"{command.name}: run again, it changed something"
    return Reference(command, acts, before, snapshot(work / STORE), expected)


def kill(corpus: Corpus, reference: Reference, change: int, work: Path) -> list[str]:
    """SIGKILL before that change, in the middle of it if it is a write. Returns what is wrong afterwards."""
    corpus.fresh(reference.command.start, work)
    reader = _Reader(work / STORE) if reference.before else None
    left = [change]

    def judge(act: Act) -> None:
        if act.kind in CHANGES:
            if not left[0] and act.kind != "write":
                os.kill(os.getpid(), signal.SIGKILL)
            if not left[0]:
                raise _Halfway
            left[0] -= 1

    try:
        answer = forks.in_child(lambda: _until_halfway(corpus, reference.command, work, judge))
        return [f"not killed: {answer}"]
    except forks.Died as death:
        problems = [] if death.code == -signal.SIGKILL else [str(death)]
    in_force = reference.after if change > reference.commit else reference.before
    problems += afterwards(corpus, reference, (in_force,), work)
    if reader is not None:
        problems += reader.problems(may_be_gone=reference.command.name == "remove")
    return problems


class _Halfway(BaseException):
    """Half of a write is done: time to die."""


def _until_halfway(corpus: Corpus, command: Command, work: Path, judge: Callable[[Act], None]) -> str:
    class Deadly(Disk):
        def write(self, *arguments: object) -> int:
            try:
                return super().write(*arguments)  # type: ignore[arg-type]
            except _Halfway:
                os.kill(os.getpid(), signal.SIGKILL)
                raise

    with Deadly(work, corpus.raw, judge):
        command.run(corpus, work)
    return "it ended by itself"


# Calls that a kind of trouble may come out of; each is a chance for it to strike.
STRIKES = {
    errno.ENOSPC: ("create", "write", "replace", "link", "mkdir"),
    errno.EIO: (*CHANGES, "open"),
    errno.EMFILE: ("create", "open"),
}
LASTING = (errno.ENOSPC, errno.EMFILE)  # strike at all later chances too: a disk stays full


def chances(reference: Reference, number: int) -> int:
    """How often an error may strike in an undisturbed run."""
    return sum(act.kind in STRIKES[number] for act in reference.acts)


def fail(corpus: Corpus, reference: Reference, number: int, chance: int, work: Path) -> list[str]:
    """Let an error strike. The command must end with an EcgError that names it, or do its work all the same."""
    corpus.fresh(reference.command.start, work)
    had = [0]

    def judge(act: Act) -> None:
        if act.kind in STRIKES[number]:
            had[0] += 1
            if had[0] == chance + 1 or (number in LASTING and had[0] > chance):
                raise OSError(number, os.strerror(number), None if act.kind == "write" else act.path)

    with Disk(work, corpus.raw, judge):
        problems = complaints(lambda: reference.command.run(corpus, work), os.strerror(number))
    if had[0] <= chance:
        problems.append("it never struck")
    return problems + afterwards(corpus, reference, (reference.before, reference.after), work)


def complaints(call: Callable[[], object], named: str = "") -> list[str]:
    """What is wrong with how a call fails: an EcgError of one line, that names the error and nothing of the input."""
    try:
        call()
    except ec.EcgError as error:
        text = str(error)
        is_good = "\n" not in text and CANARY not in text and named in text
        return [] if is_good else [f"{type(error).__name__}: {error}"]
    except Exception as error:
        return ["".join(traceback.format_exception(error)[-3:])]
    return []


def lose_power(corpus: Corpus, reference: Reference, change: int, work: Path) -> list[str]:
    """The power goes before that change. What is wrong with the disk that a restart finds."""
    disk = power.PowerDisk(corpus.place / reference.command.start)
    for act in reference.changes[:change]:
        disk.do(act)
    how = power.HOW[change % len(power.HOW)]
    left = disk.crash(how, random.Random(change))
    if PLAN in left and left[PLAN] == disk.now()[PLAN]:
        left[PLAN] = _same_plan_for(corpus, reference, work)  # a plan names its store, and the one replayed another
    power.write(left, work)
    allowed = [reference.before] * (change <= reference.safe) + [reference.after] * (change > reference.commit)
    return [f"{how} unsynced left: {one}" for one in afterwards(corpus, reference, tuple(allowed), work)]


def _same_plan_for(corpus: Corpus, reference: Reference, work: Path) -> bytes:
    corpus.fresh(reference.command.start, work)
    make_plan(corpus, work)
    data = (work / PLAN).read_bytes()
    shutil.rmtree(work)
    return data


def afterwards(corpus: Corpus, reference: Reference, allowed: tuple[str, ...], work: Path) -> list[str]:
    """Is one of these snapshots in force, and does the command run again end as undisturbed? What is wrong if not."""
    try:
        found = snapshot(work / STORE)
        if found not in allowed:
            return [f"found the snapshot {found or 'none'} in force"]
        reference.command.run(corpus, work)
    except Exception as error:
        return ["afterwards: " + "".join(traceback.format_exception(error)[-3:])]
    after = tree(work)
    wrong = sorted({name for name, _ in after.items() ^ reference.expected.items()})
    return [f"other than undisturbed: {', '.join(wrong[:5])}"] if wrong else []


class _Reader(forks.Child):
    """A process that has opened the store, and reads all of it later."""

    def __init__(self, store: Path) -> None:
        ready, told = os.pipe()
        go, wait = os.pipe()[::-1]

        def work() -> list[str]:
            os.close(go)  # the end of the process that has it ends the waiting
            os.close(ready)
            opened = ec.open(store)
            os.write(told, b"r")
            os.read(wait, 1)
            try:
                opened.read(opened.index["row"])
            except ec.StoreError as error:
                return [str(error)]
            return []

        super().__init__(work)
        self._go = go
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        os.close(wait)

    def problems(self, may_be_gone: bool) -> list[str]:
        os.write(self._go, b"g")
        os.close(self._go)
        found = self.answer()
        return [] if may_be_gone else [f"a reader opened before: {problem}" for problem in found]
