"""ZZU pECG as published: ages such as 572d, quotes around sexes and codes, nine leads in some records."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

PATIENTS = ("P00001", "P09999", "P11111", "P11643")

TWELVE = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
DAY = 1 / 365.25  # in years
NINE = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V3", "V5"]
TABLE = """\
Filename,ECG_ID,Patient_ID,Age,Gender,Acquisition_date,Sampling_point,Lead,AHA_code,CHN_code,ICD-10 code
P00/P00001/P00001_E01,E01,P00001,572d,'Female',2019-03-04 05:06:07,5000,12,'C22';'L145+Modifier362','C1','(FO) Q21.1';'I40.0'
P00/P00001/P00001_E02,E02,P00001,1d,'Female',2018-03-04 05:06:07,2500,9,'A1','J(111+112+113)',
P11/P11643/P11643_E01,E01,P11643,5479d,'Male',2020-01-01 00:00:00,60000,12,'sinus arrhythmia','C2','M30.3'
"""


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "AttributesDictionary.csv").write_text(TABLE)
    for name, leads, n in (("P00001_E01", TWELVE, 5000), ("P00001_E02", NINE, 2500), ("P11643_E01", TWELVE, 60000)):
        write_wfdb(root / "Child_ecg" / name[:3] / name[:6], name, 500, n, leads=leads)
    unknown = float("nan")
    return {
        root: {
            "P00001_E01": {
                "cohort": "zzu_pecg",
                "patient_id": "P00001",
                "age_years": 572 * DAY,
                "sex": "female",
                "acquired_at": datetime(2019, 3, 4, 5, 6, 7),
                "mains_hz": 50,
                "labels": {"icd_congenital": 1, "icd_myocarditis": 1, "icd_kawasaki": 0, "n_leads": 12}
                | {"sb": 1, "st": 0, "normal_ecg": 0, "rbbb": 0},
            },
            "P00001_E02": {
                "patient_id": "P00001",
                "age_years": 1 * DAY,
                "labels": {"icd_congenital": unknown, "n_leads": 9, "normal_ecg": 1, "sb": 0},
            },
            "P11643_E01": {
                "patient_id": "P11643",
                "age_years": 5479 * DAY,
                "sex": "male",
                "labels": {"icd_kawasaki": 1, "icd_congenital": 0, "normal_ecg": 0},  # words alone
            },
        }
    }
