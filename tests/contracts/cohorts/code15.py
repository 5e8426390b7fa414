"""CODE-15% in both layouts: the published HDF5 parts with their table, and the WFDB conversion."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

PATIENTS = ("9999", "99999", "12345", "111111", "123456", "999999", "1111111", "1234567")  # without gaps

# Rows in another order than in the HDF5 parts, as published: the join is by exam id.
TABLE = """\
exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,AF,ST,patient_id,death,timey,normal_ecg,trace_file
990,82,False,70.1,False,True,False,False,True,False,7007,,,False,exams_part17.hdf5
77,38,True,40.2,False,False,False,True,False,False,523632,False,2.098628,True,exams_part0.hdf5
1169160,95,True,80.0,True,False,False,False,False,False,523632,,,False,exams_part0.hdf5
"""


def write_part(path: Path, exam_ids: list[int], lengths: list[int]) -> None:
    """(exam, 4096, 12) float32 mV, a short exam with zeros on both sides of it."""
    tracings = np.zeros((len(exam_ids), 4096, 12), np.float32)
    for row, length in enumerate(lengths):
        start = (4096 - length) // 2
        tracings[row, start : start + length] = np.sin(np.arange(1, length + 1))[:, None] + 0.1 * row
    with h5py.File(path, "w") as file:
        file["exam_id"], file["tracings"] = np.array(exam_ids), tracings


def write(root: Path, write_record: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    published, converted = root / "published", root / "converted"
    published.mkdir()
    (published / "exams.csv").write_text(TABLE)
    # Every part ends with a dummy of zeros, exam 0, which is no recording.
    write_part(published / "exams_part0.hdf5", [1169160, 77, 0], [4096, 2934, 0])
    write_part(published / "exams_part17.hdf5", [990, 0], [2800, 0])

    header = ["Exam ID: 1111", "Patient ID: 48705", "Age: 43", "Sex: Male", "Chagas label: False"]
    write_record(converted, "1111", 400, 2934, header)
    write_record(converted, "1111_altered", 400, 2934, ["Chagas label: True"])
    unknown = float("nan")
    return {
        published: {
            "77": {
                "cohort": "code15",
                "patient_id": "523632",
                "age_years": 38,
                "sex": "male",
                "mains_hz": 60,
                "labels": {"sb": 1, "af": 0, "death": 0, "follow_up_years": 2.098628, "normal_ecg": 1},
            },
            "1169160": {"patient_id": "523632", "age_years": 90, "labels": {"avb1": 1, "death": unknown}},
            "990": {"patient_id": "7007", "sex": "female", "labels": {"rbbb": 1, "af": 1, "st": 0}},
        },
        converted: {
            "1111": {"patient_id": "48705", "age_years": 43, "sex": "male", "labels": {"chagas": 0, "af": unknown}},
            "1111_altered": {"patient_id": None, "age_years": None, "sex": None, "labels": {"chagas": 1}},
        },
    }
