"""The base of the samplers that draw by themselves: groups of patients, the stateless plan, and changes of `pairs`."""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import index as index_of
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import PlanImpossible, SpecError, StateMismatch
from ecgcohorts.samplers import state
from ecgcohorts.samplers._values import Classes
from ecgcohorts.samplers._weighted import _Weighted
from ecgcohorts.samplers.balance import Strata
from ecgcohorts.samplers.options import Options, _integer
from ecgcohorts.samplers.pairs import PairDraw
from ecgcohorts.samplers.permutation import key_of, permuted_range
from ecgcohorts.samplers.plan import ABSENT, BatchPlan
from ecgcohorts.samplers.planner import BatchPlanner
from ecgcohorts.samplers.roster import MARK, Roster
from ecgcohorts.samplers.schedule import Course, Stream

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

ALL = "all cohorts"  # name of the one group of mixed batches
_OF_EVERYBODY = {
    "classes": "balance",
    "patient_weights": "patient_weights",
    "near": "near",
}  # of a state, and their options

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Group:
    """Patients that fill a batch together. cohort: None if they come from several."""

    name: str
    cohort: str | None
    units: NDArray[np.integer]  # places in the roster
    strata: Strata | _Weighted | None = None  # what makes its batches where they are balanced or drawn by weight


class Sampler(BatchPlanner):
    """Plans batches of `pairs` patients and `views` records of each. Abstract: see its children."""

    # Many parameters because subclasses decide what a unit is, how units are grouped, and what a state belongs to.
    def __init__(
        self,
        roster: Roster,
        pairs: int,
        seed: int,
        options: Options,
        by_cohort: bool,
        parameters: dict[str, Any],
        classes: Classes | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        pairs, seed = _integer("pairs", pairs, 1), _integer("seed", seed, 0)
        super().__init__(pairs, seed, options)
        self.adjacent = False  # the windows of a row lie side by side in time
        self._parameters = asdict(options) | parameters
        self._roster = roster
        self._draw = PairDraw(roster, options, seed)
        # Those saved when undated records counted as the most recent ones belong to other plans.
        self._parameters |= {"latest": "by date"} if self._draw.corrected else {}
        self._parameters |= {"exclude": roster.excluded} if roster.excluded else {}
        # With singles="self" everybody can be drawn: two windows of the one recording make the pair.
        usable = self._draw.has_pair if options.singles == "drop" else None
        self._candidates = _by_cohort(roster, usable) if by_cohort else _together(roster, usable)
        self._groups = self._large_enough()
        if classes is not None:
            self._balance(classes)
        if weights is not None:
            self._weigh(weights)
        # Kept in every plan, so that a log of batches says who was never in one.
        drawn = {group.name for group in self._groups}
        self.left_out = tuple(group.name for group in self._candidates if group.name not in drawn)
        self._changes: dict[str, Any] = {}  # of `pairs` and groups, in a run that was resumed
        self._course = self._course_of(self._groups, pairs)
        self._warn_of_rare()
        self._schedule: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    @classmethod
    def of_one_cohort_each(cls, planner: BatchPlanner, who: str) -> "Sampler":
        """Return a planner whose batches have one cohort each, as such. Raises SpecError for any other, naming who asks."""
        if not isinstance(planner, cls) or any(group.cohort is None for group in planner._groups):
            raise SpecError(
                f"found {type(planner).__name__} for {who}, expected a sampler whose batches have one cohort each: "
                "InDistributionBatchSampler, or RandomBatchSampler with by=."
            )
        return planner

    @property
    def is_plain(self) -> bool:
        """Whether each epoch is one pass of every group: nobody comes twice in it."""
        groups = self._groups
        every_group = self._weights(groups) is None and not any(group.strata for group in groups)
        return every_group and self.options.last == "drop"

    def check_people(self) -> None:
        """Raise PlanImpossible for people in several groups, where groups are joined: one of them could come twice in a batch."""
        person = self._roster.person
        if person is not None:
            people = person[np.concatenate([group.units for group in self._groups])]
            twice = len(people) - len(np.unique(people))
            if twice:
                raise PlanImpossible(
                    f"found {twice} people in several groups, expected each in one: a batch of several groups could hold them "
                    "twice. Leave their other records out (`exclude=`), or group by cohort."
                )

    @abstractmethod
    def _weights(self, groups: list[Group]) -> list[float] | None:
        """Return each group's share of an epoch's batches; None: as many as one pass of its patients makes."""

    @staticmethod
    def _classes(index: "CohortIndex | Roster", roster: Roster, balance: ArrayLike | str | None) -> Classes | None:
        if balance is None:
            return None
        return roster.classes(balance, None if isinstance(index, Roster) else index)

    @staticmethod
    def _unit_weights(
        index: "CohortIndex | Roster", roster: Roster, weights: ArrayLike | str | None
    ) -> NDArray[np.float64] | None:
        if weights is None:
            return None
        return roster.weights(weights, None if isinstance(index, Roster) else index)

    def _weigh(self, weights: NDArray[np.float64]) -> None:
        """Draw every patient in proportion to a weight."""
        if self.options.last != "drop" or "classes" in self._parameters:
            raise SpecError("found patient_weights with balance or another last, expected last='drop' and no balance.")
        self._parameters |= {"patient_weights": hashlib.sha256(weights.astype("<f8").tobytes()).hexdigest()[:16]}
        self._groups = [
            replace(group, strata=_Weighted.of(group.name, group.units, weights, self.pairs)) for group in self._groups
        ]

    def _balance(self, classes: Classes) -> None:
        """Give every class the same share of each batch."""
        # A padded or wrapped batch has no full share of every class.
        if self.options.last != "drop":
            raise SpecError(f"found balance with last={self.options.last!r}, expected last='drop'.")
        # A state saved with other classes would resume to other batches, so they are part of its identity.
        digest = hashlib.sha256("\0".join(classes[1]).encode() + classes[0].astype("<i8").tobytes())
        self._parameters |= {"classes": digest.hexdigest()[:16]}
        groups = []
        for group in self._groups:
            everyone = np.arange(len(self._roster))
            if group.cohort is not None:
                everyone = np.flatnonzero(self._roster.cohort == self._roster.cohorts.index(group.cohort))
            strata = Strata.of(group.name, group.units, classes, self.pairs, everyone)
            groups.append(replace(group, strata=strata))
        self._groups = groups

    @property
    def _names(self) -> list[str]:
        return [group.name for group in self._groups]

    def _large_enough(self) -> list[Group]:
        """Return the groups that can fill a batch. Raises PlanImpossible with the numbers and the ways out."""
        small = [group for group in self._candidates if len(group.units) < self.pairs]
        kept = [group for group in self._candidates if len(group.units) >= self.pairs]
        if not small:
            return kept
        single = self.options.singles == "drop" and self.options.views > 1
        who = "records" if self.options.views == 1 else "patients"
        need = f"patients with {self.options.views} records to draw from" if single else who
        names = ", ".join(state.shortened([f"{group.name} has {len(group.units)}" for group in small]))
        if kept and self.options.small_groups == "drop":
            log.warning("left out of every batch, fewer than pairs=%d %s: %s", self.pairs, need, names)
            return kept
        # The advice must be a number that works, not a hint to try.
        most = min(len(group.units) for group in small)
        remedies = [f"lower pairs to {most}"] if most else []
        remedies += ["pass small_groups='drop' to leave them out"] if kept else []
        remedies += ["pass singles='self' to use patients with fewer records"] if single else []
        raise PlanImpossible(
            f"found too few {need} ({names}), expected pairs={self.pairs} or more. "
            f"Either {', or '.join([*remedies, 'join another cohort'])}."
        )

    def _course_of(self, groups: list[Group], pairs: int, carry: bool = True) -> Course:
        """Return the order of batches in which these groups take turns. carry: see `Course.of`."""
        streams = tuple(Stream(len(group.units), pairs, self.options.last) for group in groups)
        return Course.of(streams, self._weights(groups), carry)

    def _rare(self) -> dict[str, int]:
        """Return the groups that are not in every epoch, and the number of epochs in which each surely has a batch; 0: none."""
        if self._course.shares is None:
            return {name: 0 for name, quota in zip(self._names, self._course.quota, strict=True) if not quota}
        within = dict(zip(self._names, self._course.shares.rarely.tolist(), strict=True))
        return {name: epochs for name, epochs in within.items() if epochs != 1}

    def _warn_of_rare(self) -> None:
        named = [f"{name} (one in {n} epochs)" if n else f"{name} (never)" for name, n in self._rare().items()]
        if named:
            log.warning(
                "groups with less than one batch an epoch, by their weight: %s", ", ".join(state.shortened(named))
            )

    def plan(self, epoch: int, step: int, rank: int = 0, world_size: int = 1) -> BatchPlan:
        """Return the contiguous slice of the global batch at (epoch, step) that belongs to a rank.

        Global batches do not depend on world_size. Raises IndexError for a step outside the epoch, PlanImpossible if
        `pairs` cannot be cut into world_size equal parts.
        """
        # A slice of one global batch, rather than a batch of each rank's own: then the number of processes does not change
        # which patients meet in a batch, and all ranks are on the same cohort without communication.
        epoch, step, rank, world_size = map(index_of, (epoch, step, rank, world_size))
        share = self.check_rank(rank, world_size)
        steps = self.steps(epoch)
        if not 0 <= step < steps:
            raise IndexError(f"found step {step} of epoch {epoch}, expected 0 to {steps - 1}.")
        groups, turns = self._schedule_of(epoch)
        group = self._groups[groups[step]]
        pass_, start = self._course.locate(epoch, int(groups[step]), int(turns[step]))
        units, rows, is_self, offsets = self._drawn(group, pass_, start, rank * share, share)
        patients = self._roster.patient_of(units)
        # Only last="pad" comes here: all ranks need arrays of one shape.
        if len(units) < share:
            empty = share - len(units)
            rows = np.pad(rows, ((0, empty), (0, 0)), constant_values=ABSENT)
            patients = np.pad(patients, (0, empty), constant_values=ABSENT)
            units = np.pad(units, (0, empty), constant_values=ABSENT)
            is_self, offsets = np.pad(is_self, (0, empty)), np.pad(offsets, ((0, empty), (0, 0)))
        if self.adjacent:  # one draw places the whole stretch
            offsets = np.repeat(offsets[:, :1], self.options.views, axis=1)
        return BatchPlan(
            group.cohort, rows, patients, is_self, offsets, epoch, step, self.left_out, self.adjacent, units
        )

    def _drawn(
        self, group: Group, pass_: int, start: int, skip: int, share: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
        """Return the units of one rank's part of the batch that begins at `start` of a pass, and the records drawn for each."""
        if group.strata is None:
            units = self._units(group, pass_, start + skip, start + skip + share)
            return units, *self._draw(units, pass_)
        # Such batches are counted over all passes: each class finds its own pass and place from this number.
        number = pass_ * (len(group.units) // self.pairs) + start // self.pairs
        units, passes = (one[skip : skip + share] for one in group.strata.batch(number, self.seed, group.name))
        rows = np.empty((share, self.options.views), np.int64)
        is_self, offsets = np.empty(share, bool), np.empty(rows.shape)
        for one in np.unique(passes).tolist():
            mine = passes == one
            rows[mine], is_self[mine], offsets[mine] = self._draw(units[mine], one)
        return units, rows, is_self, offsets

    def _units(self, group: Group, pass_: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return the units at places start .. stop - 1 of a pass. Past its end, last="wrap" goes on from its start."""
        size = len(group.units)
        ranges = [(start, min(stop, size))]
        if self.options.last == "wrap":
            # The rest of the batch comes from the start of the same pass, whose patients are not in it yet.
            ranges.append((max(start - size, 0), stop - size))
        places = [self._order(group, pass_, low, high) for low, high in ranges if low < high]
        return group.units[np.concatenate(places) if places else np.zeros(0, np.int64)].astype(np.int64)

    def _order(self, group: Group, pass_: int, low: int, high: int) -> NDArray[np.int64]:
        """Return which of a group's units stand at places low .. high - 1 of a pass: places in `group.units`."""
        # Keyed by the group's name and not its place: a cohort more in the index leaves the order of the others alone.
        # Positions of a keyed permutation, computed for these places only: no array of millions is shuffled.
        return permuted_range(low, high, len(group.units), key_of(self.seed, "order", group.name, pass_))

    def _schedule_of(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        kept = self._schedule
        if kept is None or kept[0] != epoch:
            kept = (epoch, *self._course.schedule(epoch, self.seed))
            self._schedule = kept  # one assignment: another thread sees the old one or the new one
        return kept[1], kept[2]

    def steps(self, epoch: int) -> int:
        """Return the number of batches in an epoch, equal on all ranks. An epoch in which `pairs` changed has fewer."""
        return self._course.steps(epoch)

    def describe(self) -> dict[str, Any]:
        """Return what an epoch consists of, in numbers, for logs and results."""
        has_pair = self._draw.has_pair
        # By weight, an epoch may have one batch of a group more than the next; an epoch cut short by a change is no example.
        shares = self._course.shares
        counts = self._course.quota if shares is None else shares.counts(self._position[0]).tolist()
        groups = {
            group.name: {
                "patients": len(group.units),
                "of_which_repeat_a_record": int((~has_pair[group.units]).sum()),
                "batches_per_epoch": quota,
                "passes_per_epoch": round(quota / stream.per_pass, 4),
                "patients_waiting_for_the_next_pass": max(stream.patients - stream.per_pass * self.pairs, 0),
            }
            for group, stream, quota in zip(self._groups, self._course.streams, counts, strict=True)
        }
        return {
            "sampler": type(self).__name__,
            "pairs": self.pairs,
            "seed": self.seed,
            **self._parameters,
            "steps_per_epoch": sum(self._course.quota),
            "groups": groups,
            "not_in_every_epoch": self._rare(),
            "left_out": {group.name: len(group.units) for group in self._candidates if group.name in self.left_out},
            "patients_dropped_as_singles": int((~has_pair).sum()) if self.options.singles == "drop" else 0,
        }

    @property
    def rows(self) -> NDArray[np.int64]:
        """All rows that plans may hold, and some of patients that are never drawn."""
        return self._roster.rows

    @property
    def index(self) -> "CohortIndex | None":
        """The index the sampler was built from; None if it was built from arrays."""
        return self._roster.index

    def _since(self, epoch: int | None = None) -> dict[str, Any] | None:
        epoch = self._position[0] if epoch is None else epoch
        plain = self._course.shares is None and self._weights(self._groups) is None
        # Passes are epochs again after the one in which something changed.
        return None if plain and epoch > self._course.first_epoch else self._changes or None

    def load_state_dict(self, saved: Mapping[str, Any], appended: str | Sequence[str | int] = ()) -> None:
        """Continue where a run stopped. If `pairs` has changed, each group goes on behind the patients it has already seen.

        appended: cohorts that the index or the table has gained since the state was saved. They join in the epoch under
        way; mixed batches take them at the start of an epoch only. Given again at a later restart, they change nothing.
        Records that were there must be as they were: those that are new stand behind them, ids of patients are integers (or
        texts that sort behind the others), nothing more is excluded, and batches are not balanced, weighted by patient, or
        of neighbours. Raises StateMismatch naming everything that differs.
        """
        one = isinstance(appended, str) or not isinstance(appended, Iterable)
        names = tuple(str(name) for name in ([appended] if one else appended))  # cohorts that are numbers, too
        # A script that restarts again still says what joined at an earlier restart.
        known = isinstance(saved, Mapping) and saved.get("index") == self._identity()["index"]
        if not names or (known and set(names) <= set(self._roster.cohorts)):
            super().load_state_dict(saved)
            return
        # Digests of all patients: they differ whatever was appended.
        fixed = [name for name in _OF_EVERYBODY if name in self._parameters]
        if fixed:
            raise StateMismatch(
                f"found appended={list(names)} for a sampler with {_OF_EVERYBODY[fixed[0]]}, expected one without: it depends "
                "on all patients. Start a new run, or leave the new cohorts out (`index.take`)."
            )
        self._resume(state.Run.parse(saved, self._belongs(saved, names)), names)
        self._move(self._position, loaded=True)

    def _resume(self, run: state.Run, appended: tuple[str, ...] = ()) -> None:
        def course_of(pairs: int, absent: set[str]) -> tuple[Course, list[str]]:
            groups = [
                one for one in self._candidates if len(one.units) >= pairs and one.name not in absent | {*appended}
            ]
            if not groups:
                raise StateMismatch(f"found a state of pairs={pairs}, expected no more than the patients of a group.")
            return self._course_of(groups, pairs, run.carried), [group.name for group in groups]

        mixed = self._candidates[0].cohort is None
        if appended and mixed and (run.step or run.changed):
            raise StateMismatch(
                f"found a state at step {run.step} of epoch {run.epoch}, expected the start of an epoch: mixed batches shuffle "
                "all patients together, and those of the epoch's end would change. Finish the epoch, then append."
            )
        course, names = run.replay(course_of, self.seed)
        position, changes = (run.epoch, run.step), run.changes()
        if mixed and appended:
            course = self._course_of(self._groups, self.pairs, run.carried)
        elif run.pairs != self.pairs or appended:
            if any(group.strata for group in self._groups):
                found = (
                    f"pairs={run.pairs}, expected {self.pairs}" if not appended else "other cohorts, expected the same"
                )
                raise StateMismatch(f"found a state of {found}: batches are balanced, or drawn by weight.")
            fresh = self._course_of(self._groups, self.pairs, run.carried)
            course = run.regroup(course, fresh, (names, self._names), self.seed)
            position, changes = (course.first_epoch, 0), run.changes(appended)
        self._course, self._schedule, self._position, self._changes = course, None, position, changes
        # A run of the first version keeps its rule, and with it the groups that this never draws.
        if self._weights(self._groups) is not None and not run.carried:
            self._warn_of_rare()

    def _identity(self) -> dict[str, Any]:
        identity = state.identity(type(self).__name__, self._roster.fingerprint, self.seed, self._parameters)
        return identity | ({"version": state.CARRIED} if self._course.shares is not None else {})

    def _belongs(self, saved: Mapping[str, Any], appended: Sequence[str] = ()) -> dict[str, Any]:
        roster, parameters = self._roster.before(appended), dict(self._parameters)
        if isinstance(parameters.get("weights"), Mapping):
            weights = parameters["weights"].items()
            parameters["weights"] = {name: weight for name, weight in weights if name not in appended}
        # Half as much is hashed as in earlier versions: their states are known by what they wrote.
        old = isinstance(saved, Mapping) and not str(saved.get("index", MARK)).startswith(MARK)
        fingerprint = roster.fingerprint_before if old else roster.fingerprint
        identity = state.identity(type(self).__name__, fingerprint, self.seed, parameters)
        # Weights were not carried in the first version: its runs go on as they were, and are saved so.
        weighted = self._weights(self._groups) is not None
        carried = weighted and not (isinstance(saved, Mapping) and saved.get("version") == state.VERSION)
        return identity | ({"version": state.CARRIED} if carried else {})


def _together(roster: Roster, usable: NDArray[np.bool_] | None) -> list[Group]:
    units = np.arange(len(roster)) if usable is None else np.flatnonzero(usable)
    return [Group(ALL, None, units.astype(roster.unit_dtype))]


def _by_cohort(roster: Roster, usable: NDArray[np.bool_] | None) -> list[Group]:
    """Usable units of every cohort that has any unit, in the order of the cohorts."""
    units = _together(roster, usable)[0].units
    code = roster.cohort.astype(np.min_scalar_type(len(roster.cohorts)))  # numpy sorts 16 bits in linear time
    in_order = bool((code[1:] >= code[:-1]).all())
    ordered = code if in_order else np.sort(code, kind="stable")
    first = np.searchsorted(ordered, np.arange(len(roster.cohorts) + 1))  # unit with which each cohort begins
    if in_order:
        cuts = np.searchsorted(units, first[1:-1].astype(units.dtype))
    else:
        units = units[np.argsort(code[units], kind="stable")]
        cuts = np.searchsorted(code[units], np.arange(1, len(roster.cohorts)))
    parts, present = np.split(units, cuts), np.diff(first) > 0
    return [Group(name, name, part) for name, part, there in zip(roster.cohorts, parts, present, strict=True) if there]
