"""Feature scalers fitted on the training cohort, and the health of the features they see.

A unit that hardly moves in the training cohort has a tiny standard deviation. If another cohort switches it on, the
plain z-score sends 1e3 to 1e6 into the head, whose sigmoid saturates: then a failed transfer says nothing about the
embedding. So every result out of distribution is given with the plain and with a guarded scaler.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

ScalerName = Literal["plain", "guarded"]
SCALERS: tuple[ScalerName, ...] = ("plain", "guarded")

# Share of the median deviation of the units that move at all; our default. The released CAPE features have units at
# 1e-6 to 2.7e-3 beside a median of 15, then none up to 0.056.
_NEAR_DEAD = 1e-3
# Our default, in standard deviations: beyond any plausible value of a live unit.
_CLIP = 10.0

Features = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Scaler:
    """Scales features to (x - mean) * inverse, cut at +-clip; `inverse` is 0 for constant units."""

    mean: NDArray[np.float64]
    inverse: NDArray[np.float64]
    clip: float = np.inf

    def __call__(self, features: Features) -> Features:
        """Scale (record, unit) to the same shape, float32."""
        scaled = (features - self.mean) * self.inverse
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)


class Health(BaseModel):
    """State of the training cohort's features, and how far other cohorts leave their range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    units: int
    dead: int  # deviation exactly 0 in the training cohort
    near_dead: int  # above 0, below 1e-3 of the median
    effective_rank: float
    largest_z: dict[str, float]  # cohort -> largest |plain z|

    @classmethod
    def of(cls, train: Features, others: dict[str, Features]) -> Self:
        """Describe the units in the training cohort, and the largest plain |z| they reach in each cohort of `others`."""
        scaler = fit_scaler(train, "plain")
        deviation = np.divide(1.0, scaler.inverse, out=np.zeros_like(scaler.inverse), where=scaler.inverse > 0)
        limit = _near_dead_limit(deviation)
        return cls(
            units=train.shape[1],
            dead=int((deviation == 0).sum()),
            near_dead=int(((deviation > 0) & (deviation < limit)).sum()),
            effective_rank=_effective_rank(train),
            largest_z={name: float(np.abs(scaler(x)).max(initial=0.0)) for name, x in others.items()},
        )


def _near_dead_limit(deviation: NDArray[np.float64]) -> float:
    """Return the deviation below which a unit is near-dead; 0 if no unit moves."""
    moving = deviation[deviation > 0]
    return _NEAR_DEAD * float(np.median(moving)) if len(moving) else 0.0


def fit_scaler(features: Features, name: ScalerName) -> _Scaler:
    """Fit a scaler to features (record, unit).

    plain: the paper's z-score, 0 where the deviation is 0. guarded: deviations floored at the near-dead limit, values
    cut at 10 deviations, constant units dropped (0).
    """
    # float64: the float32 mean of equal numbers is not that number, and a constant unit would seem to move.
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    deviation[np.ptp(features, axis=0) == 0] = 0.0
    if name == "guarded":
        floored = np.maximum(deviation, _near_dead_limit(deviation))
        deviation = np.where(deviation > 0, floored, 0.0)
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return _Scaler(mean, inverse, _CLIP if name == "guarded" else np.inf)


def _effective_rank(features: Features) -> float:
    """Return exp of the entropy of the centred features' normalised singular values. Source: Roy and Vetterli 2007."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    # Eigenvalues of the (unit, unit) scatter are the squared singular values, for any number of records.
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred), 0, None))
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum()
    # 0 log 0 is 0 in the entropy, and NaN in numpy.
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))
