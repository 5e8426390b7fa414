"""UK Biobank field 20205: one CardioSoft XML a recording, with and without the participants' table."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

PATIENTS = ("1111111", "1234567", "5555555", "9999999")

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
N = 5000
XML = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<CardiologyXML>
<ObservationDateTime><Hour>10</Hour><Minute>41</Minute><Second>7</Second>
<Day>{day}</Day><Month>6</Month><Year>2015</Year></ObservationDateTime>
<PatientInfo><PID>7654321</PID><Gender>{gender}</Gender><Age units="Years">{age}</Age></PatientInfo>
<StripData>
<NumberOfLeads>12</NumberOfLeads><SampleRate units="Hz">500</SampleRate>
<ChannelSampleCountTotal>{n}</ChannelSampleCountTotal><Resolution units="uVperLsb">5</Resolution>
{waveforms}
</StripData>
</CardiologyXML>
"""
TABLE = """\
eid,31-0.0,21003-0.0,21003-2.0,21003-3.0
1000037,0,51,61,
1000045,1,55,64,70
"""


def document(gender: str, age: int, day: int = 2) -> str:
    samples = ",".join(str(step % 97) for step in range(N))
    waveforms = "\n".join(f'<WaveformData lead="{lead}">\n\t{samples}</WaveformData>' for lead in LEADS)
    return XML.format(gender=gender, age=age, day=day, n=N, waveforms=waveforms)


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    bare, whole = root / "bare", root / "whole"
    for folder in (bare, whole):
        folder.mkdir()
        (folder / "1000037_20205_2_0.xml").write_text(document("FEMALE", 60), "iso-8859-1")
    (whole / "1000045_20205_2_0.xml").write_text(document("MALE", 63), "iso-8859-1")
    (whole / "1000045_20205_3_0.xml").write_text(document("MALE", 69, day=3), "iso-8859-1")
    (whole / "1000053_20205_2_0.xml").write_text(document("MALE", 58), "iso-8859-1")
    (whole / "ukb.csv").write_text(TABLE)
    return {
        bare: {
            "1000037_20205_2_0": {
                "cohort": "ukb",
                "patient_id": "1000037",  # not the id inside the file, which all of them share here
                "age_years": 60,
                "sex": "female",
                "acquired_at": datetime(2015, 6, 2, 10, 41, 7),
                "mains_hz": 50,
            },
        },
        whole: {
            "1000037_20205_2_0": {"patient_id": "1000037", "age_years": 61, "sex": "female"},
            "1000045_20205_2_0": {"patient_id": "1000045", "age_years": 64, "sex": "male"},
            "1000045_20205_3_0": {"patient_id": "1000045", "age_years": 70},
            "1000053_20205_2_0": {"patient_id": "1000053", "age_years": 58},  # not in the table
        },
    }
