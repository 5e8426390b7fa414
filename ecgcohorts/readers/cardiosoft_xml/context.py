"""What CardioSoft says around the signal: patient, test, device, filters. An allow-list; names are never read."""

import re
from datetime import datetime
from xml.etree.ElementTree import Element

from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers._shared.people import Context, age_between, age_in_years, sex_of
from ecgcohorts.readers._xml.values import attribute_of, moment, text_of

DATE = ("Year", "Month", "Day")
CLOCK = ("Hour", "Minute", "Second")

# Field -> element below the root, kept as Recording.fields for cohort rules. Not names, not clinicians, not free text.
KEPT = {
    "PID": "PatientInfo/PID",
    "Gender": "PatientInfo/Gender",
    "Race": "PatientInfo/Race",
    "Age": "PatientInfo/Age",
    "Height": "PatientInfo/Height",
    "Weight": "PatientInfo/Weight",
    "PaceMaker": "PatientInfo/PaceMaker",
    "ObservationType": "ObservationType",
    "LocationNumber": "PatientVisit/AssignedPatientLocation/LocationNumber",
    "Device": "ClinicalInfo/DeviceInfo/Desc",
    "SoftwareVer": "ClinicalInfo/DeviceInfo/SoftwareVer",
    "AnalysisVer": "ClinicalInfo/DeviceInfo/AnalysisVer",
    "Filter50Hz": "FilterSetting/Filter50Hz",
    "Filter60Hz": "FilterSetting/Filter60Hz",
    "CubicSpline": "FilterSetting/CubicSpline",
    "HighPass": "FilterSetting/HighPass",
    "LowPass": "FilterSetting/LowPass",
}
UNITS = ("Age", "Height", "Weight", "HighPass", "LowPass")  # elements with an attribute `units`
ON = ("yes", "on", "true", "1")  # how a filter says that it was on; our reading


def read_context(root: Element) -> Context:
    """Collect what stands around the signal. Whole sections may be missing."""
    fields = {field: text for field, path in KEPT.items() if (text := text_of(root, path))}
    fields |= {f"{field}Units": unit for field in UNITS if (unit := attribute_of(root, KEPT[field], "units"))}
    born, observed = root.find("PatientInfo/BirthDateTime"), root.find("ObservationDateTime")
    acquired_at = moment(*_parts(observed, DATE + CLOCK))
    for field, parts in (("BirthDate", _parts(born, DATE)), ("ObservationDate", _parts(observed, DATE))):
        fields |= {field: "-".join(parts)} if any(parts) else {}
    mains = [hz for hz in (50, 60) if fields.get(f"Filter{hz}Hz", "").casefold() in ON]
    patient_id = fields.get("PID")
    return Context(
        patient_id=None if is_placeholder(patient_id) else patient_id,
        age_years=_age_years(fields, moment(*_parts(born, DATE)), acquired_at),
        sex=sex_of(fields.get("Gender", "")),
        acquired_at=acquired_at,
        device=fields.get("Device"),
        site=fields.get("LocationNumber"),
        mains_hz=float(mains[0]) if len(mains) == 1 else None,
        fields=fields,
        notes=(*_pass_notes(fields), *(f"AC filter {hz} Hz" for hz in mains)),
    )


def _parts(element: Element | None, names: tuple[str, ...]) -> list[str]:
    return [text_of(element, name) for name in names]


def _age_years(fields: dict[str, str], born: datetime | None, acquired_at: datetime | None) -> float | None:
    """Stated age; without one, from the dates of birth and observation. An age without a unit is not guessed."""
    age = fields.get("Age", "")
    if re.fullmatch(r"[0-9]{1,6}", age):
        years = age_in_years(int(age), fields.get("AgeUnits", ""))
        if years is not None:
            return years
    return age_between(born, acquired_at)


def _pass_notes(fields: dict[str, str]) -> list[str]:
    notes = []
    for field, name in (("HighPass", "high-pass"), ("LowPass", "low-pass")):
        text = fields.get(field, "")
        if fields.get(f"{field}Units") == "Hz" and re.fullmatch(r"[0-9]{1,6}([.][0-9]{1,6})?", text):
            notes.append(f"{name} {float(text):g} Hz")
    return notes
