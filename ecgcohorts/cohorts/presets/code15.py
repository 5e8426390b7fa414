"""CODE-15%: 345,779 ECGs of 233,770 patients, Telehealth Network of Minas Gerais, Brazil.

Two layouts: the published one, `exams.csv` beside `exams_part*.hdf5` (joined by exam id inside each file, never by
row), and the WFDB conversion of the 2025 Challenge, whose headers carry the patient id. `exams.csv` beside the
conversion adds its labels. A recording with none of the six abnormalities is not a normal one: 173,347 have another
finding, 134,657 are flagged `normal_ecg`.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

_FROM_CSV = {
    name: Label(find=(Where(column=column),))
    for name, column in {
        "avb1": "1dAVb",
        "rbbb": "RBBB",
        "lbbb": "LBBB",
        "sb": "SB",
        "af": "AF",
        "st": "ST",
        "normal_ecg": "normal_ecg",
        "death": "death",  # on the first exam of a patient only
        "follow_up_years": "timey",
    }.items()
}

SPEC = CohortSpec(
    name="code15",
    title="CODE-15%, Brazil, 2010-2016",
    licence="CC BY 4.0",
    citation="Ribeiro et al. 2021, doi:10.5281/zenodo.4916206; Ribeiro et al. 2020, doi:10.1038/s41467-020-15432-4",
    mains_hz=60,  # Brazil
    about=About(
        country="Brazil",
        access="open",
        records=345_779,
        patients=233_770,
        repeated_patients=66_929,
        notes=(
            "none of the six findings is not normal: 173,347 such records have another",
            "47 of the 20,000 recordings of part 0 are identical to another, some under another patient id",
            "1,773 records have a lead of zeros",
        ),
    ),
    layouts=(
        Layout(
            name="hdf5",
            reader="code_hdf5",
            # Every part ends with a dummy of zeros under the exam id 0, which no table lists.
            files=Files(include=("**/exams_part*.hdf5",), exclude_entries=("0",)),
            tables=(Table(file="exams.csv", key="exam_id", match="entry"),),
            recording=(Where(path=r"#(.+)$"),),
            patient=(Where(column="patient_id", usual_fillers=False),),
            age=(Where(column="age"),),
            sex=(Where(column="is_male"),),
            sex_codes={"True": "male", "False": "female", "1": "male", "0": "female"},
            acquired_at=(),
            labels=_FROM_CSV,
        ),
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/*.hea",)),
            tables=(Table(file="exams.csv", key="exam_id", match="stem", required=False),),
            recording=(Where(path=r"([^/]+)\.hea$"),),  # not the exam id: an altered copy of an exam keeps it
            patient=(
                Where(header="Patient ID", usual_fillers=False),
                Where(column="patient_id", usual_fillers=False),
            ),
            age=(Where(header="Age"), Where(column="age")),
            sex=(Where(header="Sex"), Where(column="is_male")),
            sex_codes={"True": "male", "False": "female", "1": "male", "0": "female"},
            acquired_at=(),
            labels={**_FROM_CSV, "chagas": Label(find=(Where(header="Chagas label"),))},  # self-reported
        ),
    ),
)
