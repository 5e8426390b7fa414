"""CiPA as published: uV, a row for each measurement of a recording, persons in a table of their own."""

from collections.abc import Callable
from pathlib import Path

PATIENTS = tuple(str(number) for number in (*range(1001, 1051), *range(2001, 2011)))

ADSL = "USUBJID,AGE,SEX,ARM\n1001,23,M,Ranolazine\n2010,31,F,Placebo\n"


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    records = (("1001", "aa-01"), ("1001", "aa-02"), ("2010", "bb-01"))
    rows = [f"{subject},{name},{measure},400" for subject, name in records for measure in ("QT", "QTCF", "RR", "HR")]
    # Results of the study stand in rows without a recording.
    rows += ["1001,,ENDPOINT,1", "2010,,ENDPOINT,0"]
    (root / "adeg.csv").write_text("\n".join(["USUBJID,EGREFID,PARAM,AVAL", *rows]) + "\n")
    (root / "adsl.csv").write_text(ADSL)
    for subject, name in records:
        folder = root / "raw" / subject
        write_wfdb(folder, name, 1000, 10_000)
        header = folder / f"{name}.hea"
        header.write_text(header.read_text().replace("1000.0(0)/mV", "0.26596(0)/uV"))
    woman = {"patient_id": "2010", "age_years": 31, "sex": "female"}
    man = {"cohort": "ecgcipa", "patient_id": "1001", "age_years": 23, "sex": "male", "mains_hz": 60}
    return {root: {"aa-01": man, "aa-02": man, "bb-01": woman}}
