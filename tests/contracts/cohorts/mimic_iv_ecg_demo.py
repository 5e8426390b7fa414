"""The demo of MIMIC-IV-ECG as published: the folders of the full release, and `record_list.csv` alone."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

PATIENTS = ("11111111", "12345678", "10000999", "19999999")

LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # aVF before aVL, as published
RECORDS = """\
subject_id,study_id,file_name,ecg_time,path
10000032,100000001,100000001,2180-07-23 08:44:00,files/p1000/p10000032/s100000001/100000001
10000032,100000002,100000002,2180-08-23 08:44:00,files/p1000/p10000032/s100000002/100000002
"""


def write(root: Path, write_record: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    for study in ("100000001", "100000002"):
        place = root / "files" / "p1000" / "p10000032" / f"s{study}"
        write_record(place, study, 500, 5000, ["<subject_id>: 10000032"], leads=LEADS, gain=200)
    (root / "record_list.csv").write_text(RECORDS)
    first = {"cohort": "mimic_iv_ecg_demo", "patient_id": "10000032", "acquired_at": datetime(2180, 7, 23, 8, 44)}
    return {
        root: {
            "100000001": {**first, "age_years": None, "sex": None, "mains_hz": 60},
            "100000002": {"patient_id": "10000032", "acquired_at": datetime(2180, 8, 23, 8, 44)},
        }
    }
