"""CODE-test: 827 ECGs of 827 patients, graded by two cardiologists and a third, Minas Gerais, Brazil.

Unpack `data.zip` and name its folder `data`: `ecg_tracings.hdf5`, `attributes.csv` and `annotations/*.csv`, which belong
together by row; no file has an id. The order of leads is another than that of CODE-15%: aVL, aVF, aVR stand behind III.
The labels `af`, `rbbb` ... are the gold standard; those with an ending are of one grader, or of the neural network.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

_FINDINGS = {"avb1": "1dAVb", "rbbb": "RBBB", "lbbb": "LBBB", "sb": "SB", "af": "AF", "st": "ST"}
_GRADERS = (
    *("cardiologist1", "cardiologist2", "cardiology_residents", "emergency_residents", "medical_students"),
    "dnn",
)

SPEC = CohortSpec(
    name="code_test",
    title="CODE-test, Brazil",
    licence="CC BY 4.0",
    citation="Ribeiro et al. 2020, doi:10.1038/s41467-020-15432-4",
    mains_hz=60,  # Brazil
    about=About(
        country="Brazil",
        access="open",
        records=827,
        patients=827,
        repeated_patients=0,
        notes=(
            "none of the six findings is not normal: 681 have none",
            "no recording in common with CODE-15%",
            "14 records have a dead lead",
        ),
    ),
    layouts=(
        Layout(
            name="hdf5",
            reader="code_hdf5",
            files=Files(include=("**/ecg_tracings.hdf5",)),
            tables=(
                Table(name="attributes", file="attributes.csv", match="row"),
                Table(name="gold", file="annotations/gold_standard.csv", match="row"),
                *(Table(name=one, file=f"annotations/{one}.csv", match="row", required=False) for one in _GRADERS),
            ),
            recording=(Where(path=r"#(.+)$"),),
            patient=(),
            age=(Where(column="age", table="attributes"),),
            sex=(Where(column="sex", table="attributes"),),
            acquired_at=(),
            labels={
                **{name: Label(find=(Where(column=column, table="gold"),)) for name, column in _FINDINGS.items()},
                **{
                    f"{name}_{grader}": Label(find=(Where(column=column, table=grader),))
                    for grader in _GRADERS
                    for name, column in _FINDINGS.items()
                },
            },
        ),
    ),
)
