"""Chapman-Shaoxing as on figshare: CSV in uV behind a line of names, filtered copies beside, a workbook of diagnoses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl

from ecgcohorts.leads import TWELVE_LEADS

ROWS = (
    ("FileName", "Rhythm", "Beat", "PatientAge", "Gender", "VentricularRate"),
    ("MUSE_20180113_171327_27000", "AFIB", "RBBB TWC", 85, "MALE", 117),
    ("MUSE_20180112_073319_29000", "SB", "TWC", 59, "FEMALE", 52),
    ("MUSE_20180111_165520_97000", "AF", "NONE", 98, "FEMALE", 110),
    ("MUSE_20180209_124242_64000", "SR", "PWC 1AVB", 70, "MALE", 63),
    ("MUSE_20180210_124242_64000", "SR", None, 71, "MALE", 63),
)


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.save(root / "Diagnostics.xlsx")
    for folder in ("ECGData", "ECGDataDenoised"):
        (root / folder).mkdir()
        for number, (name, *_) in enumerate(ROWS[1:]):
            samples = np.arange(5000)[:, None] % (97 + number) + np.arange(12)
            lines = [",".join(TWELVE_LEADS), *(",".join(map(str, row)) for row in samples.tolist())]
            (root / folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return {
        root: {
            "MUSE_20180113_171327_27000": {
                "cohort": "chapman_figshare",
                "patient_id": None,
                "age_years": 85,
                "sex": "male",
                "mains_hz": 50,
                "labels": {"af": 1, "flutter": 0, "sb": 0, "rbbb": 1, "lbbb": 0, "avb1": 0},
            },
            "MUSE_20180112_073319_29000": {"age_years": 59, "sex": "female", "labels": {"sb": 1, "af": 0, "rbbb": 0}},
            "MUSE_20180111_165520_97000": {"age_years": 90, "labels": {"flutter": 1, "af": 0, "rbbb": 0, "avb1": 0}},
            "MUSE_20180209_124242_64000": {"age_years": 70, "labels": {"af": 0, "avb1": 1, "lbbb": 0}},
            "MUSE_20180210_124242_64000": {"labels": {"sinus_rhythm": 1, "avb1": float("nan")}},
        }
    }
