"""Challenge 2021 as published: a folder per source below `training`, groups of a thousand, MAT v4 signals.

The release of 2020 has other folders (assumed) and the same names of records. No sample of INCART and Ningbo is at hand: their records are generated, in length and rate as published.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

PATIENTS = ("1111", "9999", "11111", "12345")  # PTB-XL numbers its patients to 21,837


def comments(age: str, sex: str, codes: str) -> list[str]:
    return [f"Age: {age}", f"Sex: {sex}", f"Dx: {codes}", "Rx: Unknown", "Hx: Unknown", "Sx: Unknown"]


# Long because every record and every fact has a line of its own.
def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    write_record = partial(write_wfdb, mat=True, when="05-Feb-2020 11:39:16")
    published, flat, earlier = root / "published", root / "flat", root / "earlier"
    training = published / "training"
    write_record(training / "cpsc_2018/g1", "A0001", 500, 7500, comments("74", "Male", "59118001"))
    write_record(training / "cpsc_2018_extra/g1", "Q0001", 500, 5000, comments("NaN", "F", "427084000,,"))
    write_record(training / "st_petersburg_incart/g1", "I0001", 257, 462600, comments("65", "Female", "164889003"))
    write_record(training / "ptb/g1", "S0001", 1000, 38400, comments("81", "female", ""))
    write_record(training / "ptb-xl/g1", "HR00001", 500, 5000, comments("56", "Female", "426783006"))
    write_record(training / "georgia/g1", "E00001", 500, 5000, comments("67", "M", "251146004,284470004,284470004"))
    write_record(training / "chapman_shaoxing/g1", "JS00001", 500, 5000, comments("-1", "Unknown", "733534002"))
    write_record(training / "ningbo/g1", "JS10647", 500, 5000, comments("93", "Male", "426177001"))
    write_record(training / "ningbo/g24", "S23074", 500, 5000, comments("77", "Male", "426177001"))
    write_record(training / "ptb-xl/g2", "HR01001", 500, 5000, comments("300", "Female", "426783006"))
    for number in (9999, 10599, 10646, 10647, 45551):
        write_record(flat, f"JS{number:05d}", 500, 5000, comments("50", "Male", "426177001"))
    (flat / "ptbxl_database.csv").write_text("ecg_id,patient_id\n1,15709.0\n2,13243.0\n")
    write_record(flat, "S23074", 500, 5000, comments("77", "Male", "426177001"))
    write_record(flat, "HR00002", 500, 5000, comments("19", "Male", "426177001"))
    for source, name in (
        ("CPSC", "A0001"),
        ("2", "Q0001"),
        ("StPetersburg", "I0001"),
        ("PTB", "S0001"),
        ("PTB-XL", "HR00001"),
        ("E", "E00001"),
    ):
        folder = earlier / f"PhysioNetChallenge2020_Training_{source}" / "WFDB"
        write_record(folder, name, 500, 5000, comments("50", "Male", "164889003"))
    unknown = float("nan")
    return {
        published: {
            "A0001": {
                "cohort": "cpsc2018",
                "mains_hz": 50,
                "labels": {"rbbb": 1, "af": 0, "sb": unknown, "dx_std": 0, "dx_pvc": unknown},
            },
            "Q0001": {"cohort": "cpsc2018_extra", "age_years": None, "sex": "female", "labels": {"st": 1, "sb": 0}},
            "I0001": {"cohort": "incart", "mains_hz": 50, "patient_id": None, "labels": {"af": 1, "avb1": unknown}},
            "S0001": {"cohort": "cinc2021_ptb", "age_years": 81, "sex": "female", "labels": {"af": unknown}},
            "HR00001": {"cohort": "cinc2021_ptb_xl", "patient_id": None, "acquired_at": None},
            "E00001": {
                "cohort": "georgia",
                "mains_hz": 60,
                "sex": "male",
                "labels": {"af": 0, "dx_lqrsv": 1, "dx_pac": 1, "dx_lpr": unknown},
            },
            "JS00001": {"cohort": "chapman_shaoxing", "age_years": None, "sex": None, "labels": {"lbbb": 1}},
            "JS10647": {"cohort": "ningbo", "age_years": 90, "labels": {"sb": 1, "af": unknown}},
            "S23074": {"cohort": "ningbo", "mains_hz": 50, "age_years": 77, "labels": {"sb": 1, "af": unknown}},
            "HR01001": {"cohort": "cinc2021_ptb_xl", "age_years": 90},  # 300 stands for over 89
        },
        flat: {
            "JS09999": {"cohort": "chapman_shaoxing"},
            "JS10599": {"cohort": "chapman_shaoxing"},
            "JS10646": {"cohort": "chapman_shaoxing"},
            "JS10647": {"cohort": "ningbo"},
            "JS45551": {"cohort": "ningbo"},
            "S23074": {"cohort": "ningbo", "labels": {"af": unknown}},
            "HR00002": {"cohort": "cinc2021_ptb_xl", "patient_id": "13243"},
        },
        earlier: {
            "A0001": {"cohort": "cpsc2018"},
            "Q0001": {"cohort": "cpsc2018_extra"},
            "I0001": {"cohort": "incart"},
            "S0001": {"cohort": "cinc2021_ptb"},
            "HR00001": {"cohort": "cinc2021_ptb_xl"},
            "E00001": {"cohort": "georgia"},
        },
    }
