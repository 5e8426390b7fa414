"""Lead names, their order, and the exact derivations between limb leads: the only module that knows them."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, RejectedRecording

LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF")
CHEST_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6")
TWELVE_LEADS = LIMB_LEADS + CHEST_LEADS
# The eight independent leads of a standard 12-lead ECG; the other four follow from I and II.
EIGHT_LEADS = ("I", "II", *CHEST_LEADS)

_BY_FOLDED_NAME = {name.casefold(): name for name in TWELVE_LEADS}
# Spaces, or one hyphen: in "Lead -aVR" the hyphen is a minus.
_PREFIX = re.compile(r"^(?:mdc[ _-]*ecg[ _-]*lead|lead|ecg|ekg)(?:[ _]+|-)", re.IGNORECASE)
_EINTHOVEN_D = re.compile(r"^d(i{1,3})$")  # DI, DII, DIII
_CHEST_C = re.compile(r"^c([1-6])$")  # C1 to C6, the electrodes of V1 to V6 (IEC 60601-2-25)
_LEAST_C = 3  # leads of that spelling in one file; an EEG beside one or two ECG leads has C3 and C4; our default

# Each limb lead as (share of I, share of II): Einthoven 1912, Goldberger 1942. Any two of them give all the others.
_IN_I_AND_II = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}


@lru_cache(maxsize=4096)  # names repeat; they come from files, so there is a bound
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
    folded = _CHEST_C.sub(r"v\1", _EINTHOVEN_D.sub(r"\1", folded))
    return _BY_FOLDED_NAME.get(folded)


def standard(names: Sequence[str]) -> list[str | None]:
    """Return the canonical name of each signal of one file, None for those that are no standard lead.

    C1 to C6 are V1 to V6 beside a limb lead and no V lead; else they are electrodes of an EEG, or other signals.

    >>> standard(["I", "C1", "C2", "C3"]), standard(["ECG I", "C3", "C4"]), standard(["V1", "C1", "C2", "C3"])
    (['I', 'V1', 'V2', 'V3'], ['I', None, None], ['V1', None, None, None])
    """
    found = [canonical(name) for name in names]
    by_c = {at for at, lead in enumerate(found) if lead in CHEST_LEADS and "v" not in names[at].casefold()}
    others = {lead for at, lead in enumerate(found) if at not in by_c}
    if len(by_c) < _LEAST_C or others.isdisjoint(LIMB_LEADS) or not others.isdisjoint(CHEST_LEADS):
        return [None if at in by_c else lead for at, lead in enumerate(found)]
    return found


def positions(names: Sequence[str]) -> dict[str, int]:
    """Map each canonical lead to its position in `names`. Raises RejectedRecording if two names mean one lead."""
    return dict(_positions(tuple(names)))


@lru_cache(maxsize=1024)  # the recordings of a cohort have the same few lists of names
def _positions(names: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for position, lead in enumerate(standard(names)):
        if lead is None:
            continue
        if lead in found:
            raise RejectedRecording(
                Reason.DUPLICATE_LEAD, f"lead {lead} twice", "each lead once", "Name the leads of this file apart."
            )
        found[lead] = position
    return found


def select(
    signal: NDArray[np.floating], names: Sequence[str], wanted: Sequence[str] = EIGHT_LEADS
) -> NDArray[np.floating]:
    """Return the wanted leads, in the wanted order, deriving limb leads from two others where needed.

    signal: (lead, time) in one unit for all leads. Chest leads are never derived.
    Raises RejectedRecording naming what is missing.
    """
    have = positions(names)
    limb = [lead for lead in LIMB_LEADS if lead in have][:2]
    derivable = LIMB_LEADS if len(limb) == 2 else ()
    missing = [lead for lead in wanted if lead not in have and lead not in derivable]
    if missing:
        raise RejectedRecording(
            Reason.LEADS,
            f"no {', '.join(missing)} among {len(names)} signals",
            f"{', '.join(wanted)}, or two limb leads to derive I and II from",
        )
    return np.stack([signal[have[lead]] if lead in have else _derive(lead, limb, have, signal) for lead in wanted])


def _derive(lead: str, limb: list[str], have: dict[str, int], signal: NDArray[np.floating]) -> NDArray[np.floating]:
    """Derive one limb lead as a combination of two others."""
    one, two = (_IN_I_AND_II[name] for name in limb)
    first, second = _IN_I_AND_II[lead]
    area = one[0] * two[1] - one[1] * two[0]  # Cramer's rule; no two limb leads are parallel
    weights = (first * two[1] - second * two[0]) / area, (one[0] * second - one[1] * first) / area
    derived: NDArray[np.floating] = weights[0] * signal[have[limb[0]]] + weights[1] * signal[have[limb[1]]]
    return derived
