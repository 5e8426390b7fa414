"""LUDB as published: every cell of its table ends with a line end, several findings are parted by line ends."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(map(str, range(1, 201)))

LEADS = ["i", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6"]
TABLE = """\
ID,Sex,Age,Rhythms,Electric axis of the heart,Conduction abnormalities
"1
","F
","51
","Sinus bradycardia
","Electric axis of the heart: left axis deviation
",""
"8
","M
","67
","Atrial fibrillation
Sinus rhythm
","",""
"34
","M
",">89
","Sinus rhythm
","",""
"""


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "ludb.csv").write_text(TABLE)
    for name in ("1", "8", "34"):
        write_wfdb(root / "data", name, 500, 5000, leads=LEADS)
    return {
        root: {
            "1": {"cohort": "ludb", "patient_id": "1", "age_years": 51, "sex": "female", "labels": {"sb": 1, "af": 0}},
            "8": {"age_years": 67, "sex": "male", "labels": {"af": 1, "sinus_rhythm": 1, "sb": 0}},
            "34": {"age_years": 90, "sex": "male", "mains_hz": 50, "labels": {"sinus_rhythm": 1, "af": 0}},
        }
    }
