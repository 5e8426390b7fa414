"""Write CardioSoft files with known samples: resting strips, stress segments, full disclosure in either order."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "AVR", "aVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
STRESS_LEADS = ("I", "2", "3")
NEVER_READ = 9999  # every sample of median beats and segments

CANARIES = (
    *("KANARIENVOGEL-CARDIOSOFT-31907", "Surname-Thistlewood-Cardiosoft", "Given-Peregrine-Cardiosoft"),
    *("Technician-Araminta-Cardiosoft", "Doctor-Ffoulkes-Cardiosoft", "Provider-Cholmondeley-Cardiosoft"),
    *("fainted beside the harpsichord of Cardiosoft", "history of the Cardiosoft dormouse", "ORDER-CARDIOSOFT-88123"),
    *("Hospital-of-the-Cardiosoft-Bells", "1.2.840.999.7.7.CARDIOSOFT", "conclusion about a Cardiosoft heron"),
)
(PID, FAMILY, GIVEN, TECHNICIAN, DOCTOR, PROVIDER, COMMENT, HISTORY, ORDER, FACILITY, STUDY, CONCLUSION) = CANARIES

PATIENT = f"""<PatientInfo><PID>{PID}</PID><Name><FamilyName>{FAMILY}</FamilyName><GivenName>{GIVEN}</GivenName></Name>
<Age units="years">94</Age><BirthDateTime><Day>29</Day><Month>2</Month><Year>1916</Year></BirthDateTime>
<Gender>FEMALE</Gender><Race>CAUCASIAN</Race><Height units="cm">171</Height><Weight units="kg">70</Weight>
<PaceMaker>no</PaceMaker></PatientInfo>"""
OBSERVED = """<ObservationDateTime><Hour>14</Hour><Minute>5</Minute><Second>59</Second>
<Day>31</Day><Month>3</Month><Year>2010</Year></ObservationDateTime>"""
FILTERS = """<FilterSetting><CubicSpline>no</CubicSpline><Filter50Hz>yes</Filter50Hz><Filter60Hz>no</Filter60Hz>
<LowPass units="Hz">150</LowPass><HighPass units="Hz">0.08</HighPass></FilterSetting>"""
VISIT = f"""<ClinicalInfo><ReasonForStudy>{COMMENT}</ReasonForStudy><Technician><FamilyName>{TECHNICIAN}</FamilyName>
<PersonID>{TECHNICIAN}</PersonID></Technician><ObservationComment>{COMMENT}</ObservationComment>
<DeviceInfo><Desc>CardioSoft</Desc><SoftwareVer>6.51</SoftwareVer><AnalysisVer>22</AnalysisVer></DeviceInfo>
</ClinicalInfo>
<PatientVisit><AssignedPatientLocation><Facility>{FACILITY}</Facility><LocationNumber>12</LocationNumber>
<LocationName>{FACILITY}</LocationName></AssignedPatientLocation>
<OrderingProvider><FamilyName>{PROVIDER}</FamilyName></OrderingProvider>
<ReferringDoctor><FamilyName>{DOCTOR}</FamilyName></ReferringDoctor><OrderNumber>{ORDER}</OrderNumber>
<MedicalHistory><MedicalHistoryText>{HISTORY}</MedicalHistoryText></MedicalHistory></PatientVisit>
<Interpretation><Conclusion><ConclusionText>{CONCLUSION}</ConclusionText></Conclusion></Interpretation>"""


def listed(samples: Sequence[int] | NDArray[np.integer], last: str = "") -> str:
    """Comma separated, tabs and newlines behind some of the commas."""
    words = [str(sample) for sample in samples]
    return "\n\t\t" + ",\n\t\t".join(",".join(words[place : place + 20]) for place in range(0, len(words), 20)) + last


def head_xml(leads: str, rate: str = "500", resolution: str = "5", unit: str = "uVperLsb") -> str:
    return f'{leads}<SampleRate units="Hz">{rate}</SampleRate><Resolution units="{unit}">{resolution}</Resolution>'


def waveform_xml(lead: str, text: str) -> str:
    return f'<WaveformData lead="{lead}">{text}</WaveformData>'


def resting_xml(
    digital: NDArray[np.integer],
    leads: Sequence[str] = LEADS,
    n_leads: int | None = None,
    count: int | None = None,
    **head: str,
) -> str:
    """StripData with one list per lead. `n_leads` and `count` bend what is declared."""
    declared = f"<NumberOfLeads>{len(leads) if n_leads is None else n_leads}</NumberOfLeads>"
    total = f"<ChannelSampleCountTotal>{digital.shape[1] if count is None else count}</ChannelSampleCountTotal>"
    lists = "\n".join(waveform_xml(lead, listed(row)) for lead, row in zip(leads, digital, strict=True))
    return f"<StripData>{head_xml(declared, **head)}{total}{lists}<ArrhythmiaResults/></StripData>"


def segments_xml(leads: Sequence[str] = STRESS_LEADS) -> str:
    lists = "".join(waveform_xml(lead, listed([NEVER_READ] * 40)) for lead in leads)
    head = head_xml(f"<NumberOfLeads>{len(leads)}</NumberOfLeads>")
    return f"<StripData>{head}<Strip><Time><Minute>0</Minute></Time>{lists}</Strip><Strip>{lists}</Strip></StripData>"


def median_xml(leads: Sequence[str] = LEADS) -> str:
    lists = "".join(waveform_xml(lead, listed([NEVER_READ] * 24)) for lead in leads)
    head = head_xml(f"<NumberOfLeads>{len(leads)}</NumberOfLeads>")
    return f"<RestingECGMeasurements><MedianSamples>{head}{lists}</MedianSamples></RestingECGMeasurements>"


def in_blocks(digital: NDArray[np.integer], rate: int) -> NDArray[np.integer]:
    """Second by second: `rate` samples of the first lead, of the second, ..."""
    out = []
    for start in range(0, digital.shape[1], rate):
        for row in digital:
            out.extend(row[start : start + rate])
    return np.array(out)


def disclosure_xml(
    flat: Sequence[int] | NDArray[np.integer], leads: str = "I,2,3", channels: str = "3", inside: str = "", **head: str
) -> str:
    """FullDisclosure; its list ends in a comma and line ends, as exports have it. `inside` goes before the list."""
    top = head_xml(f"<NumberOfChannels>{channels}</NumberOfChannels>", **head)
    start = "<StartTime><Minute>0</Minute><Second>1</Second></StartTime>"
    data = f"<FullDisclosureData>{inside}{listed(flat, last=',')}\n\t</FullDisclosureData>"
    return f"<FullDisclosure>{start}{top}<LeadOrder>{leads}</LeadOrder>{data}</FullDisclosure>"


def document(
    *parts: str, patient: str = PATIENT, observed: str = OBSERVED, filters: str = FILTERS, encoding: str = "ISO-8859-1"
) -> str:
    uid = f"<UID><DICOMStudyUID>{STUDY}</DICOMStudyUID></UID>"
    head = f"<ObservationType>RestECG</ObservationType>{observed}{uid}{VISIT}{patient}{filters}"
    return f'<?xml version="1.0" encoding="{encoding}"?>\n<CardiologyXML>{head}\n{"".join(parts)}\n</CardiologyXML>\n'


def known_samples(n_leads: int = 2, n_samples: int = 60, seed: int = 9) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-350, 350, (n_leads, n_samples))


def beats(n_samples: int, rate: int = 500) -> NDArray[np.int64]:
    """(12, time) in the order of LEADS, 5 uV a step: one wide spike a second over noise, limb leads consistent."""
    rng = np.random.default_rng(10)
    phase_s = (np.arange(n_samples) % rate - rate // 2) / rate
    spike_mv = rng.uniform(0.4, 1.4, (8, 1)) * np.exp(-((phase_s / 0.03) ** 2))
    eight = np.rint((spike_mv + rng.normal(0, 0.02, (8, n_samples))) / 5e-3).astype(np.int64)
    one, two = eight[:2]
    return np.stack([one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2, *eight[2:]])


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one resting file, and what must come out of it."""
    digital = known_samples() if seconds is None else beats(round(seconds * 500))
    leads = LEADS[: len(digital)]
    path = folder / "cardiosoft.xml"
    path.write_text(document(median_xml(leads[:1]), resting_xml(digital, leads)), "iso-8859-1")
    return path, [{"entry": "", "leads": leads, "rate_hz": 500.0, "signal_mv": digital * 5e-3}]


def _full_disclosure(folder: Path) -> Path:
    """Two seconds of three leads at 20 Hz beside segments."""
    path = folder / "stress.xml"
    flat = in_blocks(known_samples(3, 40), 20)
    path.write_text(document(segments_xml(), disclosure_xml(flat, rate="20")), "iso-8859-1")
    return path


VARIANT_FIXTURES: dict[str, Callable[[Path], Path]] = {"full_disclosure": _full_disclosure}
