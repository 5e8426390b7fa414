"""Challenge 2011: both sets as published, WFDB and text side by side, and a folder of text alone."""

import gzip
from collections.abc import Callable
from pathlib import Path

N = 5000


def text_of(number: int) -> bytes:
    """5,000 lines of a sample number and twelve integers."""
    return "".join(f"{row}," + ",".join([str((row + number) % 97)] * 12) + "\n" for row in range(N)).encode()


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    published, text = root / "published", root / "text"
    set_a = published / "set-a"
    write_wfdb(set_a, "1002603", 500, N, ["age: 0", "sex: F"], gain=200)
    write_wfdb(set_a, "1002867", 500, N, ["age: 45", "sex: M"], gain=200)
    write_wfdb(set_a, "1003574", 500, N, ["age: 90", "sex: M"], gain=200)
    write_wfdb(published / "set-b", "1011606", 500, N, ["age: 33", "sex: F"], gain=200)
    (set_a / "1002603.txt").write_bytes(text_of(1))
    (set_a / "RECORDS").write_text("1002603\n1002867\n1003574\n")
    (set_a / "RECORDS-acceptable").write_text("1002867\n")
    (set_a / "RECORDS-unacceptable").write_text("1002603\n")

    text.mkdir()
    (text / "1002603.txt").write_bytes(text_of(1))
    (text / "1002867.txt.gz").write_bytes(gzip.compress(text_of(2), mtime=0))
    (text / "LICENSE.txt").write_text("no recording\n")
    (text / "RECORDS-acceptable").write_text("1002867\n")
    (text / "RECORDS-unacceptable").write_text("1002603\n")
    unknown = float("nan")
    return {
        published: {
            "1002603": {"cohort": "cinc2011", "age_years": None, "sex": "female", "labels": {"acceptable": 0}},
            "1002867": {"age_years": 45, "sex": "male", "patient_id": None, "labels": {"acceptable": 1}},
            "1003574": {"age_years": 90, "labels": {"acceptable": unknown}},
            "1011606": {"labels": {"acceptable": unknown}},
        },
        text: {
            "1002603": {"cohort": "cinc2011", "age_years": None, "sex": None, "labels": {"acceptable": 0}},
            "1002867": {"mains_hz": "auto", "labels": {"acceptable": 1}},
        },
    }
