"""What every source of batch plans has in common: iteration over one rank's slices, a position, and a state."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import count
from operator import index as index_of  # numpy's integers too, and no floats
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import PlanImpossible, StateMismatch
from ecgcohorts.samplers import state
from ecgcohorts.samplers.options import Options
from ecgcohorts.samplers.plan import ABSENT, BatchPlan

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

_T = TypeVar("_T")
_Place = tuple[int, int]  # epoch and step
_Make = Callable[[Iterable[_Place]], Generator[tuple[_Place, _T], None, None]]


class BatchPlanner(ABC):
    """Plans batches of `pairs` patients. Abstract: loaders and adapters of frameworks take any child of it.

    It sees ids, never signals. `plan` depends on its arguments and on what the planner was built from; the only state,
    `position`, serves iteration. Plans may be made in several threads; iterate in one, and once at a time.
    """

    def __init__(self, pairs: int, seed: int, options: Options) -> None:
        self.pairs, self.seed, self.options = pairs, seed, options
        self.rank, self.world_size = 0, 1  # of iteration
        self.left_out: tuple[str, ...] = ()  # groups that are never drawn
        self._position = (0, 0)
        self._begun: _Place | None = None  # where the iteration in progress, or the last one, started
        self._ended = False  # that iteration has come to the end of its epoch
        self._moves = 0  # how often somebody went elsewhere: a running iteration goes on from there
        self._loaded = False  # position comes from a state, and no batch has followed

    @abstractmethod
    def plan(self, epoch: int, step: int, rank: int = 0, world_size: int = 1) -> BatchPlan:
        """Return the slice of the global batch at (epoch, step) that belongs to a rank.

        Global batches do not depend on world_size. Raises IndexError for a step outside the epoch, PlanImpossible if
        `pairs` cannot be cut into world_size equal parts.
        """

    @abstractmethod
    def steps(self, epoch: int) -> int:
        """Return the number of batches in an epoch, equal on all ranks."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what an epoch consists of, in numbers, for logs and results."""

    @property
    @abstractmethod
    def rows(self) -> NDArray[np.int64]:
        """All rows that plans may hold, and some of patients that are never drawn."""

    @property
    @abstractmethod
    def index(self) -> "CohortIndex | None":
        """The index the planner was built from; None if it was built from arrays."""

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """Return what a state belongs to, as plain JSON: whatever plans depend on, but `pairs`."""

    def _belongs(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a state to be loaded has to belong to, in the words of the version that saved it."""
        return self._identity()

    def _since(self, epoch: int | None = None) -> dict[str, Any] | None:
        """Return what a state saved in an epoch keeps of changes of `pairs`; None if there were none, or all is over."""
        return None

    def check_rank(self, rank: int, world_size: int) -> int:
        """Return the number of patients per rank. Raises PlanImpossible if the ranks cannot share them equally."""
        if world_size < 1 or self.pairs % world_size:
            raise PlanImpossible(
                f"found pairs={self.pairs} for {world_size} ranks, expected a multiple. Set pairs so that all ranks get "
                "the same number of patients, or use another number of ranks."
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"found rank {rank}, expected 0 to {world_size - 1}.")
        return self.pairs // world_size

    @property
    def batch_size(self) -> int:
        """Number of rows in a batch of this rank, views included: what frameworks compare with the length of a batch."""
        return self.check_rank(self.rank, self.world_size) * self.options.views

    @property
    def drop_last(self) -> bool:
        """Are all batches full? Only last="pad" makes shorter ones."""
        return self.options.last != "pad"

    def __len__(self) -> int:
        """Return the number of batches in the current epoch, on any rank, with any number of workers."""
        return self.steps(self._position[0])

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Yield the rest of the current epoch: int64 [batch * view], view fastest, so a torch batch_sampler.

        A batch counts as consumed when it is handed out. Where `load_state_dict`, `set_epoch` or `restart` moves the sampler
        in between, iteration goes on from there. Empty places of a padded batch are left out, and its patients are dealt out
        evenly, so that every rank gets some: where there are fewer patients than ranks, some come twice.
        """
        return self._follow(self._rows_of, 1)

    def _rows_of(self, places: Iterable[_Place]) -> Generator[tuple[_Place, NDArray[np.int64]], None, None]:
        yield from ((place, self._rows_at(*place)) for place in places)

    def _follow(self, make: _Make[_T], epochs: int | None) -> Generator[_T, None, None]:
        """Yield what is made of the places from the position on, to the end of so many epochs; None: without end.

        make: yields places and what belongs to each, and may work ahead. What it has made when somebody moves the position
        is dropped, and iteration goes on from the new one.
        """
        while True:
            epoch, _ = self._begun = self._position
            self._ended, moves, reached = False, self._moves, epoch
            with closing(make(self._onwards(self._position, epochs))) as made:
                for place, item in made:
                    if self._moves != moves:
                        break
                    # Before the hand-over: code after a yield does not run until the next batch is asked for, and a state
                    # saved in between would replay this one.
                    self._position, self._loaded, reached = self._behind(*place), False, place[0]
                    yield item
                    if self._moves != moves:
                        break
                else:
                    self._ended = True
                    return
            epochs = epochs and epochs - (reached - epoch)

    def _onwards(self, position: _Place, epochs: int | None) -> Iterator[_Place]:
        epoch, first = position
        for later in count(epoch) if epochs is None else range(epoch, epoch + epochs):
            yield from ((later, step) for step in range(first, self.steps(later)))
            first = 0

    def _rows_at(self, epoch: int, step: int) -> NDArray[np.int64]:
        rows = self.plan(epoch, step, self.rank, self.world_size).rows
        # An epoch has one short batch a group at most, and only rank 0 may still have a full share of it.
        if self.options.last == "pad" and self.world_size > 1 and self._is_short(epoch, step):
            # An empty batch would end a DataLoader's epoch with an IndexError on this rank while the others train on.
            whole = self.plan(epoch, step).rows
            whole = whole[whole[:, 0] != ABSENT]
            own = np.array_split(np.arange(len(whole)), self.world_size)[self.rank]
            rows = whole[own if len(own) else [self.rank % len(whole)]]
        rows = rows.ravel()
        return rows[rows != ABSENT]

    def _is_short(self, epoch: int, step: int) -> bool:
        last = self.plan(epoch, step, self.world_size - 1, self.world_size).rows
        return bool((last[-1] == ABSENT).any())

    def on_rank(self, rank: int, world_size: int) -> Self:
        """Return a sampler of the same batches that iterates over one rank's slices of them."""
        rank, world_size = index_of(rank), index_of(world_size)
        self.check_rank(rank, world_size)
        # A shallow copy: a roster of five million records is shared, and only the position is its own.
        sampler = copy.copy(self)
        sampler.rank, sampler.world_size = rank, world_size
        return sampler

    @property
    def position(self) -> _Place:
        """Epoch and step of the next batch."""
        return self._position

    def mark_consumed(self, epoch: int, step: int) -> None:
        """Move behind the batch at (epoch, step); behind the last one of an epoch, the next epoch begins."""
        self._move(self._behind(index_of(epoch), index_of(step)))

    def _behind(self, epoch: int, step: int) -> _Place:
        return (epoch, step + 1) if step + 1 < self.steps(epoch) else (epoch + 1, 0)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, also within an iteration. Optional: epochs advance by themselves.

        Directly after `load_state_dict`, the epoch of the state is not started again: loops call this at the beginning of
        every epoch, also of one that they resume in the middle.
        """
        epoch = index_of(epoch)
        if self._loaded and epoch == self._position[0]:
            return
        self.steps(epoch)  # raises for an epoch that cannot be
        self._move((epoch, 0))

    def restart(self) -> None:
        """Go back to the first batch of the current epoch."""
        self._move((self._position[0], 0))

    def _move(self, position: _Place, loaded: bool = False) -> None:
        self._position, self._begun, self._ended, self._loaded = position, None, False, loaded
        self._moves += 1

    def endless(self) -> Iterator[NDArray[np.int64]]:
        """Yield batches from the position on, epoch after epoch, as iteration over each of them does."""
        return self._follow(self._rows_of, None)

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Return the position of the next batch and what it belongs to, as plain JSON of less than 1 KB.

        consumed: batches that the loop has used since the iteration in progress began, at the start of an epoch or where
        a run resumed; after `set_epoch`, `restart` or `load_state_dict` within it, since then. Worker processes ask for
        batches ahead of the loop, and a sampler cannot see that: without `consumed`, those count as used. 0 after an
        iteration that has ended is none of the next one. Raises ValueError if it is negative or more than were handed out.
        """
        between = self._ended and consumed is not None and index_of(consumed) == 0
        return self._state_at(self._position if consumed is None or between else self._after(consumed))

    def _state_at(self, position: _Place) -> dict[str, Any]:
        return state.save(self._identity(), self.pairs, position, self._since(position[0]) or {}, self.left_out)

    def _after(self, consumed: int) -> _Place:
        """Return the position behind so many batches of the iteration in progress."""
        epoch, step = self._begun or self._position
        step += index_of(consumed)
        while epoch < self._position[0] and step >= self.steps(epoch):
            epoch, step = epoch + 1, step - self.steps(epoch)
        if consumed < 0 or (epoch, step) > self._position:
            raise ValueError(
                f"found consumed={consumed}, expected 0 to the number of batches handed out since iteration began. Count "
                "from 0 in every iteration, also in one that resumed within an epoch."
            )
        return epoch, step

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where a run stopped. If `pairs` has changed, a sampler goes on behind the patients it has already seen.

        Raises StateMismatch naming everything that differs.
        """
        self._resume(state.Run.parse(saved, self._belongs(saved)))
        self._move(self._position, loaded=True)

    def _resume(self, run: state.Run) -> None:
        """Move to the position of a saved run. Children that carry cursors over to other batches also accept other `pairs`."""
        if run.pairs != self.pairs or run.changed:
            raise StateMismatch(
                f"found a state of pairs={run.pairs}, expected one of {self.pairs} that never changed: "
                f"{type(self).__name__} cannot carry a run over to batches of another size. Start a new run."
            )
        if run.step >= max(self.steps(run.epoch), 1):
            raise StateMismatch(
                f"found a state at step {run.step} of epoch {run.epoch}, expected one in range. Start a new run."
            )
        self._position = run.epoch, run.step
