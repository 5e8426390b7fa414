"""SPH as published: one HDF5 file a record, (lead, time), and one table."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np

PATIENTS = ("S00000", "S09999", "S11111", "S12345", "S24666")

TABLE = """\
ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date
A00001,22;23,S00001,55,M,5000,2020-03-04
A00002,1,S00002,32,F,6000,2019-09-03
A00003,50+346;106,S00001,97,M,5000,2020-07-16
"""


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "metadata.csv").write_text(TABLE)
    (root / "code.csv").write_text("Code,Description\n1,Normal ECG\n")
    (root / "records").mkdir()
    for name, length in (("A00001", 5000), ("A00002", 6000), ("A00003", 5000)):
        with h5py.File(root / "records" / f"{name}.h5", "w") as file:
            file["ecg"] = np.sin(np.arange(12 * length)).reshape(12, length).astype(np.float16)
    return {
        root: {
            "A00001": {
                "cohort": "sph",
                "patient_id": "S00001",
                "age_years": 55,
                "sex": "male",
                "acquired_at": datetime(2020, 3, 4),
                "mains_hz": 50,
                "labels": {"sb": 1, "st": 0, "af": 0, "normal_ecg": 0, "aha_23": 1, "aha_30": 0},
            },
            "A00002": {"patient_id": "S00002", "sex": "female", "labels": {"normal_ecg": 1, "sb": 0}},
            "A00003": {"patient_id": "S00001", "age_years": 90, "labels": {"af": 1, "rbbb": 1, "lbbb": 0}},
        }
    }
