"""STAFF III as published: nine leads, precordial ones first, at 1000 Hz; the patient is three digits of the name."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(f"{number:03d}" for number in range(1, 109))

LEADS = ["V1", "V2", "V3", "V4", "V5", "V6", "I", "II", "III"]


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    for name, age, sex, seconds in (("001a", 64, "Male", 300), ("001c", 64, "Male", 94.5), ("108b", 92, "Female", 120)):
        comments = [f"Age: {age}", f"Sex: {sex}", "Angiography: no"]
        when = "10:30:00 01/02/1996"
        write_wfdb(root / "data", name, 1000, round(1000 * seconds), comments, leads=LEADS, gain=1600, when=when)
    (root / "phases.csv").write_text("record,phase\n001a,BR\n001c,BI\n")
    man = {"cohort": "staff_iii", "patient_id": "001", "age_years": 64, "sex": "male", "acquired_at": None}
    other = {"patient_id": "108", "age_years": 90, "labels": {"phase": float("nan")}}
    return {
        root: {
            **{f"001a@{60 * minute}+10s": {**man, "mains_hz": 60, "labels": {"phase": 0}} for minute in range(5)},
            **{f"001c@{60 * minute}+10s": {**man, "labels": {"phase": 2}} for minute in range(2)},
            **{f"108b@{60 * minute}+10s": other for minute in range(2)},
        }
    }
