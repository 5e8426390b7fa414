"""What `InputSpec.normalisation` means: the one place where signals are scaled, for training, embedding and verification.

Works on numpy arrays and on torch tensors of any device, and loads neither torch nor scipy by itself.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

# none: mV as they are (CAPE, PCLR). window_z: minus the mean, over the deviation, of all leads and samples of the window
# (ECGFounder, ST-MEM). window_lead_z: of each lead. record_lead_z: of each lead of the whole recording (ECG-FM).
# cohort_lead_z: of each lead of the whole cohort (ECG-JEPA of Weimann and Conrad). min_max: each lead to [-1, 1] (HuBERT-ECG).
# window_min_max: all leads together to [0, 1] (MERL).
Normalisation = Literal[
    "none", "window_z", "window_lead_z", "record_lead_z", "cohort_lead_z", "min_max", "window_min_max"
]
# Scalings that need to know more of a recording than its window.
OF_STATISTICS: tuple[Normalisation, ...] = ("record_lead_z", "cohort_lead_z")
Signal = TypeVar("Signal", bound=Any)  # numpy array or torch tensor


def scaled(
    signal: Signal, normalisation: Normalisation, present: Any = None, statistics: tuple[Any, Any] | None = None
) -> Signal:
    """Scale windows: the same kind, shape and type comes back, with missing samples at 0.

    signal: float (..., lead, time) in mV. present: bool, broadcast against signal, True where a sample is; None:
    everywhere. Missing samples count in no mean, deviation or extreme. statistics: (mean, deviation), each (..., lead)
    in mV, for record_lead_z and cohort_lead_z. A lead that stands still becomes 0. Deviations are those of the
    population. Raises SpecError for a scaling that does not exist or lacks its statistics.

    >>> scaled(np.array([[1.0, 3.0], [5.0, 5.0]]), "window_lead_z").tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    if normalisation not in get_args(Normalisation):
        raise SpecError(f"found normalisation {normalisation!r}, expected one of {', '.join(get_args(Normalisation))}.")
    if "float" not in str(signal.dtype):
        raise SpecError(f"found a signal of {signal.dtype}, expected floating point numbers of mV.")
    if "float16" in str(signal.dtype):
        # Sums over a window overflow in half precision (bfloat16 loses them): a lead would become 0, or wrong.
        wide = signal.astype(np.float32) if _library(signal) is np else signal.float()
        return _like(scaled(wide, normalisation, present, statistics), signal)
    there = (signal == signal) if present is None else present & (signal == signal)  # False for NaN
    clean = _where(there, signal, 0.0)
    if normalisation == "none":
        return clean
    if normalisation in OF_STATISTICS:
        if statistics is None:
            raise SpecError(f"found no statistics for {normalisation}, expected mean and deviation of every lead.")
        mean, deviation = (value[..., None] for value in statistics)
        return _where(there & (deviation > 0), (clean - mean) / _where(deviation > 0, deviation, 1.0), 0.0)
    over = (-2, -1) if normalisation in ("window_z", "window_min_max") else (-1,)
    low = _extreme("amin", _where(there, signal, np.inf), over)
    high = _extreme("amax", _where(there, signal, -np.inf), over)
    # Told by its extremes: in float32 the mean of equal values is not one of them, and their deviation is not 0.
    moves = there & (high > low)
    if normalisation in ("min_max", "window_min_max"):
        share = (clean - low) / _where(high > low, high - low, 1.0)
        return _where(moves, 2 * share - 1 if normalisation == "min_max" else share, 0.0)
    count = _where(there, signal * 0 + 1, 0.0).sum(axis=over, keepdims=True).clip(1)
    centred = _where(there, clean - clean.sum(axis=over, keepdims=True) / count, 0.0)
    deviation = ((centred * centred).sum(axis=over, keepdims=True) / count) ** 0.5
    return _where(moves, centred / _where(deviation > 0, deviation, 1.0), 0.0)


def lead_statistics(
    index: "CohortIndex",
    entries: NDArray[np.integer],
    leads: Sequence[str],
    normalisation: Normalisation,
    whole: "CohortIndex | None" = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return mean and deviation, each float32 (entry, lead) in mV, for entries of an index; None if none are needed.

    record_lead_z takes what ingest kept of each recording. cohort_lead_z pools the recordings of each entry's cohort, all
    with the same weight, over `whole`: by default the index; give the store's where `index` is a part of it, so that a
    recording is scaled alike in every part. Raises SpecError if the store kept no statistics of a lead.
    """
    if normalisation not in OF_STATISTICS:
        return None
    from ecgcohorts.index.cohort_index import STATISTICS  # loads pandas, which a spec does without

    over = index if normalisation == "record_lead_z" or whole is None else whole
    absent = [lead for lead in leads if STATISTICS[0] + lead not in over.columns]
    if absent:
        raise SpecError(
            f"{normalisation}: found no statistics of {', '.join(absent)} in the index, expected mean and deviation of "
            "whole recordings. Ingest with a recipe that has the step record_statistics, such as plain-500."
        )
    mean, deviation = (np.stack([over[prefix + lead] for lead in leads], axis=1) for prefix in STATISTICS)
    if normalisation == "record_lead_z":
        return mean[entries], deviation[entries]
    cohorts = len(index.cohorts)
    names = np.array([index.cohorts.index(name) if name in index.cohorts else -1 for name in over.cohorts])
    cohort = names[over["cohort"]]
    pooled = np.zeros((2, cohorts, len(leads)), np.float32)
    for code in np.unique(cohort[cohort >= 0]):
        mine = cohort == code
        centre = mean[mine].mean(axis=0, dtype=np.float64)
        # Variance within recordings plus variance between their means.
        spread = np.square(deviation[mine], dtype=np.float64) + np.square(mean[mine] - centre)
        pooled[:, code] = centre, np.sqrt(spread.mean(axis=0))
    return pooled[0][index["cohort"][entries]], pooled[1][index["cohort"][entries]]


def _library(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return np
    import torch  # the value is a tensor of it

    return torch


def _like(value: Any, other: Any) -> Any:
    return value.astype(other.dtype) if _library(value) is np else value.to(other.dtype)


def _where(condition: Any, then: Any, otherwise: float) -> Any:
    """Choose by element, in the type of `then`."""
    if isinstance(then, np.ndarray | np.generic):
        return np.where(condition, then, np.asarray(otherwise, then.dtype))
    return _library(then).where(condition, then, otherwise)


def _extreme(name: str, values: Any, over: tuple[int, ...]) -> Any:
    return getattr(_library(values), name)(values, axis=over, keepdims=True)
