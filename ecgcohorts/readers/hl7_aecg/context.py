"""What an aECG says around the signal: subject, trial, device, site, filters. An allow-list; names are never read."""

import re
from datetime import datetime
from xml.etree.ElementTree import Element

from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers._shared.people import Context, age_between, age_in_years, sex_of
from ecgcohorts.readers._xml.values import NUMBER, attribute_of, moment, text_of

SUBJECT = "componentOf/timepointEvent/componentOf/subjectAssignment/subject/trialSubject"
PERSON = f"{SUBJECT}/subjectDemographicPerson"
TRIAL = "componentOf/timepointEvent/componentOf/subjectAssignment/componentOf/clinicalTrial"
DEVICE = "author/seriesAuthor/manufacturedSeriesDevice"
REPORTED_AGE = "21612-7"  # LOINC

# Field -> element below the root and its attribute, kept as Recording.fields for cohort rules.
KEPT = {
    "SubjectRoot": (f"{SUBJECT}/id", "root"),
    "SubjectID": (f"{SUBJECT}/id", "extension"),
    "GenderCode": (f"{PERSON}/administrativeGenderCode", "code"),
    "BirthTime": (f"{PERSON}/birthTime", "value"),
    "RaceCode": (f"{PERSON}/raceCode", "code"),
    "TrialID": (f"{TRIAL}/id", "extension"),
    "TrialSiteID": (f"{TRIAL}/location/trialSite/id", "extension"),
    "TestingSiteID": ("location/testingSite/id", "extension"),
    "TimepointCode": ("componentOf/timepointEvent/code", "code"),
    "RelativeTimepointCode": ("definition/relativeTimepoint/code", "code"),
}
# When the series began, where the time sequence only counts from zero: the series itself, then the whole document.
BEGINS = ("effectiveTime/low", "effectiveTime/center")

FILTER = "MDC_ECG_CTL_VBL_ATTR_FILTER_"
FILTERS = {"LOW_PASS": "CUTOFF_FREQ", "HIGH_PASS": "CUTOFF_FREQ", "NOTCH": "NOTCH_FREQ"}
MAINS_HZ = (50.0, 60.0)
AGES_DIFFER = "age by birth date differs from reported age"
APART_YEARS = 1.5  # a reported age is whole years; half a year of rounding beside that is our default

_TIME = re.compile(
    r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:[.]([0-9]{1,6})[0-9]*)?)?)?)?"
    r"(?:[+-][0-9]{2}:?[0-9]{2}|Z)?"
)


def read_context(root: Element, series: Element, starts: str) -> Context:
    """Collect what stands around the rhythm series. `starts`: absolute time of its first sample, or empty."""
    fields = {field: text for field, place in KEPT.items() if (text := attribute_of(root, *place))}
    # The Mindray writer has no subject id, but an element of its own.
    found = {
        "PatientID": text_of(root, f"{PERSON}/PatientID"),
        "DeviceModel": text_of(series, f"{DEVICE}/manufacturerModelName"),
        "DeviceSoftware": text_of(series, f"{DEVICE}/softwareName"),
    }
    fields |= {field: text for field, text in found.items() if text}
    age, unit = _reported_age(root)
    if age:
        fields |= {"ReportedAge": age, "ReportedAgeUnit": unit}
    filters = _filters(series)
    fields |= {f"{kind}_FILTER": text for kind, text in filters.items()}
    begins = [starts, *(attribute_of(place, path, "value") for place in (series, root) for path in BEGINS)]
    acquired_at = next((when for text in begins if (when := instant(text)) is not None), None)
    age_years, notes = _age_years(fields, acquired_at)
    mains = float(filters.get("NOTCH", "nan"))
    return Context(
        patient_id=patient_id_of(fields),
        age_years=age_years,
        sex=sex_of(fields.get("GenderCode", "")),
        acquired_at=acquired_at,
        device=fields.get("DeviceModel"),
        site=fields.get("TestingSiteID") or fields.get("TrialSiteID"),
        mains_hz=mains if mains in MAINS_HZ else None,
        fields=fields,
        notes=(*_filter_notes(filters), *notes),
    )


def patient_id_of(fields: dict[str, str]) -> str | None:
    """Subject id within its scope: its root, which makes it unique by HL7's rules; without one, the trial.

    The trial does not join in where there is a root: some writers make up a trial id per recording, which would make
    a patient of each. A root alone is the scope and no id. None for placeholders.
    """
    extension, own = fields.get("SubjectID"), fields.get("PatientID")
    if is_placeholder(extension):
        return None if is_placeholder(own) else own
    scope = fields.get("SubjectRoot") or fields.get("TrialID")
    return f"{scope}/{extension}" if scope else extension


def instant(text: str) -> datetime | None:
    """An HL7 time stamp of at least a day: the clock as written. A zone is dropped, since most formats have none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    *clock, fraction = match.groups()
    return moment(*clock, (fraction or "").ljust(6, "0"))


def _age_years(fields: dict[str, str], acquired_at: datetime | None) -> tuple[float | None, list[str]]:
    """Age by the birth date; without one, as reported."""
    text = fields.get("ReportedAge", "")
    reported = None
    if NUMBER.fullmatch(text):
        reported = age_in_years(float(text.replace(",", ".")), fields["ReportedAgeUnit"])
    exact = age_between(instant(fields.get("BirthTime", "")), acquired_at)
    apart = exact is not None and reported is not None and abs(exact - reported) > APART_YEARS
    return (exact if exact is not None else reported), [AGES_DIFFER] if apart else []


def _reported_age(root: Element) -> tuple[str, str]:
    for observation in root.findall("controlVariable/relatedObservation"):
        if attribute_of(observation, "code", "code") == REPORTED_AGE:
            return attribute_of(observation, "value", "value"), attribute_of(observation, "value", "unit")
    return "", ""


def _filters(series: Element) -> dict[str, str]:
    """Kind of filter -> its frequency in Hz as written, for filters that give one."""
    found = {}
    for variable in series.findall("controlVariable/controlVariable"):
        kind = attribute_of(variable, "code", "code").removeprefix(FILTER)
        for part in variable.findall("component/controlVariable"):
            text = attribute_of(part, "value", "value")
            wanted = attribute_of(part, "code", "code") == f"{FILTER}{FILTERS.get(kind, '')}"
            if (
                wanted
                and attribute_of(part, "value", "unit") == "Hz"
                and re.fullmatch(r"[0-9]{1,6}([.][0-9]{1,6})?", text)
            ):
                found[kind] = text
    return found


def _filter_notes(filters: dict[str, str]) -> list[str]:
    names = (("HIGH_PASS", "high-pass"), ("LOW_PASS", "low-pass"), ("NOTCH", "AC filter"))
    return [f"{name} {float(filters[kind]):g} Hz" for kind, name in names if kind in filters]
