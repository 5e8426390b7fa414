"""The other institution of HEEDB, release 5: other names of files and columns, and one damaged file."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = ("111111111", "123456789", "987654321", "999999999")

METADATA = """\
BDSPPatientID,FileName,FileID,PatientRace,Sex,ECGAcquisitionTime,AgeAtAcquisition
222000001.0,WFDB/2013/MUSE_20200225_081000_05000,1,White,Female,2013-01-02 03:04:05,21915
,WFDB/2013/MUSE_20200225_081000_07000,2,White,Male,2013-01-02 03:04:05,3652
nan,WFDB/2013/MUSE_20200225_081000_08000,3,White,Male,2013-01-02 03:04:05,3652
"""
V24 = 'FileName,codes\n"./WFDB/2013/MUSE_20200225_081000_05000.hea\n","161,700"\n'


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    for number in ("05000", "06000", "07000", "08000"):  # the second is known to be damaged, and left out
        write_wfdb(root / "WFDB" / "2013", f"MUSE_20200225_081000_{number}", 500, 5000)
    (root / "metadata").mkdir()
    (root / "metadata" / "metadata.csv").write_text(METADATA)
    (root / "12SL_diagnoses").mkdir()
    (root / "12SL_diagnoses" / "diagnoses_v24.csv").write_text(V24)
    unknown = float("nan")
    return {
        root: {
            "WFDB/2013/MUSE_20200225_081000_05000": {
                "cohort": "heedb_emory",
                "patient_id": "222000001",
                "age_years": 60.0,
                "sex": "female",
                "site": None,
                "labels": {"af_v24": 1, "af": unknown, "year": 2013},
            },
            "WFDB/2013/MUSE_20200225_081000_07000": {
                "patient_id": None,
                "age_years": 3652 * (1 / 365.25),
                "sex": "male",
                "labels": {"af_v24": unknown},
            },
            "WFDB/2013/MUSE_20200225_081000_08000": {"patient_id": None},
        }
    }
