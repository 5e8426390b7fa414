"""ECG-ID as published: a folder a person, the same record names in each, lead I raw and filtered."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

PATIENTS = tuple(f"Person_{number:02d}" for number in range(1, 91))


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    for person, name, age, sex, date in (
        ("Person_01", "rec_1", "25", "male", "07.12.2004"),
        ("Person_01", "rec_2", "25", "male", "28.12.2004"),
        ("Person_02", "rec_1", "23", "female", "07.12.2004"),
    ):
        comments = [f"Age: {age}", f"Sex: {sex}", f"ECG date: {date}"]
        write_wfdb(root / person, name, 500, 10000, comments, leads=["ECG I", "ECG I filtered"], gain=200)
    return {
        root: {
            "Person_01/rec_1": {
                "cohort": "ecg_id",
                "patient_id": "Person_01",
                "age_years": 25,
                "sex": "male",
                "acquired_at": datetime(2004, 12, 7),
                "mains_hz": 50,
            },
            "Person_01/rec_2": {"patient_id": "Person_01", "acquired_at": datetime(2004, 12, 28)},
            "Person_02/rec_1": {"patient_id": "Person_02", "sex": "female"},
        }
    }
