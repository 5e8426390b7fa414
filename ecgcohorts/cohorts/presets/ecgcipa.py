"""CiPA (SCR-004): 5,749 ten-second ECGs of 60 volunteers in a study of the effects of drugs on ion channels.

`raw/1001/<uuid>.hea` in uV. `adeg.csv` has nine rows or more for each recording, one a measurement, of which the subject
is read; `adsl.csv` has one row a subject. Rows that name no recording hold results of the whole study.
"""

from ecgcohorts.cohorts.presets._fda import study
from ecgcohorts.cohorts.schema import About, Table, Where

SPEC = study(
    "ecgcipa",
    "CiPA ECG validation study in healthy subjects (SCR-004)",
    About(
        records=5_749,
        patients=60,
        repeated_patients=60,
        notes=("measurements are not read: adeg.csv has a row for each of them",),
    ),
    (
        Table(name="adeg", file="adeg.csv", key="EGREFID", match="stem", repeated=True),
        Table(name="adsl", file="adsl.csv", key="USUBJID", by=(Where(column="USUBJID", table="adeg"),)),
    ),
    {},
)
