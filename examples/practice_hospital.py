"""Write an export like that of a hospital, with its usual faults, to try ecgcohorts on before your own files.

    python examples/practice_hospital.py        # writes export/ and archive/

`export` holds MUSE XML of cardiology without names and ids, a table of persons for it, and WFDB records of a ward. One file
was cut short on its way, one lies in two folders, and one age was typed as a year of birth. `archive` has the whole file and
the corrected table. The ECGs are simulated: they are nobody's.
"""

import csv
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ecgcohorts.simulate import simulate

EXPORT, ARCHIVE = Path("export"), Path("archive")
SEXES = {"male": "m", "female": "v"}  # as a Dutch table has them
CUT, TWICE, WRONG = 5, 8, 3  # which file, which file, which row
CUT_BYTES = 9000


def table(truth: list[dict[str, str]], files: list[Path], with_error: bool) -> str:
    """The table of persons, a row for each file: its name, person, age and sex."""
    by_id = {row["recording_id"]: row for row in truth}
    lines = ["file,person,age,sex"]
    for number, path in enumerate(files):
        row = by_id[path.stem.rpartition("_")[2]]
        age = "1951" if with_error and number == WRONG else str(int(float(row["age_years"])))
        lines.append(f"{path.stem},R{row['patient_id']},{age},{SEXES[row['sex']]}")
    return "\n".join(lines) + "\n"


def write() -> None:
    """Write both folders, which must not be there yet."""
    with TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        simulate(raw, patients_per_cohort={"north": 4, "river": 12, "coast": 1}, seed=4)
        shutil.copytree(raw / "river", EXPORT / "cardiology", ignore=shutil.ignore_patterns("cohort.yaml"))
        shutil.copytree(raw / "north" / "records", EXPORT / "ward3")
        with (raw / "truth.csv").open(newline="", encoding="ascii") as file:
            truth = [row for row in csv.DictReader(file) if row["cohort"] == "river"]
    files = sorted((EXPORT / "cardiology").rglob("*.xml"))
    for path in files:
        text = re.sub(r"<(PatientID|PatientAge|Gender)>[^<]*", r"<\1>XXXX", path.read_text("latin-1"))
        path.write_text(text, "latin-1")
    (EXPORT / "persons.csv").write_text(table(truth, files, True), "ascii")
    ARCHIVE.mkdir()
    (ARCHIVE / "persons.csv").write_text(table(truth, files, False), "ascii")
    shutil.copy(files[CUT], ARCHIVE)
    files[CUT].write_bytes(files[CUT].read_bytes()[:CUT_BYTES])
    (EXPORT / "cardiology" / "again").mkdir()
    shutil.copy(files[TWICE], EXPORT / "cardiology" / "again")


if __name__ == "__main__":
    write()
    print(
        f"{EXPORT}/: {sum(path.is_file() for path in EXPORT.rglob('*'))} files; {ARCHIVE}/: what mends two of its faults"
    )
