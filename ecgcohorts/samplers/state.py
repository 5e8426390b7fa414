"""The state of a sampler as JSON: its position, what it belongs to, and how it continues when `pairs` has changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ecgcohorts.errors import StateMismatch
from ecgcohorts.samplers.schedule import Course

VERSION = 1
FINGERPRINT_CHARS = 32  # of the index fingerprint: 128 bits
OPTIONAL = {"since", "left_out"}
NAMED = 8  # groups left out that a state or a message names
_REMEDY = "Build the sampler as it was when the state was saved, or start a new run."


@dataclass(frozen=True)
class Run:
    """A parsed state. since: epoch of the last change of `pairs`, and of each group pass, cursor and batches left then."""

    pairs: int
    epoch: int
    step: int
    since: tuple[int, dict[str, tuple[int, int, int]]] | None

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
            pairs, epoch, step = (_count(saved[name], least) for name, least in zip(numbers, (1, 0, 0), strict=True))
            since = saved.get("since")
            if since is not None:
                groups = {str(k): (_count(v[0]), _count(v[1]), _count(v[2])) for k, v in since["groups"].items()}
                since = (_count(since["epoch"]), groups)
        except (TypeError, KeyError, IndexError, AttributeError):
            raise StateMismatch(
                f"found a state whose position has other values than counts, expected whole numbers. {_REMEDY}"
            ) from None
        return cls(pairs, epoch, step, since)

    def restore(self, course: Course, names: Sequence[str]) -> Course:
        """Return the course of a saved run: as built, or continued from its last change of `pairs`."""
        if self.since is not None:
            first_epoch, groups = self.since
            # By name: a group that appeared or vanished has no cursor, and starting it anew would show patients twice.
            if set(groups) != set(names):
                raise StateMismatch(f"found a state of groups {sorted(groups)}, expected {sorted(names)}. {_REMEDY}")
            streams = [
                replace(stream, pass_=groups[name][0], cursor=min(groups[name][1], stream.patients))
                for name, stream in zip(names, course.streams, strict=True)
            ]
            course = Course(tuple(streams), course.quota, first_epoch, tuple(groups[name][2] for name in names))
        if self.epoch < course.first_epoch or self.step >= max(course.steps(self.epoch), 1):
            raise StateMismatch(
                f"found a state at step {self.step} of epoch {self.epoch}, expected one in range. {_REMEDY}"
            )
        return course

    def regroup(self, old: Course, fresh: Course, names: tuple[Sequence[str], Sequence[str]], seed: int) -> Course:
        """Return a course that carries every group's (pass, cursor) over to batches of another size.

        fresh: the course such a sampler begins with. names: groups of the old and of the fresh course. What is left of the
        epoch: with one pass an epoch, the patients this pass has not seen; with weights, as many as it still had to draw.
        """
        taken = old.schedule(self.epoch, seed)[0][: self.step]
        # How often each group had its turn follows from the schedule, so a state need not say it.
        turns = np.bincount(taken, minlength=len(old.streams)).tolist()
        proportional = all(quota == stream.per_pass for quota, stream in zip(fresh.quota, fresh.streams, strict=True))
        streams, left = [], []
        for name, stream, quota in zip(names[1], fresh.streams, fresh.quota, strict=True):
            # Pass numbers key permutations: it joins in this epoch's, so that it is in step with the others.
            if name not in names[0]:  # was too small for the old batches
                streams.append(replace(stream, pass_=self.epoch))
                left.append(quota)
                continue
            place = list(names[0]).index(name)
            pass_, cursor = old.cursor(self.epoch, place, turns[place])
            streams.append(replace(stream, pass_=pass_, cursor=cursor))
            if proportional:
                left.append(streams[-1].in_first_pass if pass_ == self.epoch else 0)
            else:
                # In patients, not batches: with `pairs` halved, a group that had ten batches left now has twenty.
                due = (old.counts(self.epoch)[place] - turns[place]) * self.pairs // stream.pairs
                left.append(due if self.step else quota)
        if sum(left) == 0:
            return Course(tuple(streams), fresh.quota, self.epoch + 1, fresh.quota)
        return Course(tuple(streams), fresh.quota, self.epoch, tuple(left))


def identity(sampler: str, fingerprint: str, seed: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a state belongs to, in few bytes: mappings are replaced by digests."""
    short = {name: _digest(value) if isinstance(value, Mapping) else value for name, value in parameters.items()}
    return {"sampler": sampler, "index": fingerprint[:FINGERPRINT_CHARS], "seed": seed, **short}


def save(
    belongs: Mapping[str, Any], pairs: int, position: tuple[int, int], since: Any, left_out: Sequence[str]
) -> dict[str, Any]:
    """Return the state as JSON. left_out: for human readers, and shortened; it follows from the rest."""
    state = {"version": VERSION, **belongs, "pairs": pairs, "epoch": position[0], "step": position[1]}
    return state | ({} if since is None else {"since": since}) | ({"left_out": shortened(left_out)} if left_out else {})


def shortened(names: Sequence[str]) -> list[str]:
    """Return some of the names and the number of the others, to keep states small and messages readable."""
    rest = len(names) - NAMED
    return [*names[:NAMED], *([f"and {rest} more"] if rest > 0 else [])]


def _count(value: Any, least: int = 0) -> int:
    # JSON knows true and 1.0; neither is a count.
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TypeError
    return value


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
