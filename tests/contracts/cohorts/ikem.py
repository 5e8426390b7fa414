"""IKEM as published: int16 exams of eight leads in another order, some shorter than the array, -1 for unknown."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np

PATIENTS = tuple(hashlib.sha1(str(number).encode()).hexdigest() for number in range(100))

ONE, TWO = "0a4d55a8d778e5022fab701977c5d840bbc486d0", "b6589fc6ab0dc82cf12099d1c2d40ab994e8410c"  # SHA-1, as published
TABLE = f"""\
exam_id,patient_id,age,is_male,weight,height,ventricular_rate,atrial_rate,acquisition_date
101,{ONE},57,1,-1,-1,72,70,03-31-2017
102,{ONE},58,1,80,-1,-1,-1,12-01-2018
201,{TWO},-1,-1,-1,170,60,60,01-02-2004
"""


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "exams.csv").write_text(TABLE)
    for part, exams, lengths in ((0, [102, 101], [4096, 2500]), (2, [201], [4096])):
        tracings = np.zeros((len(exams), 4096, 8), np.int16)
        for row, length in enumerate(lengths):
            tracings[row, :length] = np.arange(1, length + 1)[:, None] % 997 + np.arange(8)
        with h5py.File(root / f"exams_part_{part}.hdf5", "w") as file:
            file["tracings"], file["exam_id"], file["real_lengths"] = tracings, np.array(exams), np.array(lengths)
            file["hashes"] = np.array([b"0" * 40 for _ in exams])
    unknown = float("nan")
    return {
        root: {
            "101": {
                "cohort": "ikem",
                "patient_id": ONE,
                "age_years": 57,
                "sex": "male",
                "acquired_at": datetime(2017, 3, 31),
                "mains_hz": 50,
                "labels": {"weight": unknown, "ventricular_rate": 72},
            },
            "102": {"patient_id": ONE, "acquired_at": datetime(2018, 12, 1), "labels": {"weight": 80}},
            "201": {"patient_id": TWO, "age_years": None, "sex": None, "labels": {"height": 170}},
        }
    }
