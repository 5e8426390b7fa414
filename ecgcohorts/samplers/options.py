"""Options of the samplers, checked when a sampler is built."""

from dataclasses import dataclass
from operator import index
from typing import Any, ClassVar, Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from ecgcohorts.errors import SpecError

Singles = Literal["drop", "self"]
SmallGroups = Literal["raise", "drop"]
Last = Literal["drop", "pad", "wrap"]
Draw = Literal["uniform", "latest"]
Unknown = Literal["raise", "group"]

_CHOICES = {
    "singles": ("drop", "self"),
    "small_groups": ("raise", "drop"),
    "last": ("drop", "pad", "wrap"),
    "draw": ("uniform", "latest"),
}


class PairOptions(TypedDict, total=False):
    """Keywords of both samplers, as `from_arrays` takes them."""

    views: int
    singles: Singles
    small_groups: SmallGroups
    last: Last
    min_gap_days: float | None
    max_gap_days: float | None
    draw: Draw
    balance: ArrayLike | None
    identities: ArrayLike | None
    exclude: ArrayLike | None
    patient_weights: ArrayLike | None


@dataclass(frozen=True)
class Options:
    """How records of a patient are drawn, and what happens to those that do not fill a batch.

    singles: patients with fewer records than views are left out ("drop") or seen with repeats ("self").
    small_groups: a group that cannot fill a batch is an error ("raise") or left out ("drop").
    last: patients at the end of a pass that do not fill a batch wait for the next pass ("drop"), make a batch with
    empty places ("pad"), or a batch filled up from the start of the same pass ("wrap").
    min_gap_days, max_gap_days: bounds on the time between the two records of a pair.
    draw: any records of a patient ("uniform"), or always the most recent ones ("latest"), in random order.
    """

    least_views: ClassVar[int] = 2

    views: int = 2
    singles: Singles = "drop"
    small_groups: SmallGroups = "raise"
    last: Last = "drop"
    min_gap_days: float | None = None
    max_gap_days: float | None = None
    draw: Draw = "uniform"

    def __post_init__(self) -> None:
        # Type checkers read the Literal above; a configuration file or a notebook is checked by nobody but this.
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SpecError(f"found {name}={getattr(self, name)!r}, expected one of {', '.join(choices)}.")
        # Frozen, but a numpy integer would not go into the JSON of a state.
        object.__setattr__(self, "views", _integer("views", self.views, self.least_views))
        for name in ("min_gap_days", "max_gap_days"):
            value = getattr(self, name)
            # A duration is an integer to numpy.
            if isinstance(value, np.number | np.bool) and value.dtype.kind != "m":
                value = value.item()
                object.__setattr__(self, name, value)
            if not isinstance(value, int | float | None) or isinstance(value, np.generic):
                raise SpecError(f"found {name}={value!r}, expected a number of days.")
        low, high = self.min_gap_days, self.max_gap_days
        if (low is not None and not low >= 0) or (high is not None and not high >= (low or 0)):
            raise SpecError(f"found gaps of {low} to {high} days, expected 0 <= min_gap_days <= max_gap_days.")
        # The table of allowed partners in pairs.py counts pairs; about three records at a time it says nothing.
        if self.bounds_gap and self.views != 2:
            raise SpecError(
                f"found time gap bounds with views={self.views}, expected pairs. Set views=2, or no bounds."
            )
        if self.bounds_gap and self.draw != "uniform":
            raise SpecError(f"found time gap bounds with draw={self.draw!r}, expected only one of them.")

    @property
    def bounds_gap(self) -> bool:
        return self.min_gap_days is not None or self.max_gap_days is not None


def _integer(name: str, value: Any, least: int) -> int:
    """Return a Python integer. Raises SpecError for what is none, or too small. True is none, though Python says it is 1."""
    try:
        number = -1 if isinstance(value, bool | np.bool) else index(value)
    except TypeError:
        number = -1
    if number < least:
        raise SpecError(f"found {name}={value!r}, expected an integer of {least} or more.")
    return number


def _number(name: str, value: Any) -> float:
    """Return a float. Raises SpecError for what is no number; texts are none, whatever they read."""
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise SpecError(f"found {name}={value!r}, expected a number.")


def _numbers(name: str, values: Any) -> dict[str, float]:
    """Return a number for each name. Raises SpecError for anything else."""
    try:
        return {str(key): _number(name, value) for key, value in values.items()}
    except (AttributeError, SpecError):
        raise SpecError(
            f"found {name}={values!r}, expected a number for each cohort, such as {{'a': 0.75, 'b': 0.25}}."
        ) from None
