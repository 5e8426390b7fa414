"""CODE-test as published: one HDF5 file without ids, and tables by row, one of them for each grader."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

ATTRIBUTES = "age,sex\n34,M\n70,F\n97,F\n"
GOLD = "1dAVb,RBBB,LBBB,SB,AF,ST\n0,0,0,0,0,0\n0,0,1,0,0,0\n1,0,0,0,1,0\n"
DNN = "1dAVb,RBBB,LBBB,SB,AF,ST\n0,0,0,0,0,1\n0,0,1,0,0,0\n0,0,0,0,1,0\n"


def write(root: Path, write_record: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "annotations").mkdir()
    (root / "attributes.csv").write_text(ATTRIBUTES)
    (root / "annotations" / "gold_standard.csv").write_text(GOLD)
    (root / "annotations" / "dnn.csv").write_text(DNN)
    with h5py.File(root / "ecg_tracings.hdf5", "w") as file:
        file["tracings"] = np.sin(np.arange(1, 3 * 4096 * 12 + 1)).reshape(3, 4096, 12).astype(np.float32)
    unknown = float("nan")
    first = {"avb1": 0, "st": 0, "st_dnn": 1, "af_cardiologist1": unknown}
    return {
        root: {
            "0": {"cohort": "code_test", "patient_id": None, "age_years": 34, "sex": "male", "labels": first},
            "1": {"age_years": 70, "sex": "female", "mains_hz": 60, "labels": {"lbbb": 1, "lbbb_dnn": 1, "rbbb": 0}},
            "2": {"age_years": 90, "acquired_at": None, "labels": {"avb1": 1, "avb1_dnn": 0, "af": 1, "af_dnn": 1}},
        }
    }
