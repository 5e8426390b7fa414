"""Brugada-HUCA: 363 ECGs of 363 patients, Hospital Universitario Central de Asturias, Spain; 12 s at 100 Hz.

Layout `files/188981/188981.hea` and `metadata.csv`, whose `patient_id` is also the name of the record.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="brugada_huca",
    title="Brugada-HUCA, Spain",
    licence="CC BY-SA 4.0",
    citation="Brugada-HUCA: 12-lead ECG recordings for the study of Brugada syndrome, https://physionet.org",
    mains_hz=50,  # Spain; half the sampling rate, so a recipe finds nothing to notch
    about=About(
        country="Spain",
        access="open",
        records=363,
        patients=363,
        repeated_patients=0,
        notes=("RECORDS lists one record twice",),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/*.hea",)),
            tables=(Table(file="metadata.csv", key="patient_id", match="stem"),),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(Where(column="patient_id", usual_fillers=False),),  # six digits, 111111 among them
            age=(),
            sex=(),
            acquired_at=(),
            labels={
                # 0: investigated and not diagnosed (287), 1: confirmed (69), 2: other or atypical (7), which is neither.
                "brugada": Label(find=(Where(column="brugada"),), values={"0": 0, "1": 1}),
                "basal_pattern": Label(find=(Where(column="basal_pattern"),)),  # pathological baseline ECG
                "sudden_death": Label(find=(Where(column="sudden_death"),)),
            },
        ),
    ),
)
