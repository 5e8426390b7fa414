"""What section 1 of an SCP file says about patient, time and device. An allow-list: names and free text are never read.

Source: EN 1064 section 1. Tags are (number, length, value); 255 ends them. Some writers store wrong lengths.
"""

import struct
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from ecgcohorts.readers._shared.people import Context, age_in_years, age_of, known, moment
from ecgcohorts.recording import Sex

PATIENT_ID, AGE, BORN, HEIGHT, WEIGHT, SEX, RACE = 2, 4, 5, 6, 7, 8, 9
DEVICE, DATE, TIME, HIGH_PASS, LOW_PASS, FILTERS, END = 14, 25, 26, 27, 28, 29, 255
# Bytes of the values that have one size. They are used where the stored lengths lead nowhere.
SIZES = {AGE: 3, BORN: 4, HEIGHT: 3, WEIGHT: 3, SEX: 1, RACE: 1, 11: 2, 12: 2, 24: 1}
SIZES |= {DATE: 4, TIME: 3, HIGH_PASS: 2, LOW_PASS: 2, FILTERS: 1, 33: 2}
AGE_UNITS = {1: "year", 2: "month", 3: "week", 4: "day", 5: "hour"}
SEXES: dict[int, Sex] = {1: "male", 2: "female"}
MAINS_HZ = {1: 50.0, 2: 60.0}
# Bytes of tag 14: three numbers, maker, model, protocol revision, language, mains.
DEVICE_BYTES = struct.Struct("<HHHxB6sBxBxB")
TWO_BYTE_TEXT = 0x07  # language code of ISO 10646; all others keep ASCII as it is
# Our default: no baseline filter of an ECG is higher. Some carts write 0.0001 Hz, not 0.01 Hz, a step.
MOST_HIGH_PASS_HZ = 3.0
FILTER_BITS = {
    0b0001: "AC filter 60 Hz",
    0b0010: "AC filter 50 Hz",
    0b0100: "artefact filter",
    0b1000: "baseline filter",
}
NOTCH_HZ = {0b01: 60.0, 0b10: 50.0}

WRONG_LENGTHS = "wrong tag lengths in section 1, known sizes used"
NOT_UNDERSTOOD = "section 1 not understood, nothing of it used"


class _Device(NamedTuple):
    """The part of tag 14 that is used."""

    institution: int
    department: int
    number: int
    maker: int
    model: bytes
    revision: int
    language: int
    mains: int


def read_context(body: bytes) -> Context:
    """Collect patient, time, device and filters. Never raises: an unreadable section leaves them unknown, with a note."""
    # The samples do not depend on section 1, so a broken one costs the patient and not the recording.
    tags = _walk(body, {})
    notes = []
    if tags is None:
        tags = _walk(body, SIZES)
        notes = [NOT_UNDERSTOOD] if tags is None else [WRONG_LENGTHS]
        tags = tags or {}
    device = _device(tags.get(DEVICE, b""))
    fields = _fields(tags, device)
    day, clock = _numbers("<HBB", tags.get(DATE)), _numbers("<BBB", tags.get(TIME))
    acquired_at = _moment(day, clock)
    age, unit = _numbers("<HB", tags.get(AGE)) or (0, 0)
    # Writers put an age of 0 where none is known, with or without a unit.
    stated = age_in_years(age, AGE_UNITS.get(unit, "")) if age else None
    age_years, doubts = age_of(stated, _moment(_numbers("<HBB", tags.get(BORN)), None), acquired_at)
    (bits,) = _numbers("<B", tags.get(FILTERS)) or (0,)
    (sex,) = _numbers("<B", tags.get(SEX)) or (0,)
    # The cart states the mains frequency; without it, a notch filter tells.
    mains = {MAINS_HZ[device.mains]} if device and device.mains in MAINS_HZ else set()
    mains = mains or {hz for bit, hz in NOTCH_HZ.items() if bits & bit}
    return Context(
        patient_id=known(fields.get("PatientID")),
        age_years=age_years,
        sex=SEXES.get(sex),
        acquired_at=acquired_at,
        device=fields.get("DeviceModel"),
        site=str(device.institution) if device and device.institution else None,
        mains_hz=mains.pop() if len(mains) == 1 else None,
        fields=fields,
        notes=(*notes, *_filter_notes(tags, bits), *doubts),
    )


def _walk(body: bytes, sizes: Mapping[int, int]) -> dict[int, bytes] | None:
    """Return the values by tag; None if the lengths lead past the end. `sizes` replace the stored lengths of some tags."""
    tags: dict[int, bytes] = {}
    at = 0
    while at < len(body):
        tag = body[at]
        if tag == END:
            return tags
        stored = _numbers("<H", body[at + 1 : at + 3])
        if stored is None:
            # A zero may pad the section to an even length.
            return tags if not any(body[at:]) else None
        start = at + 3
        at = start + sizes.get(tag, stored[0])
        if at > len(body):
            return None
        value = body[start:at]
        # A tag with two different values is as good as none: it might be the id of a patient.
        tags[tag] = value if tags.get(tag, value) == value else b""
    return tags


def _numbers(layout: str, value: bytes | None) -> tuple[int, ...] | None:
    """Unpack the numbers at the start of a value; None if it is absent or too short."""
    return struct.unpack_from(layout, value) if value and len(value) >= struct.calcsize(layout) else None


def _moment(day: tuple[int, ...] | None, clock: tuple[int, ...] | None) -> datetime | None:
    """Make a moment of (year, month, day) and perhaps (hour, minute, second); None if there is no such moment."""
    return moment(*(day or (0, 0, 0)), *(clock or ()))


def _device(value: bytes) -> _Device | None:
    return _Device(*DEVICE_BYTES.unpack_from(value)) if len(value) >= DEVICE_BYTES.size else None


def _text(value: bytes, device: _Device | None) -> str:
    """Decode a text up to its NUL, stripped."""
    # Two-byte text is known by its language code, or by its second, fourth ... bytes, all 0. Cut at the first of these it
    # would leave one letter, and one id for many patients.
    wide = len(value) >= 4 and any(value[2::2]) and not any(value[1::2])
    if wide or (device and device.language == TWO_BYTE_TEXT):
        text = value[: len(value) // 2 * 2].decode("utf-16-le", "replace")
    else:
        text = value.decode("latin-1")
    return text.split("\0", 1)[0].strip()


def _fields(tags: Mapping[int, bytes], device: _Device | None) -> dict[str, str]:
    """Return as texts what cohort rules may look at; absent tags are left out."""
    texts = {"PatientID": _text(tags.get(PATIENT_ID, b""), device)}
    layouts = {"Age": (AGE, "<HB"), "Height": (HEIGHT, "<HB"), "Weight": (WEIGHT, "<HB"), "Sex": (SEX, "<B")}
    layouts |= {"Race": (RACE, "<B"), "DateOfBirth": (BORN, "<HBB"), "AcquisitionDate": (DATE, "<HBB")}
    layouts |= {"AcquisitionTime": (TIME, "<BBB"), "HighPass": (HIGH_PASS, "<H"), "LowPass": (LOW_PASS, "<H")}
    layouts |= {"Filters": (FILTERS, "<B")}
    for name, (tag, layout) in layouts.items():
        texts[name] = " ".join(map(str, _numbers(layout, tags.get(tag)) or ()))
    if device:
        texts |= {"DeviceModel": _text(device.model, None), "DeviceMaker": str(device.maker)}
        texts |= {"Institution": str(device.institution), "Department": str(device.department)}
        texts |= {"DeviceNumber": str(device.number), "ProtocolRevision": str(device.revision)}
    return {name: text for name, text in texts.items() if text}


def _filter_notes(tags: Mapping[int, bytes], bits: int) -> list[str]:
    """Tell the filters in Hz. Tag 27 counts hundredths of a Hz; a value too high for that was counted otherwise and is left out."""
    (hundredths,), (low_pass,) = (_numbers("<H", tags.get(tag)) or (0,) for tag in (HIGH_PASS, LOW_PASS))
    notes = [f"high-pass {hundredths / 100:g} Hz"] if 0 < hundredths / 100 <= MOST_HIGH_PASS_HZ else []
    notes += [f"low-pass {low_pass} Hz"] if low_pass else []
    return notes + [name for bit, name in FILTER_BITS.items() if bits & bit]
