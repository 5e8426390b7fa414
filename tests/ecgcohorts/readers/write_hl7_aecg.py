"""Write annotated ECGs with known samples: any leads, units and times, with beats and remarks that must not be read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS = tuple(
    f"MDC_ECG_LEAD_{name}" for name in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "III", "AVR", "AVL", "AVF")
)
NAMESPACES = (
    'xmlns="urn:hl7-org:v3" xmlns:voc="urn:hl7-org:v3/voc" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
ROOT = "2.16.840.1.113883.3.999"
NEVER_READ = 9999  # every sample of the representative beat

CANARIES = (
    *("KANARIENVOGEL-AECG-7741930", "Featherstone-Aecg-Surname", "19160229", "Doctor-Penhaligon-Aecg"),
    *("Technician-Wilhelmina-Aecg", "Hospital-of-the-Seven-Aecg-Bells", "Performer-Oglethorpe-Aecg"),
    *("stumbled over the harpsichord of Aecg", "statement about the dormouse of Aecg", "SERIAL-AECG-550219"),
    *("Lower-Aecg-Slaughter", "4fd1c0de-aecg-4bad-beef-canary000001"),
)
(SUBJECT, NAME, BORN, INVESTIGATOR, TECHNICIAN, PLACE, PERFORMER, COMMENT, STATEMENT, SERIAL, CITY, DOCUMENT) = CANARIES


def lead_xml(
    name: str,
    digits: Sequence[int] | NDArray[np.integer] | str,
    scale: tuple[str, str] = ("2.5", "uV"),
    origin: tuple[str, str] = ("0", "uV"),
    kind: str = "SLIST_PQ",
) -> str:
    """A sequence of samples; long lists are broken into lines, as the Mortara writer does."""
    text = digits if isinstance(digits, str) else lines(digits)
    amounts = "" if kind == "SLIST_INT" else f"{amount('origin', *origin)}{amount('scale', *scale)}"
    return sequence(name, f'<value xsi:type="{kind}">{amounts}<digits>{text}</digits></value>')


def lines(digits: Sequence[int] | NDArray[np.integer]) -> str:
    words = [str(digit) for digit in digits]
    return "\n        ".join(" ".join(words[place : place + 16]) for place in range(0, len(words), 16)) + " "


def amount(tag: str, value: str, unit: str) -> str:
    return f'<{tag} value="{value}" unit="{unit}"/>'


def sequence(code: str, value: str) -> str:
    return f'<component><sequence classCode="OBS"><code code="{code}"/>{value}</sequence></component>'


def absolute(head: str = "20190331140559.250", increment: str = "0.002", unit: str = "s") -> str:
    times = f'<head value="{head}"/>{amount("increment", increment, unit)}'
    return sequence("TIME_ABSOLUTE", f'<value xsi:type="GLIST_TS">{times}</value>')


def relative(increment: str = "0.002", unit: str = "s") -> str:
    times = f"{amount('head', '0.000', unit)}{amount('increment', increment, unit)}"
    return sequence("TIME_RELATIVE", f'<value xsi:type="GLIST_PQ">{times}</value>')


def sequence_set(*sequences: str) -> str:
    return f"<component><sequenceSet>{''.join(sequences)}</sequenceSet></component>"


def beat_xml(leads: Sequence[str] = LEADS) -> str:
    """A representative beat inside the rhythm series, with the same lead codes."""
    leads_xml = "".join(lead_xml(lead, [NEVER_READ] * 12) for lead in leads)
    inner = f'<code code="REPRESENTATIVE_BEAT"/>{sequence_set(relative(), leads_xml)}'
    return f"<derivation><derivedSeries>{inner}</derivedSeries></derivation>"


def filter_xml(kind: str, part: str, value: str, unit: str = "Hz") -> str:
    inner = f'<code code="MDC_ECG_CTL_VBL_ATTR_FILTER_{part}"/><value xsi:type="PQ" value="{value}" unit="{unit}"/>'
    outer = f'<code code="MDC_ECG_CTL_VBL_ATTR_FILTER_{kind}"/><component><controlVariable>{inner}'
    return (
        f"<controlVariable><controlVariable>{outer}</controlVariable></component></controlVariable></controlVariable>"
    )


FILTERS = (
    filter_xml("LOW_PASS", "CUTOFF_FREQ", "150")
    + filter_xml("HIGH_PASS", "CUTOFF_FREQ", "0.05")
    + filter_xml("NOTCH", "NOTCH_FREQ", "60")
)
AROUND = f"""<author><seriesAuthor><manufacturedSeriesDevice><id extension="{SERIAL}"/>
<manufacturerModelName> ELI250 </manufacturerModelName><softwareName>5.3</softwareName>
</manufacturedSeriesDevice></seriesAuthor></author>
<secondaryPerformer><seriesPerformer><assignedPerson><name>{TECHNICIAN}</name></assignedPerson></seriesPerformer>
</secondaryPerformer>{FILTERS}"""
REMARKS = f"""<subjectOf><annotationSet><component><annotation><code code="MDC_ECG_INTERPRETATION_STATEMENT"/>
<value xsi:type="ST">{STATEMENT}</value></annotation></component></annotationSet></subjectOf>"""


def series_xml(*sets: str, code: str = "RHYTHM", beat: str = "", effective: str = "") -> str:
    time = f"<effectiveTime>{effective}</effectiveTime>" if effective else ""
    inner = f'<id root="{DOCUMENT}"/><code code="{code}"/>{time}{AROUND}{"".join(sets)}{REMARKS}{beat}'
    return f"<component><series>{inner}</series></component>"


def rhythm_xml(digital: NDArray[np.integer], leads: Sequence[str] = LEADS) -> str:
    leads_xml = "".join(lead_xml(lead, row) for lead, row in zip(leads, digital, strict=True))
    return series_xml(sequence_set(absolute(), leads_xml), beat=beat_xml(leads[:1]))


SUBJECT_ID = f'<id root="{ROOT}" extension="{SUBJECT}"/>'
TRIAL_ID = '<id root="2.16.840.1.113883.3.123" extension="TRIAL-1"/>'
PERSON = f'<name>{NAME}</name><administrativeGenderCode code="F"/><birthTime value="{BORN}"/><raceCode code="2131-1"/>'
AGE = (
    '<controlVariable><relatedObservation><code code="21612-7"/><value xsi:type="PQ" value="{}" unit="{}"/>'
    f"<author><assignedEntity><name>{TECHNICIAN}</name></assignedEntity></author>"
    "</relatedObservation></controlVariable>"
)


def document(
    *series: str,
    subject_id: str = SUBJECT_ID,
    trial_id: str = TRIAL_ID,
    person: str = PERSON,
    age: tuple[str, str] | None = None,
    effective: str = "",
    declaration: str = '<?xml version="1.0" encoding="UTF-8"?>\n',
) -> str:
    subject = f"<subject><trialSubject>{subject_id}<subjectDemographicPerson>{person}</subjectDemographicPerson>"
    site = (
        f'<trialSite><id extension="TS-035"/><location><name>{PLACE}</name><addr><city>{CITY}</city></addr></location>'
    )
    trial = f"""<clinicalTrial>{trial_id}<title>{PLACE}</title><location>{site}</trialSite></location>
<responsibleParty><trialInvestigator><investigatorPerson><name>{INVESTIGATOR}</name></investigatorPerson>
</trialInvestigator></responsibleParty></clinicalTrial>"""
    return f"""{declaration}<!-- written by hand -->
<AnnotatedECG {NAMESPACES} type="Observation"><id root="{DOCUMENT}"/><text>{COMMENT}</text>
{f"<effectiveTime>{effective}</effectiveTime>" if effective else ""}
<componentOf><timepointEvent><code code="VISIT_3"/><performer><studyEventPerformer>
<assignedPerson><name>{PERFORMER}</name></assignedPerson></studyEventPerformer></performer>
<componentOf><subjectAssignment>{subject}</trialSubject></subject><componentOf>{trial}</componentOf>
</subjectAssignment></componentOf></timepointEvent></componentOf>
<location><testingSite><id extension="TS-035-03"/><location><name>{PLACE}</name></location></testingSite></location>
{AGE.format(*age) if age else ""}
<pertainsTo><subjectFindingComment><text>{COMMENT}</text></subjectFindingComment></pertainsTo>
{"".join(series)}
</AnnotatedECG>
"""


def known_samples(n_leads: int = 2, n_samples: int = 60, seed: int = 7) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-700, 700, (n_leads, n_samples))


def beats(n_samples: int) -> NDArray[np.int64]:
    """(12, time) in the order of LEADS, at 500 Hz and 2.5 uV a step: a spike a second over noise."""
    rng = np.random.default_rng(8)
    phase_s = (np.arange(n_samples) % 500 - 250) / 500
    spike_mv = rng.uniform(0.4, 1.4, (8, 1)) * np.exp(-((phase_s / 0.02) ** 2))
    eight = np.rint((spike_mv + rng.normal(0, 0.02, (8, n_samples))) / 2.5e-3).astype(np.int64)
    one, two = eight[:2]
    return np.stack([*eight, two - one, -(one + two) // 2, one - two // 2, two - one // 2])


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it."""
    digital = known_samples() if seconds is None else beats(round(seconds * 500))
    leads = LEADS[: len(digital)]
    path = folder / "aecg.xml"
    path.write_text(document(rhythm_xml(digital, leads), age=("103", "a")), "utf-8")
    return path, [{"entry": "", "leads": leads, "rate_hz": 500.0, "signal_mv": digital * 2.5e-3}]


def _nanovolts(folder: Path) -> Path:
    """Relative time in ms, a lead in nV and one in mV with an origin in uV, as UTF-16 without a declaration."""
    path = folder / "nanovolts.xml"
    first, second = known_samples()
    leads = lead_xml(LEADS[0], first, ("2500", "nV")) + lead_xml(LEADS[1], second, ("0.0025", "mV"), ("100", "uV"))
    path.write_text(document(series_xml(sequence_set(relative("2", "ms"), leads)), declaration=""), "utf-16")
    return path


def _one_after_the_other(folder: Path) -> Path:
    """As on paper: each lead in a sequence set of its own, by the absolute times of the sets."""
    heads = ("20190331140559.250", "20190331140559.370")
    rows = zip(LEADS[:2], known_samples(), heads, strict=True)
    path = folder / "ecg.xml"
    sets = [sequence_set(absolute(head), lead_xml(lead, row)) for lead, row, head in rows]
    path.write_text(document(series_xml(*sets)), "utf-8")
    return path


VARIANT_FIXTURES: dict[str, Callable[[Path], Path]] = {
    "nanovolts": _nanovolts,
    "one_after_the_other": _one_after_the_other,
}
