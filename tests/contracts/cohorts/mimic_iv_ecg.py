"""MIMIC-IV-ECG as published: `files/pNNNN/pSUBJECT/sSTUDY`, with and without its tables."""

import gzip
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

PATIENTS = ("11111111", "12345678", "10000999", "19999999")

LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # aVF before aVL, as published
RECORDS = """\
subject_id,study_id,file_name,ecg_time,path
10000032,40689238,40689238,2180-07-23 08:44:00,files/p1000/p10000032/s40689238/40689238
"""
MACHINE = "subject_id,study_id,cart_id,report_0\n10000032,40689238,6848296,Sinus rhythm\n"
# Tables of MIMIC-IV-ECG-Ext-ICD and MIMIC-IV, cut to the columns that are read. The third patient is in MIMIC-IV only.
MORE_RECORDS = """\
subject_id,study_id,file_name,ecg_time,path
10000032,40689238,40689238,2180-07-23 08:44:00,files/p1000/p10000032/s40689238/40689238
10000032,49036311,49036311,2181-01-02 10:00:00,files/p1000/p10000032/s49036311/49036311
10000117,45090959,45090959,2181-03-04 17:14:00,files/p1000/p10000117/s45090959/45090959
10000560,43222222,43222222,2181-03-04 17:14:00,files/p1000/p10000560/s43222222/43222222
"""
MEASURED = """\
subject_id,study_id,cart_id,rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,t_axis
10000032,40689238,6848296,659,29999,29999,280,366,620,32767,-12,-32768
10000032,49036311,6848296,65535,40,170,280,366,620,51,-12,30
"""
CODED = """\
study_id,subject_id,all_diag_all,gender,age,anchor_age,anchor_year,strat_fold
40689238,10000032,"['I4891', 'E119', 'Z87891']",F,56.0,52,2176,18
49036311,10000032,[],F,57.0,52,2176,18
43222222,10000560,[],missing,,,,3
"""
PERSONS = "subject_id,gender,anchor_age,anchor_year\n10000117,M,91,2180\n10000032,M,20,2180\n"


def write(root: Path, write_record: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    whole, bare = root / "whole", root / "bare"
    for folder, subject, study, header in (
        (whole / "files", 10000032, "40689238", ["<subject_id>: 10000032"]),
        (bare, 10012343, "40647939", ["<subject_id>: 10012343"]),
        (bare, 10012688, "45216688", []),
    ):
        place = folder / f"p{subject // 10000}" / f"p{subject}" / f"s{study}"
        write_record(place, study, 500, 5000, header, leads=LEADS, gain=200, when="15:46:00 10/02/2187")
    (whole / "record_list.csv").write_text(RECORDS)
    (whole / "machine_measurements.csv").write_text(MACHINE)
    beside = root / "beside"
    for subject, study in (
        (10000032, "40689238"),
        (10000032, "49036311"),
        (10000117, "45090959"),
        (10000560, "43222222"),
    ):
        place = beside / "files" / f"p{subject // 10000}" / f"p{subject}" / f"s{study}"
        write_record(place, study, 500, 5000, [f"<subject_id>: {subject}"], leads=LEADS, gain=200)
    (beside / "record_list.csv").write_text(MORE_RECORDS)
    (beside / "machine_measurements.csv").write_text(MEASURED)
    (beside / "records_w_diag_icd10.csv").write_text(CODED)
    (beside / "patients.csv.gz").write_bytes(gzip.compress(PERSONS.encode(), mtime=0))
    unknown = float("nan")
    coded = {"icd_af": 1, "icd_heart_failure": 0, "icd_acute_mi": 0, "strat_fold": 18}
    measured = {"rr_interval": 659, "p_onset": unknown, "qrs_onset": 280, "p_axis": unknown, "qrs_axis": -12}
    return {
        beside: {
            "40689238": {"age_years": 56, "sex": "female", "patient_id": "10000032", "labels": coded | measured},
            # Nobody coded this stay: what it lacks is unknown, not absent.
            "49036311": {"age_years": 57, "sex": "female", "labels": {"icd_af": unknown, "rr_interval": unknown}},
            "45090959": {"age_years": 90, "sex": "male"},  # 91 is any age above 89
            "43222222": {"age_years": None, "sex": None},
        },
        whole: {
            "40689238": {
                "cohort": "mimic_iv_ecg",
                "patient_id": "10000032",
                "acquired_at": datetime(2180, 7, 23, 8, 44),
                "device": "6848296",
                "age_years": None,
                "sex": None,
                "mains_hz": 60,
            }
        },
        bare: {
            "40647939": {"patient_id": "10012343", "acquired_at": datetime(2187, 2, 10, 15, 46), "device": None},
            "45216688": {"patient_id": "10012688"},  # by the path alone
        },
    }
