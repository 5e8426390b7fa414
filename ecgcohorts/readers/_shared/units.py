"""Voltages as files write them: units by name, and floating-point samples that no voltage has."""

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import canonical

NOT_FINITE = "infinite samples marked missing"

_MV = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "nv": 1e-6}
_MV |= {"volts": 1e3, "volt": 1e3, "millivolts": 1.0, "millivolt": 1.0, "microvolts": 1e-3, "microvolt": 1e-3}
_MV |= {"nanovolts": 1e-6, "nanovolt": 1e-6}
_MV["µv".casefold()] = 1e-3  # the micro sign folds to the Greek letter, so this is both

# No gain lies outside these: a 32-bit step of one picovolt, a 1-bit step of a megavolt. Our default. They also keep
# every product with a sample within the range of floats.
LEAST_PER_MV, MOST_PER_MV = 1e-9, 1e15


# Units are per lead and not per file: 4.88, 5 and -10 uV a step are all met in MUSE files.
def steps_per_mv(steps_per_unit: float, unit: str, lead: str, where: str) -> float:
    """Convert the integer steps per `unit` of a signal to steps per mV.

    The result is NaN if the unit is not a voltage and the signal is none of the twelve leads (respiration, pressure
    ...): such signals are kept beside the ECG and their mV are NaN. Raises UnreadableRecording if it is one of the twelve.
    """
    # Case is ignored: published headers write `mv`, and no ECG comes in megavolts.
    mv = _MV.get(unit.strip().casefold())
    if mv is not None:
        per_mv = steps_per_unit / mv
        if LEAST_PER_MV <= abs(per_mv) <= MOST_PER_MV:
            return per_mv
        raise UnreadableRecording(
            Reason.UNIT, f"{per_mv:g} steps per mV", "a possible gain", "Correct it in a copy of the file.", where
        )
    if canonical(lead) is None:
        return float("nan")
    raise UnreadableRecording(
        Reason.UNIT,
        f"the unit {unit[:40]!r} on lead {canonical(lead)}",
        "nV, uV, mV or V",
        "Correct the unit in a copy of the file.",
        where,
    )


def without_infinities(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Replace infinite samples by NaN. Returns the samples, and the note that says so if there were any."""
    infinite = np.isinf(samples)
    if not infinite.any():
        return samples, ()
    return np.where(infinite, np.nan, samples), (NOT_FINITE,)
