"""One institution of HEEDB, release 5, as public code reads it: MAT v4 files by site and year, tables beside them."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

PATIENTS = ("111111111", "123456789", "987654321", "999999999")

METADATA = """\
BDSPPatientID,FileName,FileID,PatientRace,SexDSC,ECGAcquisitionTime,AgeAtAcquisition
111000001,/S0001/2019/01/de_1,1,White,Female,2019-01-02 03:04:05,21915
111000001,/S0001/2020/01/de_2,2,White,Female,2020-01-02 03:04:05,22280
111000002,/S0002/2021/07/de_3,3,White,Male,2021-07-02 03:04:05,34000
"""
DIAGNOSES = """\
FileName,codes_software,codes_physician
/S0001/2019/01/de_1,"161,22","22,1699"
/S0001/2020/01/de_2,"161,19",
"""
# As released: a dot before the name, the suffix and a line end behind it.
V24 = 'FileName,codes\n"./S0001/2019/01/de_1.hea\n","161,700"\n"./S0002/2021/07/de_3.hea\n","19"\n'


PEOPLE_2 = """\
FileName,BDSPPatientID,SexDSC,PatientRace,Age
S0001/2019/01/de_1,111000001,Female,White,21915
./S0002/2021/07/de_3.hea,111000002.0,Male,White,34000
S0002/2021/07/de_4.mat,,Male,White,34000
"""
STATEMENTS_2 = "file_source|diagnostic_codes\nS0001/2019/01/de_1|161,700\n/S0002/2021/07/de_3|19\n"


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    old, root = root / "v2", root / "v5"
    for place, name in (("S0001/2019/01", "de_1"), ("S0002/2021/07", "de_3"), ("S0002/2021/07", "de_4")):
        write_wfdb(old / "ECG" / "WFDB" / place, name, 500, 5000, mat=True)
    (old / "Metadata").mkdir()
    (old / "Metadata" / "demographics_ECG.csv").write_text(PEOPLE_2)
    (old / "Metadata" / "ECG_Interpretations.psv").write_text(STATEMENTS_2)
    (old / "Metadata" / "duplicated.csv").write_text("file_name\nde_9\n")
    for place, name, rate in (
        ("S0001/2019/01", "de_1", 250),
        ("S0001/2020/01", "de_2", 500),
        ("S0002/2021/07", "de_3", 500),
    ):
        write_wfdb(root / "WFDB" / place, name, rate, 10 * rate, mat=True)
    for folder, name, text in (
        ("metadata", "metadata.csv", METADATA),
        ("12SL_diagnoses", "diagnoses_acquisition.csv", DIAGNOSES),
        ("12SL_diagnoses", "diagnoses_v24.csv", V24),
    ):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / name).write_text(text)
    unknown = float("nan")
    return {
        old: {
            "ECG/WFDB/S0001/2019/01/de_1": {
                "cohort": "heedb_mgb",
                "patient_id": "111000001",
                "age_years": None,
                "sex": "female",
                "site": "S0001",
                "labels": {"af_v2": 1, "sinus_rhythm_v2": 0, "year": 2019},
            },
            "ECG/WFDB/S0002/2021/07/de_3": {"patient_id": "111000002", "sex": "male", "labels": {"sinus_rhythm_v2": 1}},
            "ECG/WFDB/S0002/2021/07/de_4": {"patient_id": None, "labels": {"af_v2": unknown, "year": 2021}},
        },
        root: {
            "WFDB/S0001/2019/01/de_1": {
                "cohort": "heedb_mgb",
                "patient_id": "111000001",
                "age_years": 60.0,  # 21,915 days
                "sex": "female",
                "acquired_at": datetime(2019, 1, 2, 3, 4, 5),
                "site": "S0001",
                "mains_hz": 60,
                "labels": {"af": 0, "af_software": 1, "af_v24": 1, "sinus_rhythm": 1, "year": 2019},
            },
            "WFDB/S0001/2020/01/de_2": {
                "patient_id": "111000001",
                "labels": {"af": unknown, "af_software": 1, "af_v24": unknown, "sinus_rhythm_software": 1},
            },
            "WFDB/S0002/2021/07/de_3": {
                "patient_id": "111000002",
                "age_years": 90,
                "sex": "male",
                "site": "S0002",
                "labels": {"af": unknown, "sinus_rhythm_v24": 1, "normal_sinus_rhythm_v24": 0, "year": 2021},
            },
        },
    }
