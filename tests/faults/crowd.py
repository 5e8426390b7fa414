"""Several processes at one store: writers that meet, readers while others commit, and workers killed at random."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import forks
import numpy as np
from corpus import OPTIONS, STORE, Corpus, add, clear, raw, tree

import ecgcohorts as ec
from ecgcohorts.errors import LockHeld, StoreError
from ecgcohorts.ingest import ingest, run
from ecgcohorts.store.upkeep.garbage import collect_garbage
from ecgcohorts.store.upkeep.labels import add_labels
from ecgcohorts.store.upkeep.remove import remove_patient

LOCK_SECONDS = 1.0  # within which a second writer has to be told
PATIENCE = 60.0  # seconds until a process that does not come on is taken for stuck
TRIES = 3  # of a writer that is told: the fastest counts, the machine may be busy


def writers_meet(corpus: Corpus, count: int, killed: bool, expected: dict[str, str], work: Path) -> list[str]:
    """So many ingests at once: one holds the lock until all others are told. killed: it is killed then, and one follows."""
    corpus.fresh("empty", work)
    notes = work.with_name(f"{work.name}.notes")
    notes.mkdir()
    children = [forks.Child(lambda one=one: _write(corpus, work, notes, one)) for one in range(count)]
    _wait(lambda: len(list(notes.glob("told*"))) == count - 1 and any(notes.glob("holds*")))
    winners = [int(path.name.removeprefix("holds")) for path in notes.glob("holds*")]
    if killed:
        for winner in winners:
            os.kill(children[winner].pid, signal.SIGKILL)
    (notes / "go").touch()
    answers = []
    for child in children:
        with suppress(forks.Died):
            answers.append(child.answer())
    clear(notes)
    told = [answer for answer in answers if isinstance(answer, float)]
    problems = [f"told after {seconds:.2f} s" for seconds in told if seconds > LOCK_SECONDS]
    problems += [str(answer) for answer in answers if not isinstance(answer, float) and answer != "written"]
    if len(told) != count - 1 or len(winners) != 1:
        problems.append(f"{len(winners)} of {count} got the lock, {len(told)} were told")
    if killed:
        corpus.ingest("north", work / STORE)  # nobody holds the lock of a dead process
    return problems + (["another store than of one writer"] if tree(work) != expected else [])


def _write(corpus: Corpus, work: Path, notes: Path, number: int) -> str | float:
    real = run._commit

    def held(*arguments: Any) -> Any:
        (notes / f"holds{number}").touch()
        _wait((notes / "go").exists)
        return real(*arguments)

    run._commit = held
    fastest = PATIENCE
    for _ in range(TRIES):
        start = time.monotonic()
        try:
            corpus.ingest("north", work / STORE)
            return "written"
        except LockHeld:
            fastest = min(fastest, time.monotonic() - start)
    (notes / f"told{number}").touch()
    return fastest


def _wait(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not ready() and time.monotonic() < end:
        time.sleep(0.005)


def readers_meet_commits(corpus: Corpus, seconds: float, readers: int, work: Path) -> tuple[list[str], dict[str, int]]:
    """One process commits for so long, of every kind, and others open and read all the time. Problems, and how much of it."""
    corpus.fresh("both", work)
    end = time.monotonic() + seconds
    writer = forks.Child(lambda: _commit_until(corpus, work, end))
    children = [forks.Child(lambda: _read_until(work / STORE, end)) for _ in range(readers)]
    answers = [writer.answer(), *(child.answer() for child in children)]
    problems = [answer for answer in answers if isinstance(answer, str)]
    counts = {"commits": 0, "opened": 0, "too busy to open": 0, "taken away while read": 0}
    for answer in answers:
        if not isinstance(answer, str):
            problems += answer.pop("problems", [])
            for name, number in answer.items():
                counts[name] += number
    return problems, counts


def _commit_until(corpus: Corpus, work: Path, end: float) -> dict[str, Any]:
    """Labels, a new patient, garbage, that patient's removal, and again. Both labels hold the number of the round."""
    store, table, number = work / STORE, work / "numbers.csv", 0
    ids = [f"CANARYREC{patient}v{visit}" for patient in range(3) for visit in range(1 + patient)]
    while time.monotonic() < end:
        number += 1
        table.write_text("id,a,b\n" + "".join(f"{one},{number},{number}\n" for one in ids))
        add_labels(store, table, "north", id_column="id", columns=["a", "b"], replace=True)
        new = raw.RawCohort(work / f"raw{number}", corpus.place / "north.yaml")
        add(new, f"CANARYNEW{number}", raw.beats(10_000 + number), 1000 + number, 0)
        ingest(new.folder, store, str(new.spec), OPTIONS)
        if number % 3 == 0:
            collect_garbage(store)
        if number % 2:
            remove_patient(store, "north", f"CANARYPAT{1000 + number}")
    return {"commits": number * 2 + number // 3 + (number + 1) // 2}


def _read_until(store: Path, end: float) -> dict[str, Any]:
    seen: dict[bytes, int] = {}  # recording -> hash of its strip, which never changes
    found: dict[str, Any] = {"opened": 0, "too busy to open": 0, "taken away while read": 0, "problems": []}
    latest = 0.0
    while time.monotonic() < end and len(found["problems"]) < 5:
        try:
            opened = ec.open(store)
        except StoreError as error:
            found["too busy to open"] += 1
            if "Try again" not in str(error):
                found["problems"].append(f"opening: {error}")
            continue
        found["opened"] += 1
        try:
            wrong, number = _torn(opened, seen)
        except StoreError as error:
            found["taken away while read"] += 1
            is_replaced = ec.open(store).fingerprint != opened.fingerprint
            wrong, number = [] if is_replaced else [f"reading: {error}"], latest
        if number < latest:
            wrong.append("an earlier snapshot came back")
        latest = number
        found["problems"] += wrong
    return found


def _torn(opened: ec.Store, seen: dict[bytes, int]) -> tuple[list[str], float]:
    """What does not fit together in a store, and the number its labels hold."""
    index, wrong = opened.index, []
    labels = [index.columns.get(f"label_{name}") for name in "ab"]
    numbers = {float(one) for column in labels if column is not None for one in column if np.isfinite(one)}
    if len(numbers) > 1 or (labels[0] is None) != (labels[1] is None):
        wrong.append(f"labels of several snapshots: {numbers}")
    if sum(one.accounting.stored for one in opened.segments) != len(index):
        wrong.append("an index of another snapshot")
    if not all(one.accounting.balanced() for one in opened.segments):
        wrong.append("accounts that do not balance")
    for name, strip in zip(index["recording_id"], opened.read(index["row"]), strict=True):
        content = hash(strip.tobytes())
        if seen.setdefault(name.tobytes(), content) != content:
            wrong.append("a recording with other samples")
    return wrong, max(numbers, default=0.0)
