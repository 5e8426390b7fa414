"""Lead names, their order, and the exact derivations between limb leads: the only module that knows them."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, RejectedRecording

LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF")
CHEST_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6")
TWELVE_LEADS = LIMB_LEADS + CHEST_LEADS
# The eight independent leads of a standard 12-lead ECG; the other four follow from I and II.
EIGHT_LEADS = ("I", "II", *CHEST_LEADS)

_BY_FOLDED_NAME = {name.casefold(): name for name in TWELVE_LEADS}
_PREFIX = re.compile(r"^(?:mdc[ _-]*ecg[ _-]*lead|lead|ecg|ekg)[ _-]+", re.IGNORECASE)
_EINTHOVEN_D = re.compile(r"^d(i{1,3})$")  # DI, DII, DIII

# Each limb lead as a combination of two others (Einthoven 1912, Goldberger 1942). Tried in this order.
_DERIVATIONS: dict[str, tuple[dict[str, float], ...]] = {
    "I": (
        {"II": 1.0, "III": -1.0},
        {"aVR": -2.0, "II": -1.0},
        {"aVL": 2.0, "III": 1.0},
        {"aVL": 2 / 3, "aVR": -2 / 3},
        {"aVL": 4 / 3, "aVF": 2 / 3},
        {"aVR": -4 / 3, "aVF": -2 / 3},
    ),
    "II": (
        {"I": 1.0, "III": 1.0},
        {"aVR": -2.0, "I": -1.0},
        {"aVF": 2.0, "III": -1.0},
        {"aVF": 2 / 3, "aVR": -2 / 3},
        {"aVF": 4 / 3, "aVL": 2 / 3},
        {"aVR": -4 / 3, "aVL": -2 / 3},
    ),
    "III": ({"II": 1.0, "I": -1.0},),
    "aVR": ({"I": -0.5, "II": -0.5},),
    "aVL": ({"I": 1.0, "II": -0.5},),
    "aVF": ({"II": 1.0, "I": -0.5},),
}


def canonical(name: str) -> str | None:
    """Return the canonical name of one of the twelve standard leads, or None for any other signal.

    `MLII`, `V`, `MCL1`, `II-cal`, `-aVR` and `aVRneg` are other signals, not aliases.

    >>> canonical("MDC_ECG_LEAD_AVR"), canonical("DII"), canonical("MLII")
    ('aVR', 'II', None)
    """
    text = _PREFIX.sub("", name.strip())
    if text.startswith("-"):
        return None
    folded = re.sub(r"[ _-]+", "", text).casefold()
    folded = _EINTHOVEN_D.sub(r"\1", folded)
    return _BY_FOLDED_NAME.get(folded)


def positions(names: Sequence[str]) -> dict[str, int]:
    """Map each canonical lead to its place in `names`. Raises RejectedRecording if two names mean one lead."""
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        lead = canonical(name)
        if lead is None:
            continue
        if lead in found:
            raise RejectedRecording(
                Reason.DUPLICATE_LEAD, f"lead {lead} twice", "each lead once", "Name the leads of this file apart."
            )
        found[lead] = place
    return found


def select(
    signal: NDArray[np.floating], names: Sequence[str], wanted: Sequence[str] = EIGHT_LEADS
) -> NDArray[np.floating]:
    """Return the wanted leads, in the wanted order, deriving limb leads from two others where needed.

    signal: (lead, time) in one unit for all leads. Chest leads are never derived.
    Raises RejectedRecording naming what is missing.
    """
    have = positions(names)
    rows = []
    missing = []
    for lead in wanted:
        if lead in have:
            rows.append(signal[have[lead]])
            continue
        weights = next((w for w in _DERIVATIONS.get(lead, ()) if all(source in have for source in w)), None)
        if weights is None:
            missing.append(lead)
            continue
        rows.append(sum(weight * signal[have[source]] for source, weight in weights.items()))
    if missing:
        raise RejectedRecording(
            Reason.LEADS,
            f"no {', '.join(missing)} among {len(names)} signals",
            f"{', '.join(wanted)}, or two limb leads to derive I and II from",
        )
    return np.stack(rows)
