"""SaMi-Trop: ECGs of 1,631 patients with chronic Chagas disease, Minas Gerais, Brazil; one exam a patient.

Two layouts: the published one, `exams.csv` beside `exams.hdf5` (no exam ids in it: joined by row order), and the
WFDB conversion of the 2025 Challenge. Neither has patient ids. All patients have Chagas cardiomyopathy: `normal_ecg` is
no healthy control.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="sami_trop",
    title="SaMi-Trop, Brazil, 2011-2012",
    licence="CC BY 4.0",
    citation="Ribeiro et al. 2021, doi:10.5281/zenodo.4905618",
    mains_hz=60,  # Brazil
    about=About(
        country="Brazil",
        access="open",
        records=1_631,
        patients=1_631,
        repeated_patients=0,
        notes=("every patient has Chagas cardiomyopathy: normal_ecg is no healthy control",),
    ),
    layouts=(
        Layout(
            name="hdf5",
            reader="code_hdf5",
            files=Files(include=("**/exams.hdf5",)),
            # No release note says that the rows agree. A permutation test does: QRS amplitude differs by the table's sex
            # (t = 4.98) more than in any of 2,000 shuffled orders (3.44).
            tables=(Table(file="exams.csv", match="row"),),
            recording=(Where(column="exam_id"),),
            patient=(),
            age=(Where(column="age"),),
            sex=(Where(column="is_male"),),
            sex_codes={"True": "male", "False": "female", "1": "male", "0": "female"},
            acquired_at=(),
            labels={
                "normal_ecg": Label(find=(Where(column="normal_ecg"),)),
                "death": Label(find=(Where(column="death"),)),
                "follow_up_years": Label(find=(Where(column="timey"),)),
                "chagas": Label(find=(Where(constant="1"),)),  # what the cohort was recruited for
            },
        ),
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/*.hea",)),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(),
            age=(Where(header="Age"),),
            sex=(Where(header="Sex"),),
            acquired_at=(),
            labels={"chagas": Label(find=(Where(header="Chagas label"),))},
        ),
    ),
)
