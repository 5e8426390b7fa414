"""Chapman-Ningbo as published: groups of a thousand, then of a hundred, MAT v4 signals."""

from collections.abc import Callable
from pathlib import Path


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    for place, name, age, sex, codes in (
        ("01/010", "JS00001", "85", "Male", "164889003,59118001,164934002"),
        ("10/109", "JS10646", "NaN", "Female", "426783006"),
        ("11/110", "JS10647", "0", "Unknown", "164890007,733534002"),
        ("46/460", "JS45551", "104", "Female", "426177001"),
    ):
        comments = [f"Age: {age}", f"Sex: {sex}", f"Dx: {codes}", "Rx: Unknown", "Hx: Unknown", "Sx: Unknown"]
        folder = root / "WFDBRecords" / place
        write_wfdb(folder, name, 500, 5000, comments, mat=True, when="05-Feb-2020 11:39:16")
        (folder / "RECORDS").write_text(f"{name}\n")
    unknown = float("nan")
    return {
        root: {
            "JS00001": {
                "cohort": "chapman_ningbo_shaoxing",
                "patient_id": None,
                "age_years": 85,
                "sex": "male",
                "acquired_at": None,
                "mains_hz": 50,
                "labels": {"af": 1, "rbbb": 1, "lbbb": 0, "af_or_flutter": 1, "sinus_rhythm": 0},
            },
            "JS10646": {"cohort": "chapman_ningbo_shaoxing", "age_years": None, "labels": {"sinus_rhythm": 1}},
            "JS10647": {
                "cohort": "chapman_ningbo_ningbo",
                "age_years": 0,
                "sex": None,
                "labels": {"af": unknown, "af_or_flutter": 1, "dx_afl": 1, "lbbb": 1},
            },
            "JS45551": {"cohort": "chapman_ningbo_ningbo", "age_years": 90, "sex": "female", "labels": {"sb": 1}},
        }
    }
