"""What a MUSE file says around the signal: patient, test, device, filters. An allow-list; names are never read."""

import re
from datetime import datetime
from xml.etree.ElementTree import Element

from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers._shared.people import Context, age_between, age_in_years, sex_of
from ecgcohorts.readers._xml.values import moment, text_of

MAINS_HZ = {"50": 50.0, "60": 60.0}

# Section -> elements kept as Recording.fields, for cohort rules. Not names, not clinicians, not free text.
KEPT = {
    "MuseInfo": ("MuseVersion",),
    "PatientDemographics": (
        *("PatientID", "PatientAge", "AgeUnits", "DateofBirth", "Gender", "Race"),
        *("HeightIN", "HeightCM", "WeightLBS", "WeightKG"),
    ),
    "TestDemographics": (
        *("DataType", "Site", "SiteName", "Location", "LocationName", "Status", "Priority", "CartNumber"),
        *("AcquisitionDevice", "AcquisitionSoftwareVersion", "AnalysisSoftwareVersion"),
        *("AcquisitionDate", "AcquisitionTime"),
    ),
}
FILTERS = ("HighPassFilter", "LowPassFilter", "ACFilter")

_DATE = re.compile(r"([0-9]{1,2})[-/]([0-9]{1,2})[-/]([0-9]{4})")  # month first, as MUSE writes it
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")


def read_context(root: Element, waveform: Element) -> Context:
    """Collect what stands around a waveform. Whole sections may be missing: de-identified files drop them."""
    fields: dict[str, str] = {}
    for section, tags in KEPT.items():
        element = root.find(section)
        fields |= {tag: text for tag in tags if (text := text_of(element, tag))}
    filters = {tag: [text for each in waveform.findall(tag) if (text := (each.text or "").strip())] for tag in FILTERS}
    spikes = [text for each in waveform.findall("PaceSpikes") for part in each.itertext() for text in part.split()]
    fields |= {tag: " ".join(texts) for tag, texts in filters.items() if texts}
    if spikes:
        fields["PaceSpikes"] = " ".join(spikes)
    patient_id = fields.get("PatientID")
    acquired_at = _moment(fields.get("AcquisitionDate", ""), fields.get("AcquisitionTime", ""))
    off = [text_of(lead, "LeadID") for lead in waveform.findall("LeadData") if text_of(lead, "LeadOff") == "TRUE"]
    mains = {MAINS_HZ[text] for text in filters["ACFilter"] if text in MAINS_HZ}
    return Context(
        patient_id=None if is_placeholder(patient_id) else patient_id,
        age_years=_age_years(fields, acquired_at),
        sex=sex_of(fields.get("Gender", "")),
        acquired_at=acquired_at,
        device=fields.get("AcquisitionDevice"),
        site=fields.get("Site") or fields.get("SiteName"),
        mains_hz=mains.pop() if len(mains) == 1 else None,
        fields=fields,
        notes=(*_filter_notes(filters), *([f"pace spikes: {len(spikes)}"] if spikes else []), *_off_notes(off)),
    )


def _age_years(fields: dict[str, str], acquired_at: datetime | None) -> float | None:
    """Stated age; without one, from the dates of birth and acquisition. An age without a unit is not guessed."""
    age = fields.get("PatientAge", "")
    if re.fullmatch(r"[0-9]{1,6}", age):
        return age_in_years(int(age), fields.get("AgeUnits", ""))
    return age_between(_moment(fields.get("DateofBirth", ""), ""), acquired_at)


def _moment(date: str, time: str) -> datetime | None:
    found = _DATE.fullmatch(date)
    if found is None:
        return None
    month, day, year = (int(part) for part in found.groups())
    clock = _TIME.fullmatch(time)
    return moment(year, month, day, *(clock.groups() if clock else ()))


def _filter_notes(filters: dict[str, list[str]]) -> list[str]:
    """Filters in Hz. HighPassFilter is written in hundredths of a Hz: 16 means 0.16 Hz."""
    notes = []
    for tag, scale, what in (("HighPassFilter", 0.01, "high-pass"), ("LowPassFilter", 1.0, "low-pass")):
        if filters[tag] and re.fullmatch(r"[0-9]{1,6}", filters[tag][0]):
            notes.append(f"{what} {int(filters[tag][0]) * scale:g} Hz")
    known = [text for text in dict.fromkeys(filters["ACFilter"]) if text in MAINS_HZ]
    return [*notes, f"AC filter {' and '.join(known)} Hz"] if known else notes


def _off_notes(leads: list[str]) -> list[str]:
    return [f"lead off: {len(leads)}"] if leads else []
