"""The base of planners that hand out the batches of another sampler in other pieces, or in another order."""

import copy
import hashlib
from collections.abc import Mapping
from operator import index as index_of  # numpy's integers too, and no floats
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import SpecError, StateMismatch
from ecgcohorts.samplers.planner import BatchPlanner

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

_SETTINGS_CHARS = 100  # of a state; longer settings are replaced by a digest


_Wrapped = TypeVar("_Wrapped", bound=BatchPlanner)


class Wrapper(BatchPlanner, Generic[_Wrapped]):
    """Plans from the batches of another sampler, which is neither changed nor moved.

    settings: what a state must agree in. Raises SpecError for a sampler that is under way: its position would be lost.
    """

    in_one_piece = False  # whether the patients of a step belong together, and may be cut into micro-batches

    def __init__(self, sampler: _Wrapped, pairs: int, **settings: Any) -> None:
        super().__init__(pairs, sampler.seed, sampler.options)
        if sampler.position != (0, 0) or sampler._since() is not None:
            epoch, step = sampler.position
            raise SpecError(
                f"found a sampler at step {step} of epoch {epoch}, expected one that has not begun. Build it anew, and load "
                f"a state into the {type(self).__name__}."
            )
        # A micro-batch of empty places only, or a cohort's places filled with another's patients where ranks share them out.
        if sampler.options.last == "pad":
            raise SpecError(f"found last='pad' for {type(self).__name__}, expected 'drop' or 'wrap'.")
        # A copy: a state that the caller loads into the original later must not reach the batches planned here.
        self.sampler = copy.copy(sampler)
        self.left_out = sampler.left_out
        self._settings = settings
        self.check_rank(sampler.rank, sampler.world_size)
        self.rank, self.world_size = sampler.rank, sampler.world_size

    @property
    def rows(self) -> NDArray[np.int64]:
        """All rows that plans may hold, and some of patients that are never drawn."""
        return self.sampler.rows

    @property
    def index(self) -> "CohortIndex | None":
        """The index the sampler was built from; None if it was built from arrays."""
        return self.sampler.index

    def describe(self) -> dict[str, Any]:
        """Return what an epoch consists of, in numbers: what the wrapped sampler says, and what is made of it."""
        return {
            **self.sampler.describe(),
            "sampler": type(self).__name__,
            "wraps": type(self.sampler).__name__,
            "pairs": self.pairs,
            "steps_per_epoch": self.steps(0),
            **self._settings,
        }

    def _identity(self) -> dict[str, Any]:
        inner = self.sampler._identity()
        settings = ", ".join(f"{name}={value}" for name, value in self._settings.items())
        if len(settings) > _SETTINGS_CHARS:
            settings = hashlib.sha256(settings.encode()).hexdigest()[:16]
        # One text for the whole chain: keys of their own would be overwritten where a wrapper is wrapped.
        return inner | {"sampler": f"{type(self).__name__}({inner['sampler']}, {settings})"}

    def load_state_dict(self, saved: Mapping[str, Any], appended: ArrayLike = ()) -> None:
        """Continue where a run stopped. Raises StateMismatch naming everything that differs, and for cohorts that joined."""
        if np.size(appended):
            raise StateMismatch(
                f"found appended={appended!r} for {type(self).__name__}, expected a state of the same cohorts: only samplers "
                "that wrap no other take new ones. Start a new run, or leave the new cohorts out (`index.take`)."
            )
        super().load_state_dict(saved)

    def _place(self, epoch: int, step: int, rank: int, world_size: int) -> tuple[int, int, int, int]:
        """Return the arguments of `plan` as Python integers. Raises as it does, and TypeError for what is no integer."""
        epoch, step, rank, world_size = map(index_of, (epoch, step, rank, world_size))
        self.check_rank(rank, world_size)
        steps = self.steps(epoch)
        if not 0 <= step < steps:
            raise IndexError(f"found step {step} of epoch {epoch}, expected 0 to {steps - 1}.")
        return epoch, step, rank, world_size
