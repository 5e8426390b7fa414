"""ECGRDVQ as published: recordings below `raw`, their averaged beats under the same names below `medians`."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(map(str, range(1001, 1023)))

LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
TABLE = """\
EGREFID,RANDID,SEX,AGE,RACE,VISIT,EXTRT,TPT,RR,PR,QT,QRS,JTPEAK,TPEAKTEND
0037d6cf-60f1,1001,F,34,WHITE,PERIOD-1-Dosing,Ranolazine,2.5,910,162,400,90,230,76
00ed2097-cd14,1001,F,34,WHITE,PERIOD-2-Dosing,Placebo,-0.5,905,4294967290,,91,231,75
0107cb6b-58d1,1022,M,25,ASIAN,PERIOD-1-Dosing,Placebo,3.0,1010,150,410,95,240,80
"""


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    (root / "SCR-002.Clinical.Data.csv").write_text(TABLE)
    for subject, name in (("1001", "0037d6cf-60f1"), ("1001", "00ed2097-cd14"), ("1022", "0107cb6b-58d1")):
        write_wfdb(root / "raw" / subject, name, 1000, 10_000, leads=LEADS)
        write_wfdb(root / "medians" / subject, name, 1000, 1200, leads=LEADS)
    unknown = float("nan")
    first = {"rr_ms": 910, "qt_ms": 400, "qrs_ms": 90, "jtpeak_ms": 230, "tpeaktend_ms": 76}
    return {
        root: {
            "0037d6cf-60f1": {
                "cohort": "ecgrdvq",
                "patient_id": "1001",
                "age_years": 34,
                "sex": "female",
                "mains_hz": 60,
                "labels": first,
            },
            "00ed2097-cd14": {"patient_id": "1001", "labels": {"qt_ms": unknown, "rr_ms": 905}},
            "0107cb6b-58d1": {"patient_id": "1022", "age_years": 25, "sex": "male", "labels": {"jtpeak_ms": 240}},
        }
    }
