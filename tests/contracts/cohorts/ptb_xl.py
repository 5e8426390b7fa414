"""PTB-XL as published: one table, 500 Hz and 100 Hz copies in folders of a thousand."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

PATIENTS = ("1111", "9999", "11111", "12345")

TABLE = """\
ecg_id,patient_id,age,sex,device,recording_date,site,scp_codes,strat_fold,filename_lr,filename_hr
1,15709.0,56.0,1,CS-12   E,1984-11-09 09:17:34,0.0,"{'NORM': 100.0, 'SBRAD': 0.0}",3,records100/00000/00001_lr,records500/00000/00001_hr
1001,15709.0,300.0,0,AT-6 C,1991-01-02 00:00:00,,"{'IMI': 0.0, 'CRBBB': 100.0, 'AFIB': 0.0}",10,records100/01000/01001_lr,records500/01000/01001_hr
1002,0.0,,0,,,2.0,"{'AFLT': 100.0}",9,records100/01000/01002_lr,records500/01000/01002_hr
"""


def write(root: Path, write_record: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "ptbxl_database.csv").write_text(TABLE)
    for number in (1, 1001, 1002):
        for letter, rate in (("h", 500), ("l", 100)):
            folder = root / f"records{rate}" / f"{number // 1000 * 1000:05d}"
            write_record(folder, f"{number:05d}_{letter}r", rate, rate * 10)
    first = {"norm": 1, "sb": 1, "mi": 0, "rbbb": 0, "scp_norm": 1, "scp_sbrad": 1, "scp_prc_s": 0, "strat_fold": 3}
    second = {
        "norm": 0,
        "mi": 1,
        "cd": 1,
        "rbbb": 1,
        "af": 1,
        "sub_imi": 1,
        "sub_crbbb": 1,
        "sub_ami": 0,
        "strat_fold": 10,
    }
    return {
        root: {
            "00001_hr": {
                "cohort": "ptb_xl",
                "patient_id": "15709",
                "age_years": 56,
                "sex": "female",
                "acquired_at": datetime(1984, 11, 9, 9, 17, 34),
                "device": "CS-12 E",
                "site": "0",
                "labels": first,
            },
            "01001_hr": {"patient_id": "15709", "age_years": 90, "sex": "male", "site": None, "labels": second},
            "01002_hr": {
                "patient_id": None,
                "age_years": None,
                "device": None,
                "acquired_at": None,
                "labels": {"af": 0, "scp_aflt": 1, "scp_afib": 0},
            },
        }
    }
