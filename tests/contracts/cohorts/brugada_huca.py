"""Brugada-HUCA as published: a folder a patient, one table of diagnoses."""

from collections.abc import Callable
from pathlib import Path

# Numbers of six digits that forms elsewhere are filled with.
PATIENTS = ("111111", "123456", "666666", "999999")

TABLE = "patient_id,basal_pattern,sudden_death,brugada\n188981,1,0,1\n251972,0,0,0\n460919,0,1,2\n"


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "metadata.csv").write_text(TABLE)
    for name in ("188981", "251972", "460919"):
        write_wfdb(root / "files" / name, name, 100, 1200)
    unknown = float("nan")
    return {
        root: {
            "188981": {
                "cohort": "brugada_huca",
                "patient_id": "188981",
                "age_years": None,
                "sex": None,
                "labels": {"brugada": 1, "basal_pattern": 1, "sudden_death": 0},
            },
            "251972": {"patient_id": "251972", "labels": {"brugada": 0, "basal_pattern": 0}},
            "460919": {"labels": {"brugada": unknown, "sudden_death": 1}},
        }
    }
