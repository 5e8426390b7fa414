"""PTB Diagnostic as published: a folder a patient, lower-case leads, a clinical summary in the comments."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

PATIENTS = tuple(f"patient{number:03d}" for number in range(1, 295))

LEADS = ["i", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6", "vx", "vy", "vz"]


def comments(age: str, sex: str, date: str, reason: str) -> list[str]:
    return [f"age: {age}", f"sex: {sex}", f"ECG date: {date}", "Diagnose:", f"Reason for admission: {reason}"]


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    published, flat = root / "published", root / "flat"
    for folder, name, header in (
        (published / "patient001", "s0010_re", comments("81", "female", "01/10/1990", "Myocardial infarction")),
        (published / "patient001", "s0014lre", comments("81", "female", "17/10/1990", "Myocardial infarction")),
        (published / "patient104", "s0306lre", comments("n/a", "male", "n/a", "Healthy control")),
        (published / "patient285", "s0544_re", comments("50", "male", "n/a", "n/a")),
        (published / "patient120", "s0331lre", comments("60", "male", "n/a", "Heart failure (NYHA 4)")),
        (flat, "s0010_re", comments("81", "female", "01/10/1990", "Myocardial infarction")),
    ):
        write_wfdb(folder, name, 1000, 3840, header, leads=LEADS, gain=2000)
    unknown = float("nan")
    return {
        published: {
            "s0010_re": {
                "cohort": "ptb_diagnostic",
                "patient_id": "patient001",
                "age_years": 81,
                "sex": "female",
                "acquired_at": datetime(1990, 10, 1),
                "mains_hz": 50,
                "labels": {"admitted_mi": 1, "healthy_control": 0},
            },
            "s0014lre": {"patient_id": "patient001", "acquired_at": datetime(1990, 10, 17)},
            "s0306lre": {"age_years": None, "acquired_at": None, "labels": {"admitted_mi": 0, "healthy_control": 1}},
            "s0544_re": {"labels": {"admitted_mi": unknown, "healthy_control": unknown}},
            "s0331lre": {"labels": {"admitted_heart_failure": 1, "admitted_mi": 0}},
        },
        flat: {"s0010_re": {"patient_id": None}},
    }
