"""What all campaigns stand on: the inputs, undisturbed runs, a folder for each trial, and a tally of what came of them."""

import gc
import importlib
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import forks
import live
import trials
from corpus import COMMANDS, Corpus, clear
from journal import Journal


@dataclass(frozen=True)
class Size:
    """How much is tried."""

    every: int  # of the points of each command, one in so many
    kills: int  # at random moments, of each command
    flips: int  # in a store; a tenth of it in weights, half of that in checkpoints
    meetings: int  # of writers
    seconds: float  # of reading beside commits
    harmed: int  # of the files, one in so many


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
    """The inputs, an undisturbed run of every command, and folders for trials. campaign: what is being tried."""

    def __init__(
        self,
        place: Path,
        size: Size,
        jobs: int,
        commands: Sequence[str] = tuple(COMMANDS),
        journal: Journal | None = None,
    ) -> None:
        self.place, self.size, self.jobs, self.commands = place, size, jobs, commands
        self.journal = journal or Journal(None, "", "")
        self.corpus, self.campaign = Corpus(place / "corpus"), ""
        self._count, self._references = 0, list[trials.Reference]()
        home = place / "home"
        home.mkdir()
        os.environ["XDG_CONFIG_HOME"] = str(home)  # nobody's own pseudonym key is touched
        self.warmed(self.corpus.make)

    def warmed(self, call: Callable[[], Any]) -> Any:
        """What a call answers in a child; what it imports late is imported here too, so that later children need not."""
        answer, modules = must(forks.in_child(lambda: [call(), list(sys.modules)]))
        for name in modules:
            if name not in sys.modules and not name.startswith("_"):
                importlib.import_module(name)
        assert threading.active_count() == 1, "forking is for processes of one thread"
        gc.freeze()  # children share the pages of what is imported
        return answer

    @property
    def references(self) -> list[trials.Reference]:
        if not self._references:
            self.record()
        return self._references

    def record(self) -> None:
        """Run every command undisturbed."""
        kept = self.place / "references"

        def run_all() -> None:
            references = []
            for name in self.commands:
                work = self.work()
                references.append(trials.undisturbed(self.corpus, COMMANDS[name], work))
                clear(work)
            kept.write_bytes(pickle.dumps(references))

        self.warmed(run_all)
        self._references = pickle.loads(kept.read_bytes())

    def work(self) -> Path:
        self._count += 1
        return self.place / f"w{self._count}"

    def spread(self, trials_by_name: Iterable[tuple[str, Callable[[Path], Any]]], jobs: int = 0) -> Iterator[Any]:
        """Answers of trials, of those not in the journal after carrying them out, each in a child and a folder of its own.

        Problems come with the name of the trial.
        """

        def trial(name: str, call: Callable[[Path], Any], work: Path) -> Any:
            try:
                answer = call(work)
            finally:
                clear(work)
            return [f"{name}: {problem}" for problem in answer] if isinstance(answer, list) else answer

        left = []
        for name, call in trials_by_name:
            if self.journal.knows(self.campaign, name):
                yield self.journal.answer(self.campaign, name)
            else:
                left.append((name, partial(trial, name, call, self.work())))
        for name, answer in forks.spread(left, jobs or self.jobs):
            self.journal.add(self.campaign, name, answer)
            yield answer

    def knows_all(self, names: Iterable[str]) -> bool:
        return all(self.journal.knows(self.campaign, name) for name in names)

    def need(self, state: str) -> None:
        """Make a starting state that is not there."""
        if not (self.corpus.place / state).exists():
            start, command = live.STATES[state]
            self.need(start)
            work = self.corpus.fresh(start, self.corpus.place / state)
            log = self.work()
            code = self.warmed(lambda: live.run(live.Site(self.corpus).words(live.ROWS[command].line, work), log))
            assert code == 0, log.read_text()

    def points(self, name: str, count: int) -> range:
        """A sample of the points of a command, all in the end for `every` 1; where it begins depends on the name."""
        return range(self.first(name), count, self.size.every)

    def first(self, name: str) -> int:
        return sum(name.encode()) % self.size.every


def must(answer: Any) -> Any:
    if isinstance(answer, str):
        raise AssertionError(answer)
    return answer
