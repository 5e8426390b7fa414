"""WCTECGDB as published: 37 signals, comments in Windows-1252 with a hard space, no augmented leads."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(f"patient{number:03d}" for number in range(1, 93))

_LEADS = ("I", "II", "III", "V1", "V2", "V3", "V4", "V5", "V6", "LA", "RA", "LL", *(f"UV{n}" for n in range(1, 7)))
SIGNALS = [*(f"{lead}-Raw" for lead in _LEADS), *_LEADS, "WCT"]


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    assert len(SIGNALS) == 37
    for patient, segment, age, computed in (("001", "01", 71, "no"), ("001", "31", 71, "yes"), ("092", "01", 93, "no")):
        folder, name = root / f"patient{patient}", f"seg{segment}"
        comments = [f"Age: {age}", "Sex: F", "Diagnosis report: CABG ?", f"Reconstruct Precordials: {computed}"]
        write_wfdb(folder, name, 800, 8001, comments, leads=SIGNALS)
        header = folder / f"{name}.hea"
        header.write_bytes(header.read_text().replace("CABG ?", "CABG\u00a0x").encode("cp1252"))
    woman = {"cohort": "wctecgdb", "patient_id": "patient001", "age_years": 71, "sex": "female", "mains_hz": 50}
    return {
        root: {
            "patient001/seg01": {**woman, "labels": {"computed_precordials": 0}},
            "patient001/seg31": {**woman, "labels": {"computed_precordials": 1}},
            "patient092/seg01": {"patient_id": "patient092", "age_years": 90, "acquired_at": None},
        }
    }
