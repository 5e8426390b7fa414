"""EchoNext as published: an array for each split, one table for all, flags of 0 where nobody measured."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

PATIENTS = ("p9999", "9999", "99999", "12345", "11111")  # the form of the keys is not published

FLAGS = (
    *(
        "shd_moderate_or_greater_flag",
        "lvef_lte_45_flag",
        "lvwt_gte_13_flag",
        "aortic_stenosis_moderate_or_greater_flag",
    ),
    *("aortic_regurgitation_moderate_or_greater_flag", "mitral_regurgitation_moderate_or_greater_flag"),
    *("tricuspid_regurgitation_moderate_or_greater_flag", "pulmonary_regurgitation_moderate_or_greater_flag"),
    *("rv_systolic_dysfunction_moderate_or_greater_flag", "pericardial_effusion_moderate_large_flag"),
    *("pasp_gte_45_flag", "tr_max_gte_32_flag"),
)
VALUES = (
    *("lvef_value", "ivs_measurement", "lvpw_measurement", "pasp_value", "tr_max_velocity_value"),
    "pericardial_effusion_value",
)
HEAD = (
    *("ecg_key", "patient_key", "age_at_ecg", "sex", "acquisition_year", "pr_interval", "qrs_duration", "qt_corrected"),
    *("split", *FLAGS, *VALUES),
)


def row(key: str, person: str, age: int, sex: str, split: str, **more: object) -> str:
    """One line of the table: every flag 0 and every value empty, unless given."""
    cells = dict.fromkeys(HEAD, "") | dict.fromkeys(FLAGS, 0)
    cells |= {"ecg_key": key, "patient_key": person, "age_at_ecg": age, "sex": sex, "split": split}
    return ",".join(str(cell) for cell in (cells | {"acquisition_year": 2015} | more).values())


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    # The splits are mixed in the table; the order within each is that of its array.
    rows = [
        row("e1", "p1", 61, "female", "train", lvef_value=55, lvpw_measurement=1.4, lvwt_gte_13_flag=1),
        row("e2", "p2", 70, "male", "test", pasp_value=50, pasp_gte_45_flag=1, shd_moderate_or_greater_flag=1),
        row("e3", "p1", 62, "female", "train", pr_interval=160),
        row("e4", "p2", 68, "male", "no_split", tr_max_velocity_value=2.5, pericardial_effusion_value="none"),
        row("e5", "p3", 45, "male", "val"),
    ]
    (root / "echonext_metadata_100k.csv").write_text("\n".join([",".join(HEAD), *rows]) + "\n")
    rng = np.random.default_rng(0)
    for split, n in (("train", 2), ("val", 1), ("test", 1), ("no_split", 1)):
        np.save(root / f"EchoNext_{split}_waveforms.npy", rng.normal(size=(n, 1, 2500, 12)))
    unknown = float("nan")
    first = {"lvef_lte_45_flag": 0, "lvwt_gte_13_flag": 1, "tr_max_gte_32_flag": unknown, "split": 1}
    return {
        root: {
            "e1": {
                "cohort": "echonext",
                "patient_id": "p1",
                "age_years": 61,
                "sex": "female",
                "mains_hz": 60,
                "acquired_at": None,
                "labels": first | {"pericardial_effusion_moderate_large_flag": unknown, "acquisition_year": 2015},
            },
            "e3": {"patient_id": "p1", "age_years": 62, "labels": {"lvef_lte_45_flag": unknown, "pr_interval": 160}},
            "e2": {
                "patient_id": "p2",
                "sex": "male",
                "labels": {"pasp_gte_45_flag": 1, "shd_moderate_or_greater_flag": 1, "split": 3},
            },
            "e4": {
                "patient_id": "p2",
                "age_years": 68,
                "labels": {"tr_max_gte_32_flag": 0, "pericardial_effusion_moderate_large_flag": 0, "split": 0},
            },
            "e5": {"patient_id": "p3", "labels": {"split": 2, "aortic_stenosis_moderate_or_greater_flag": 0}},
        }
    }
