"""INCART as published: half an hour at 257 Hz, three comments, the last tag of the first without a colon, or absent."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(map(str, range(1, 33)))

LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
HALF_HOUR = 1800 * 257


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    for name, gain, comments in (
        (
            "I01",
            306,
            [
                "<age>: 65 <sex>: F <diagnoses> Coronary artery disease, arterial hypertension",
                "patient 1",
                "PVCs, noise",
            ],
        ),
        (
            "I02",
            312,
            ["<age>: 65 <sex>: F <diagnoses> Coronary artery disease, arterial hypertension", "patient 1", "PVCs"],
        ),
        ("I75", 1063, ["<age>: 80 <sex>: M", "patient 32", "atrial fibrillation"]),
    ):
        write_wfdb(root, name, 257, HALF_HOUR, comments, leads=LEADS, gain=gain)
    woman = {"cohort": "incart_original", "patient_id": "1", "age_years": 65, "sex": "female", "mains_hz": 50}
    man = {"patient_id": "32", "age_years": 80, "sex": "male"}
    return {
        root: {
            f"{name}@{60 * minute}+10s": facts
            for name, facts in (("I01", woman), ("I02", woman), ("I75", man))
            for minute in range(30)
        }
    }
