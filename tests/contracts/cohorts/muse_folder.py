"""A MUSE export: identified files without a table, and de-identified ones with `ids.csv`."""

import base64
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
N = 5000
PERSON = """\
<PatientDemographics><PatientID>4711</PatientID><PatientAge>63</PatientAge><AgeUnits>YEARS</AgeUnits>
<Gender>FEMALE</Gender></PatientDemographics>
<TestDemographics><Site>7</Site><AcquisitionDevice>MAC55</AcquisitionDevice>
<AcquisitionTime>14:05:59</AcquisitionTime><AcquisitionDate>03-31-2019</AcquisitionDate></TestDemographics>
"""
TABLE = """\
file,patient_id,age,sex,acquired_at,device,site
2019/one,P1,70,M,2019-03-31T14:05:59,,north
2019/two.xml,P1,,,2020-01-02,MAC 3500,
"""


def document(person: str = "") -> str:
    encoded = base64.b64encode(bytes(2 * N)).decode()
    leads = "".join(
        f"<LeadData><LeadSampleCountTotal>{N}</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>4.88"
        f"</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{lead}</LeadID>"
        f"<LeadSampleSize>2</LeadSampleSize><WaveFormData>{encoded}</WaveFormData></LeadData>"
        for lead in LEADS
    )
    return (
        f"<RestingECG>{person}<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>500</SampleBase>"
        f"<SampleExponent>0</SampleExponent>{leads}</Waveform></RestingECG>"
    )


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    bare, whole = root / "bare", root / "whole"
    for folder in (bare / "2019", whole / "2019"):
        folder.mkdir(parents=True)
    (bare / "2019" / "one.XML").write_text(document(PERSON))
    (whole / "2019" / "one.xml").write_text(document(PERSON))  # the table wins
    (whole / "2019" / "two.xml").write_text(document())
    (whole / "2019" / "three.xml").write_text(document())  # not in the table
    (whole / "ids.csv").write_text(TABLE)
    return {
        bare: {
            "2019/one": {
                "cohort": "muse_folder",
                "patient_id": "4711",
                "age_years": 63,
                "sex": "female",
                "acquired_at": datetime(2019, 3, 31, 14, 5, 59),
                "device": "MAC55",
                "site": "7",
                "mains_hz": "auto",
            }
        },
        whole: {
            "2019/one": {"patient_id": "P1", "age_years": 70, "sex": "male", "device": "MAC55", "site": "north"},
            "2019/two": {
                "patient_id": "P1",
                "age_years": None,
                "sex": None,
                "acquired_at": datetime(2020, 1, 2),
                "device": "MAC 3500",
                "site": None,
            },
            "2019/three": {"patient_id": None, "acquired_at": None},
        },
    }
