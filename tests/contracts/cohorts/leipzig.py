"""Leipzig as published: minutes to hours, surface leads first, two tables of persons, one age with a dot too many."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(f"x{number:03d}" for number in (*range(1, 30), *range(101, 112)))

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6", "CS 1-2", "HIS d"]
CHILDREN = "file_name,age,sex,diagnosis,ap_loacation,ecg_duration\nx001,.14.3,m,WPW,left,78\nx002,0.5,f,AVNRT,,240\n"
ADULTS = "file_name,age,sex,diagnosis,ecg_duration\nx104,61,f,VT,4000\n"


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "children-subject-info.csv").write_text(CHILDREN)
    (root / "adults-subject-info.csv").write_text(ADULTS)
    for name, seconds in (("x001", 78), ("x002", 240), ("x104", 4000)):
        write_wfdb(root, name, 977, 977 * seconds, leads=LEADS, gain=2000)
    boy = {"cohort": "leipzig", "patient_id": "x001", "age_years": 14.3, "sex": "male", "mains_hz": 50}
    baby = {"patient_id": "x002", "age_years": 0.5, "sex": "female"}
    return {
        root: {
            **{f"x001@{start}+10s": boy for start in (0, 60)},
            **{f"x002@{60 * minute}+10s": baby for minute in range(4)},
            # An hour and six minutes: 60 windows at most.
            **{f"x104@{60 * minute}+10s": {"age_years": 61, "sex": "female"} for minute in range(60)},
        }
    }
