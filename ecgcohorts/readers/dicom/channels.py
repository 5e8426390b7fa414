"""Read the channels of a DICOM multiplex group: which lead each one is, its gain, offset, skew and filters.

Sources: DICOM PS3.3, section C.10.9 (waveform module); PS3.16, CID 3001 (ECG leads); EN 1064 (SCP-ECG), section 3, whose
lead numbers both coding schemes count with.
"""

import math
import re
from typing import NamedTuple, NoReturn, Self

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import canonical
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers.dicom.elements import CHANNEL_SOURCE, FETCH_AGAIN, SENSITIVITY_UNITS, Items, Structure

CHANNEL_LABEL, CHANNEL_STATUS = 0x003A_0203, 0x003A_0205
SENSITIVITY, CORRECTION, BASELINE = 0x003A_0210, 0x003A_0212, 0x003A_0213
TIME_SKEW, SAMPLE_SKEW, BITS_STORED = 0x003A_0214, 0x003A_0215, 0x003A_021A
FILTER_LOW, FILTER_HIGH, NOTCH = 0x003A_0220, 0x003A_0221, 0x003A_0222

SCP_LEADS = {1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6"}
SCP_LEADS |= {61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
# The form of the MDC codes is not confirmed by a file.
_NUMBERED = {"SCPECG": re.compile(r"5\.6\.3-9-([0-9]{1,3})"), "MDC": re.compile(r"2:([0-9]{1,5})")}
_IN_BRACKETS = re.compile(r"\s*\([^()]*\)$")  # "Lead I (Einthoven)"
_NAME_LENGTH = 40  # our default

NO_BASELINE = "no ChannelBaseline, 0 taken"
STATUSES = ("TEST DATA", "DISCONNECTED", "QUESTIONABLE", "INVALID", "UNCALIBRATED", "UNRANGED")  # C.10.9.1.4.3: not OK


class Channel(NamedTuple):
    """One channel as declared."""

    name: str
    per_mv: float  # NaN for signals that are neither voltages nor one of the twelve leads
    baseline: float  # step that is 0 mV
    skew_s: float
    bits_stored: int | None
    statuses: tuple[str, ...]
    filters_hz: tuple[float | None, float | None, float | None]  # high-pass, low-pass, notch
    has_baseline: bool

    @classmethod
    def parse(cls, structure: Structure, item: Items, place: int, rate_hz: float) -> Self:
        """Parse one item of the channel definitions. Raises UnreadableRecording: UNIT if one of the twelve leads has no scale."""
        name = cls.find_name(structure, item, place)
        offset = structure.decimal(item, BASELINE)
        per_mv, baseline = _scale(structure, item, name, offset or 0.0)
        skew_s = (structure.decimal(item, TIME_SKEW) or 0.0) + (structure.decimal(item, SAMPLE_SKEW) or 0.0) / rate_hz
        statuses = structure.text(item, CHANNEL_STATUS).split("\\")
        return cls(
            name,
            per_mv,
            baseline,
            skew_s,
            structure.integer(item, BITS_STORED, 2),
            tuple(status for status in STATUSES if status in statuses),
            (structure.decimal(item, FILTER_LOW), structure.decimal(item, FILTER_HIGH), structure.decimal(item, NOTCH)),
            offset is not None,
        )

    @staticmethod
    def find_name(structure: Structure, item: Items, place: int) -> str:
        """Return the name of a channel: from its coded source, else from the meaning of the code, or the channel's label.

        Raises UnreadableRecording if the code says one of the twelve leads and the text another.
        """
        source = structure.code(item, CHANNEL_SOURCE)
        meaning = _IN_BRACKETS.sub("", source.meaning)
        numbered = _numbered_lead(source.scheme, source.value)
        if numbered is None:
            label = structure.text(item, CHANNEL_LABEL)
            candidates = [name for name in (source.value, meaning, label) if canonical(name) is not None]
            name = next(
                (name for name in (*candidates, meaning, label) if name.isprintable() and name), f"channel {place}"
            )
            return name[:_NAME_LENGTH]
        if canonical(meaning) not in (None, canonical(numbered)):
            _refuse(
                Reason.HEADER, f"a channel coded as {numbered}, but called {canonical(meaning)}", "one lead", structure
            )
        return numbered


def _numbered_lead(scheme: str, value: str) -> str | None:
    """Return the lead that an SCP-ECG number names, in either coding scheme; None if the code is not such a number."""
    pattern = _NUMBERED.get(scheme)
    found = pattern.fullmatch(value) if pattern else None
    if found is None:
        return None
    number = int(found[1])
    return SCP_LEADS.get(number, f"SCP lead {number}")


def _scale(structure: Structure, item: Items, name: str, offset: float) -> tuple[float, float]:
    """Return the steps per mV, and the step that is 0 mV: value = step * sensitivity * correction + offset, in the unit."""
    # pydicom takes 1.0 where the sensitivity is absent, and ignores its unit: here both are required.
    sensitivity, correction = structure.decimal(item, SENSITIVITY), structure.decimal(item, CORRECTION)
    unit = structure.code(item, SENSITIVITY_UNITS).value
    if sensitivity is None or correction is None or not unit:
        if canonical(name) is None:
            return math.nan, 0.0
        _refuse(Reason.UNIT, f"no sensitivity, correction factor or unit on lead {canonical(name)}", "all", structure)
    unit_per_step = sensitivity * correction
    if not unit_per_step or not math.isfinite(1 / unit_per_step) or not math.isfinite(offset / unit_per_step):
        _refuse(Reason.UNIT, f"{unit_per_step:g} units per step", "a possible gain", structure)
    # Adding 0 turns -0.0 into 0.0.
    return steps_per_mv(1 / unit_per_step, unit, name, structure.where), -offset / unit_per_step + 0.0


def _refuse(reason: Reason, found: str, expected: str, structure: Structure) -> NoReturn:
    raise UnreadableRecording(reason, found, expected, FETCH_AGAIN, structure.where)
