"""ECGDMMLD as published: the form of ECGRDVQ, with the concentration of each drug."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(map(str, range(2001, 2023)))

LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
TABLE = """\
EGREFID,RANDID,SEX,AGE,RACE,VISIT,TRTA,TPT,DOF,LIDO,MEXI,MOXI,DILT,RR,PR,QT,QRS,JTPEAK,TPEAKTEND
00a75a0e-1111,2001,M,28,WHITE,PERIOD-1,Dofetilide,2.5,1210.4,,,,,910,162,400,90,230,76
00b75a0e-2222,2022,F,33,WHITE,PERIOD-3,Mexiletine,6.0,600.1,,900.5,,,1000,162,410,92,240,70
"""


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "SCR-003.Clinical.Data.csv").write_text(TABLE)
    for subject, name in (("2001", "00a75a0e-1111"), ("2022", "00b75a0e-2222")):
        write_wfdb(root / "raw" / subject, name, 1000, 10_000, leads=LEADS)
        (root / "medians" / subject).mkdir(parents=True)
        (root / "medians" / subject / f"{name}.hea").write_text("damaged, as three of the release are")
    unknown = float("nan")
    return {
        root: {
            "00a75a0e-1111": {
                "cohort": "ecgdmmld",
                "patient_id": "2001",
                "age_years": 28,
                "sex": "male",
                "labels": {"dofetilide": 1210.4, "mexiletine": unknown, "qt_ms": 400},
            },
            # The arm is mexiletine alone by its name, and dofetilide is on board.
            "00b75a0e-2222": {
                "patient_id": "2022",
                "sex": "female",
                "labels": {"mexiletine": 900.5, "dofetilide": 600.1, "lidocaine": unknown},
            },
        }
    }
