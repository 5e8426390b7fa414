"""MIMIC-IV-ECG as published: `files/pNNNN/pSUBJECT/sSTUDY`, with and without its tables."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # aVF before aVL, as published
RECORDS = """\
subject_id,study_id,file_name,ecg_time,path
10000032,40689238,40689238,2180-07-23 08:44:00,files/p1000/p10000032/s40689238/40689238
"""
MACHINE = "subject_id,study_id,cart_id,report_0\n10000032,40689238,6848296,Sinus rhythm\n"


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
    return {
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
