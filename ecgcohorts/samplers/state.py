"""The state of a sampler as JSON: its position, what it belongs to, and how it continues when `pairs` has changed."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np

from ecgcohorts.errors import StateMismatch
from ecgcohorts.samplers.schedule import Course

VERSION, CARRIED = 1, 2  # second version: remainders of weights are carried from epoch to epoch
FINGERPRINT_CHARS = 32  # of the index fingerprint: 128 bits
OPTIONAL = {"since", "changes", "left_out"}
NAMED = 8  # groups left out that a state or a message names
NAME_CHARS = 40  # of such a name
_REMEDY = "Build the sampler as it was when the state was saved, or start a new run."


Fresh = Callable[[int, set[str]], tuple[Course, list[str]]]  # pairs, groups that were not there: course and groups


@dataclass(frozen=True)
class _Life:
    """A part of a run with one number of `pairs` and one set of groups: where it ended.

    appended: groups that the next part has and this one had not.
    """

    pairs: int
    epoch: int
    step: int
    appended: tuple[str, ...] = ()

    def json(self) -> list[Any]:
        return [self.pairs, self.epoch, self.step, *([list(self.appended)] if self.appended else [])]


@dataclass(frozen=True)
class Run:
    """A parsed state. lives: the parts of the run before each change of `pairs` or groups, and what it is in now.

    since: in states of the first version, epoch of the last change, and of each group pass, cursor and batches left then.
    carried: remainders of weights go from epoch to epoch.
    """

    lives: tuple[_Life, ...]
    since: tuple[int, dict[str, tuple[int, int, int]]] | None
    carried: bool

    @property
    def pairs(self) -> int:
        return self.lives[-1].pairs

    @property
    def epoch(self) -> int:
        return self.lives[-1].epoch

    @property
    def step(self) -> int:
        return self.lives[-1].step

    @property
    def changed(self) -> bool:
        return self.since is not None or len(self.lives) > 1

    @classmethod
    def parse(cls, saved: Mapping[str, Any], belongs: Mapping[str, Any]) -> Self:
        """Check a state against a sampler. Raises StateMismatch naming everything that differs."""
        # All differences at once: one attempt shows everything that must be put back.
        expected = {"version": VERSION, **belongs}
        numbers = ("pairs", "epoch", "step")
        known = {*expected, *numbers, *OPTIONAL}
        if not isinstance(saved, Mapping) or not set(saved) <= known or not known - OPTIONAL <= set(saved):
            found = sorted(saved) if isinstance(saved, Mapping) else type(saved).__name__
            raise StateMismatch(f"found a state of {found}, expected {sorted(known)}. {_REMEDY}")
        differing = [
            f"{key} {saved[key]!r}, expected {value!r}" for key, value in expected.items() if saved[key] != value
        ]
        if differing:
            raise StateMismatch(f"found a state of {'; '.join(differing)}. {_REMEDY}")
        try:
            # States come from files that people may edit: true must not count as 1.
            ends = [*saved.get("changes", ()), [saved[name] for name in numbers]]
            lives = tuple(_Life(_count(a, 1), _count(b), _count(c), _names(rest)) for a, b, c, *rest in ends)
            since = saved.get("since")
            if since is not None:
                groups = {str(k): (_count(v[0]), _count(v[1]), _count(v[2])) for k, v in since["groups"].items()}
                since = (_count(since["epoch"]), groups)
        except (TypeError, KeyError, IndexError, AttributeError, ValueError):
            raise StateMismatch(
                f"found a state whose position has other values than counts, expected whole numbers. {_REMEDY}"
            ) from None
        return cls(lives, since, saved["version"] == CARRIED)

    def replay(self, course_of: Fresh, seed: int) -> tuple[Course, list[str]]:
        """Return the course of a saved run and the names of its groups: as built, or after every change of `pairs` and groups.

        course_of: what a new run begins with, of some `pairs` and without some groups.
        """
        parts = [
            course_of(life.pairs, {name for one in self.lives[number:-1] for name in one.appended})
            for number, life in enumerate(self.lives)
        ]
        course, names = self._restore(*parts[0]), parts[0][1]
        for (life, following), (fresh, then) in zip(pairwise(self.lives), parts[1:], strict=True):
            course, names = _regroup(life, course, fresh, (names, then), seed), then
            _check_place(course, following)
        return course, names

    def regroup(self, old: Course, fresh: Course, names: tuple[Sequence[str], Sequence[str]], seed: int) -> Course:
        """Return a course that goes on where the run stopped, with batches of another size or with more groups."""
        return _regroup(self.lives[-1], old, fresh, names, seed)

    def changes(self, appended: Sequence[str] | None = None) -> dict[str, Any]:
        """Return what a state keeps of earlier changes. appended: those of one more, where the run stopped; None: no more."""
        ends = (
            self.lives[:-1]
            if appended is None
            else (*self.lives[:-1], replace(self.lives[-1], appended=tuple(appended)))
        )
        kept: dict[str, Any] = {"changes": [life.json() for life in ends]} if ends else {}
        if self.since is not None:
            groups = {name: list(numbers) for name, numbers in self.since[1].items()}
            kept["since"] = {"epoch": self.since[0], "groups": groups}
        return kept

    def _restore(self, course: Course, names: Sequence[str]) -> Course:
        """Return a course continued from the last change of `pairs`, as the first version wrote it down."""
        if self.since is not None:
            first_epoch, groups = self.since
            # By name: a group that appeared or vanished has no cursor, and starting it anew would show patients twice.
            if set(groups) != set(names):
                raise StateMismatch(f"found a state of groups {sorted(groups)}, expected {sorted(names)}. {_REMEDY}")
            streams = [
                replace(stream, pass_=groups[name][0], cursor=min(groups[name][1], stream.patients))
                for name, stream in zip(names, course.streams, strict=True)
            ]
            left = tuple(groups[name][2] for name in names)
            course = replace(course, streams=tuple(streams), first_epoch=first_epoch, first_quota=left)
        _check_place(course, self.lives[0])
        return course


def _regroup(life: _Life, old: Course, fresh: Course, names: tuple[Sequence[str], Sequence[str]], seed: int) -> Course:
    """Return a course that carries every group's (pass, cursor) over to batches of another size, or to more groups.

    life: where the old course ended. fresh: the course such a sampler begins with. names: groups of the old and of the fresh
    course. What is left of the epoch: with one pass an epoch, the patients this pass has not seen; with weights, as many as
    it still had to draw.
    """
    taken = old.schedule(life.epoch, seed)[0][: life.step]
    # How often each group had its turn follows from the schedule, so a state need not say it.
    turns = np.bincount(taken, minlength=len(old.streams)).tolist()
    proportional = fresh.shares is None and fresh.quota == tuple(stream.per_pass for stream in fresh.streams)
    # Once for all: hundreds of sites are common, and thousands happen.
    place_of, counts = {name: place for place, name in enumerate(names[0])}, old.counts(life.epoch)
    streams, left = [], []
    for name, stream, quota in zip(names[1], fresh.streams, fresh.counts(life.epoch), strict=True):
        # Pass numbers key permutations: it joins in this epoch's, so that it is in step with the others.
        if name not in place_of:  # was too small for the old batches, or not there
            streams.append(replace(stream, pass_=life.epoch))
            left.append(quota)
            continue
        place = place_of[name]
        pass_, cursor = old.cursor(life.epoch, place, turns[place])
        streams.append(replace(stream, pass_=pass_, cursor=cursor))
        if proportional:
            left.append(streams[-1].in_first_pass if pass_ == life.epoch else 0)
        else:
            # In patients, not batches: with `pairs` halved, a group that had ten batches left now has twenty.
            due = (counts[place] - turns[place]) * life.pairs // stream.pairs
            left.append(due if life.step else quota)
    if sum(left) == 0:
        return replace(fresh, streams=tuple(streams), first_epoch=life.epoch + 1, first_quota=())
    return replace(fresh, streams=tuple(streams), first_epoch=life.epoch, first_quota=tuple(left))


def _check_place(course: Course, life: _Life) -> None:
    if life.epoch < course.first_epoch or life.step >= max(course.steps(life.epoch), 1):
        raise StateMismatch(
            f"found a state at step {life.step} of epoch {life.epoch}, expected one in range. {_REMEDY}"
        )


def identity(sampler: str, fingerprint: str, seed: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a state belongs to, in few bytes: mappings are replaced by digests."""
    short = {name: _digest(value) if isinstance(value, Mapping) else value for name, value in parameters.items()}
    return {"sampler": sampler, "index": fingerprint[:FINGERPRINT_CHARS], "seed": seed, **short}


def save(
    belongs: Mapping[str, Any],
    pairs: int,
    position: tuple[int, int],
    changed: Mapping[str, Any],
    left_out: Sequence[str],
) -> dict[str, Any]:
    """Return the state as JSON. left_out: for human readers, and shortened; it follows from the rest."""
    state = {"version": VERSION, **belongs, "pairs": pairs, "epoch": position[0], "step": position[1]}
    return state | dict(changed) | ({"left_out": shortened(left_out)} if left_out else {})


def shortened(names: Sequence[str]) -> list[str]:
    """Return some of the names and the number of the others, to keep states small and messages readable."""
    rest = len(names) - NAMED
    shown = [name if len(name) <= NAME_CHARS else f"{name[: NAME_CHARS - 3]}..." for name in names[:NAMED]]
    return [*shown, *([f"and {rest} more"] if rest > 0 else [])]


def _names(rest: Sequence[Any]) -> tuple[str, ...]:
    names = rest[0] if rest else []
    if len(rest) > 1 or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError
    return tuple(names)


def _count(value: Any, least: int = 0) -> int:
    # JSON knows true and 1.0; neither is a count.
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TypeError
    return value


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
