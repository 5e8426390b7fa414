"""Voltage units as files spell them: one table for all readers."""

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import canonical

_MV = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "nv": 1e-6}
_MV |= {"volts": 1e3, "volt": 1e3, "millivolts": 1.0, "millivolt": 1.0, "microvolts": 1e-3, "microvolt": 1e-3}
_MV |= {"nanovolts": 1e-6, "nanovolt": 1e-6}
_MV["µv".casefold()] = 1e-3  # the micro sign folds to the Greek letter, so this is both


def steps_per_mv(steps_per_unit: float, unit: str, lead: str, where: str) -> float:
    """Integer steps per mV of a signal that has so many steps per `unit`.

    NaN if the unit is no voltage and the signal none of the twelve leads (respiration, pressure ...): such signals
    are kept beside the ECG and their mV are NaN. Raises UnreadableRecording if it is one of the twelve.
    """
    # Case is ignored: published headers write `mv`, and no ECG comes in megavolts.
    mv = _MV.get(unit.strip().casefold())
    if mv is not None:
        return steps_per_unit / mv
    if canonical(lead) is None:
        return float("nan")
    raise UnreadableRecording(
        Reason.UNIT,
        f"the unit {unit[:40]!r} on lead {canonical(lead)}",
        "nV, uV, mV or V",
        "Correct the unit in a copy of the file.",
        where,
    )
