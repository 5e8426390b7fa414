"""What a DICOM file says about patient, time and device. An allow-list: names are never read.

pydicom decodes these attributes, with their character sets. It is given them alone, cut out of the file: it trusts the
lengths and depths it reads, and neither a waveform nor a private sequence is needed here.
"""

import re
import warnings
from datetime import datetime
from io import BytesIO

from ecgcohorts.errors import Reason, UnreadableRecording, needs_extra
from ecgcohorts.leads import canonical
from ecgcohorts.readers._shared.people import Context, age_in_years, age_of, known, moment, sex_of
from ecgcohorts.readers.dicom.channels import Channel
from ecgcohorts.readers.dicom.elements import FETCH_AGAIN, INSTITUTION_CODE, Structure

CHARACTER_SET = 0x0008_0005
# Tag -> keyword of the attributes kept as Recording.fields for cohort rules: no names, no free text.
KEPT = {
    0x0008_0016: "SOPClassUID",
    0x0008_0020: "StudyDate",
    0x0008_002A: "AcquisitionDateTime",
    0x0008_0030: "StudyTime",
    0x0008_0060: "Modality",
    0x0008_0070: "Manufacturer",
    0x0008_1090: "ManufacturerModelName",
    0x0010_0020: "PatientID",
    0x0010_0030: "PatientBirthDate",
    0x0010_0040: "PatientSex",
    0x0010_1010: "PatientAge",
    0x0010_1020: "PatientSize",
    0x0010_1030: "PatientWeight",
    0x0018_1020: "SoftwareVersions",
}
LONGEST = 1024  # bytes of one attribute; the value representations above allow at most 64 characters
MAINS_HZ = (50.0, 60.0)

_AGE = re.compile(r"([0-9]{3})([DWMY])")
_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
# Fractions of seconds and the offset from UTC are not kept: a recording's time is the one on the wall.
_TIME = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2})?(?:\.[0-9]*)?(?:[+-][0-9]{4})?")


def read_context(structure: Structure, channels: tuple[Channel, ...]) -> Context:
    """Collect patient, time, device and filters. Raises UnreadableRecording if an attribute cannot be decoded."""
    fields = _attributes(structure)
    start = fields.get("AcquisitionDateTime", "")
    acquired_at = _moment(start[:8], start[8:]) or _moment(fields.get("StudyDate", ""), fields.get("StudyTime", ""))
    age = _AGE.fullmatch(fields.get("PatientAge", ""))
    born = _moment(fields.get("PatientBirthDate", ""), "")
    age_years, doubts = age_of(age_in_years(int(age[1]), age[2]) if age else None, born, acquired_at)
    # A notch at another frequency, or two of them, say nothing about the mains.
    mains = {channel.filters_hz[2] for channel in channels} & set(MAINS_HZ)
    return Context(
        patient_id=known(fields.get("PatientID")),
        age_years=age_years,
        sex=sex_of(fields.get("PatientSex", "")),
        acquired_at=acquired_at,
        device=fields.get("ManufacturerModelName"),
        site=structure.code(structure.elements, INSTITUTION_CODE).value or None,
        mains_hz=mains.pop() if len(mains) == 1 else None,
        fields=fields,
        notes=(*_filter_notes(channels), *doubts),
    )


def _attributes(structure: Structure) -> dict[str, str]:
    """Map keywords to texts of the attributes above that are present and not empty."""
    data, elements = structure.data, structure.elements
    wanted = [elements[tag] for tag in (CHARACTER_SET, *KEPT) if tag in elements]
    # pydicom splits and decodes values of any length.
    if any(element.stop - element.value > LONGEST for element in wanted):
        raise UnreadableRecording(
            Reason.LIMIT, "an attribute of patient or device too long", f"{LONGEST} bytes", FETCH_AGAIN, structure.where
        )
    cut = data[: structure.meta_stop] + b"".join(data[element.start : element.stop] for element in wanted)
    with needs_extra("ingest"):
        import pydicom  # here, because it takes a third of a second
        from pydicom.multival import MultiValue

    fields = {}
    try:
        # Its warnings and its log quote values of the file, and neither may get out.
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(BytesIO(cut))
            for tag, keyword in KEPT.items():
                value = dataset[tag].value if tag in dataset else None
                parts = value if isinstance(value, MultiValue) else [value]
                fields[keyword] = "\\".join(str(part) for part in parts if part is not None).strip("\0 ")
    except Exception as error:  # it raises whatever its parts raise
        # `from None`: its message may quote a value.
        raise UnreadableRecording(
            Reason.HEADER, f"{type(error).__name__} in pydicom", "readable attributes", FETCH_AGAIN, structure.where
        ) from None
    return {keyword: text for keyword, text in fields.items() if text}


def _moment(day: str, time: str) -> datetime | None:
    """Make a moment of a DA, and of a TM where there is one; None if that is not possible."""
    found, clock = _DATE.fullmatch(day), _TIME.fullmatch(time)
    return moment(*found.groups(), *(clock.groups() if clock else ())) if found else None


def _filter_notes(channels: tuple[Channel, ...]) -> tuple[str, ...]:
    """Tell the filters of the ECG in Hz. A notch of 0 is one that is off."""
    channels = tuple(channel for channel in channels if canonical(channel.name) is not None) or channels
    notes = []
    for place, what in enumerate(("high-pass", "low-pass", "AC filter")):
        found = sorted({hz for channel in channels if (hz := channel.filters_hz[place])})
        if found:
            notes.append(f"{what} {' and '.join(f'{hz:g}' for hz in found)} Hz")
    return tuple(notes)
