"""SaMi-Trop in both layouts: HDF5 without exam ids, joined by row order, and the WFDB conversion."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

TABLE = """\
exam_id,age,is_male,normal_ecg,death,timey,nn_predicted_age
294669,75,False,False,False,2.1,79.6
291371,57,True,True,True,0.4,40.1
248287,66,True,False,False,2.2,71.0
"""


def write(root: Path, write_record: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    published, converted = root / "published", root / "converted"
    published.mkdir()
    (published / "exams.csv").write_text(TABLE)
    with h5py.File(published / "exams.hdf5", "w") as file:
        file["tracings"] = np.sin(np.arange(1, 3 * 4096 * 12 + 1)).reshape(3, 4096, 12).astype(np.float32)

    header = ["Age: 54", "Sex: Male", "Chagas label: True", "Source: SaMi-Trop"]
    write_record(converted, "3629", 400, 2934, header)
    first = {"chagas": 1, "death": 0, "normal_ecg": 0, "follow_up_years": 2.1}
    return {
        published: {
            "294669": {"cohort": "sami_trop", "patient_id": None, "age_years": 75, "sex": "female", "labels": first},
            "291371": {"age_years": 57, "sex": "male", "mains_hz": 60, "labels": {"death": 1, "normal_ecg": 1}},
            "248287": {"age_years": 66},
        },
        converted: {"3629": {"cohort": "sami_trop", "age_years": 54, "sex": "male", "labels": {"chagas": 1}}},
    }
