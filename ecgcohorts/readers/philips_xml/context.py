"""What a Philips file says about patient, device, place and filters. An allow-list: names are never read."""

import re
from datetime import datetime
from xml.etree.ElementTree import Element

from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers._shared.people import Context, age_between, age_in_years, known, moment, sex_of
from ecgcohorts.readers._xml.values import text_of

MAINS_HZ = {"50": 50.0, "60": 60.0}
AGE_UNITS = ("years", "months", "weeks", "days", "hours")

# Section -> elements kept as Recording.fields for cohort rules: no names of people, no free text, no serial numbers.
KEPT = {
    "documentinfo": ("documenttype", "documentversion"),
    "dataacquisition": ("machine",),
    "dataacquisition/acquirer": (
        *("departmentid", "departmentname", "institutionid", "institutionname", "institutionlocationid"),
        *("facilityid", "facilityname"),
    ),
    "dataacquisition/signalcharacteristics": (
        *("acsetting", "acquisitiontype", "electrodeplacement", "leadset", "derivedleads", "signalbandwidth"),
        *("numberchannelsallocated", "numberchannelsvalid"),
    ),
    "patient/generalpatientdata": ("patientid", "MRN", "uniquepatientid", "sex", "race", "pacestatus"),
    "patient/generalpatientdata/age": ("dateofbirth", *AGE_UNITS),
    "patient/generalpatientdata/height": ("cm", "inch"),
    "patient/generalpatientdata/weight": ("kg", "lb"),
}
FLAGS = {
    "artfiltered": "artifact filter",
    "waveformmodified": "modified since acquisition",
    "upsampled": "upsampled since acquisition",
    "downsampled": "downsampled since acquisition",
}

_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,6})?"
_BAND = re.compile(rf"({_NUMBER})-({_NUMBER})")  # signalbandwidth of 1.03: 0.05-150
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?")


def read_context(root: Element, parsed: Element) -> Context:
    """Collect the facts around `parsed`, the waveform. Any section may be missing, any text a placeholder."""
    fields: dict[str, str] = {}
    for section, tags in KEPT.items():
        element = root.find(section)
        fields |= {tag: text for tag in tags if (text := text_of(element, tag))}
    acquisition = root.find("dataacquisition")
    machine = root.find("dataacquisition/machine")
    for element, names in ((acquisition, ("date", "time")), (machine, ("detaildescription",))):
        if element is not None:
            fields |= {name: text for name in names if (text := element.get(name, "").strip())}
    acquired_at = _moment(fields.get("date", ""), fields.get("time", ""))
    places = (fields.get(tag) for tag in ("institutionid", "institutionname"))
    return Context(
        patient_id=known(fields.get("patientid")),
        age_years=_age_years(fields, acquired_at),
        sex=sex_of(fields.get("sex", "")),
        acquired_at=acquired_at,
        device=known(fields.get("machine")),
        site=next((place for place in places if not is_placeholder(place)), None),
        mains_hz=MAINS_HZ.get(fields.get("acsetting", "")),
        fields=fields,
        notes=(*_filter_notes(parsed, acquisition, fields), *_channel_notes(fields)),
    )


def _age_years(fields: dict[str, str], acquired_at: datetime | None) -> float | None:
    """Return the stated age, without one the age from the dates. `age/@defaultage` is an assumption of the machine."""
    for unit in AGE_UNITS:
        if re.fullmatch(r"[0-9]{1,6}", fields.get(unit, "")):
            return age_in_years(int(fields[unit]), unit)
    return age_between(_moment(fields.get("dateofbirth", ""), ""), acquired_at)


def _moment(date: str, time: str) -> datetime | None:
    found, clock = _DATE.fullmatch(date), _TIME.fullmatch(time)
    return None if found is None else moment(*found.groups(), *(clock.groups() if clock else ()))


def _filter_notes(parsed: Element, acquisition: Element | None, fields: dict[str, str]) -> list[str]:
    """Tell the filters that were applied to the data, in Hz."""
    # `reportbandwidth` is left out: it is for the print. So is `acsetting`, the power line: it is 60 in files whose
    # `notchfiltered` is False.
    band = _BAND.fullmatch(fields.get("signalbandwidth", ""))
    notes = []
    for place, (name, what) in enumerate((("hipass", "high-pass"), ("lowpass", "low-pass"))):
        text = (parsed.get(name) or text_of(acquisition, f"signalcharacteristics/{name}")).strip()
        if re.fullmatch(_NUMBER, text):
            notes.append(f"{what} {float(text):g} Hz")
        elif band and not text:
            notes.append(f"{what} {float(band[place + 1]):g} Hz")
    if parsed.get("notchfiltered") == "True":
        named = [text for text in parsed.get("notchfilterfreqs", "").split() if re.fullmatch(_NUMBER, text)]
        notes.append(f"AC filter {' and '.join(named)} Hz" if named else "AC filter")
    return [*notes, *(note for name, note in FLAGS.items() if parsed.get(name) == "True")]


def _channel_notes(fields: dict[str, str]) -> list[str]:
    valid, allocated = (fields.get(f"numberchannels{what}", "") for what in ("valid", "allocated"))
    whole = all(re.fullmatch(r"[0-9]{1,3}", text) for text in (valid, allocated))
    return [f"valid channels: {int(valid)} of {int(allocated)}"] if whole and int(valid) < int(allocated) else []
