"""Norwegian athletes as published: two comments with the findings of recorder and cardiologist, and nothing else."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(f"ath_{number:03d}" for number in range(1, 29))


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    first = ["SL12: Sinus bradycardia, Left atrial enlargement", "C: Sinus bradycardia with marked arrhythmia"]
    second = ["SL12: Normal sinus rhythm, ST elevation, consider injury", "C: Sinus rhythm, normal"]
    write_wfdb(root, "ath_001", 500, 5000, first, gain=50_000)
    write_wfdb(root, "ath_028", 500, 5000, second, gain=50_000)
    return {
        root: {
            "ath_001": {
                "cohort": "norwegian_athletes",
                "patient_id": "ath_001",
                "age_years": None,
                "sex": None,
                "mains_hz": 50,
                "labels": {"sb": 1, "sb_software": 1, "sinus_rhythm": 0},
            },
            "ath_028": {"patient_id": "ath_028", "labels": {"sb": 0, "sb_software": 0, "sinus_rhythm": 1}},
        }
    }
