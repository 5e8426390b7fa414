"""A Philips export: identified files without a table, and de-identified ones with `ids.csv`."""

import base64
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

LEADS = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
N = 5000
XML = """\
<?xml version="1.0" encoding="UTF-8"?>
<restingecgdata xmlns="http://www3.medical.philips.com">
<documentinfo><documenttype>SierraECG</documenttype><documentversion>1.04</documentversion></documentinfo>
<dataacquisition date="2011-12-01" time="07:27:34"><machine>PageWriter</machine>
<signalcharacteristics><samplingrate>500</samplingrate><resolution>5</resolution>
<acquisitiontype>STD-12</acquisitiontype><bitspersample>16</bitspersample><signaloffset>0</signaloffset>
<signalsigned>True</signalsigned><numberchannelsallocated>12</numberchannelsallocated>
<numberchannelsvalid>12</numberchannelsvalid></signalcharacteristics></dataacquisition>
<patient><generalpatientdata><patientid>{patient}</patientid><age><years>{age}</years></age>
<sex>{sex}</sex></generalpatientdata></patient>
<waveforms><parsedwaveforms dataencoding="Base64" durationperchannel="10000" samplespersecond="500" resolution="5"
nbitspersample="16" numberofleads="12" leadlabels="{leads}">{samples}</parsedwaveforms></waveforms>
</restingecgdata>
"""
TABLE = """\
file,patient_id,age,sex,acquired_at,device,site
one,P1,70,F,,,north
two,P1,71,F,2012-01-02,,north
"""


def document(patient: str = "XXXX", age: str = "XXXX", sex: str = "Unknown") -> str:
    samples = base64.b64encode(bytes(2 * 12 * N)).decode()
    return XML.format(patient=patient, age=age, sex=sex, leads=LEADS, samples=samples)


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    bare, whole = root / "bare", root / "whole"
    bare.mkdir()
    whole.mkdir()
    (bare / "one.xml").write_text(document("4711", "50", "Male"))
    (bare / "two.xml").write_text(document())
    (whole / "one.xml").write_text(document("4711", "50", "Male"))  # the table wins
    (whole / "two.xml").write_text(document())
    (whole / "ids.csv").write_text(TABLE)
    return {
        bare: {
            "one": {
                "cohort": "philips_folder",
                "patient_id": "4711",
                "age_years": 50,
                "sex": "male",
                "acquired_at": datetime(2011, 12, 1, 7, 27, 34),
                "mains_hz": "auto",
            },
            "two": {"patient_id": None, "age_years": None, "sex": None},
        },
        whole: {
            "one": {"patient_id": "P1", "age_years": 70, "sex": "female", "site": "north"},
            "two": {"patient_id": "P1", "age_years": 71, "acquired_at": datetime(2012, 1, 2)},
        },
    }
