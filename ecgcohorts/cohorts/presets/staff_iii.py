"""STAFF III: 520 ECGs of 94.5 to 960 s of 104 patients before, during and after occlusion of a coronary artery, USA.

`001a.hea`: the three digits are the patient, the letter counts the recordings. Nine leads, V1 to V6, I, II, III; aVR, aVL
and aVF are derived. A window of ten seconds is taken each minute. The phase of a recording and the times of inflation
stand in a workbook whose form is not known here; the length of a recording alone gives the phase away. Phases are read from
a table `phases.csv` that you make of it: `record,phase`, such as `001a,BR`.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where, Windows
from ecgcohorts.cohorts.spec import CohortSpec

_PHASES: dict[str, float] = {
    "BR": 0,  # before, in the room
    "BC": 1,  # before, at catheterisation
    "BI": 2,  # the balloon is inflated
    "PC": 3,  # after, at catheterisation
    "PR": 4,  # after, in the room
}

SPEC = CohortSpec(
    name="staff_iii",
    title="STAFF III, USA",
    licence="ODC-BY 1.0",
    citation="STAFF III Database 1.0.0, https://physionet.org/content/staffiii/1.0.0/",
    mains_hz=60,  # USA
    sentinel="clipping",  # -32768 is a sample at the rail of 20.48 mV, in 27 records
    about=About(
        country="USA",
        access="open",
        records=520,
        patients=104,
        repeated_patients=104,
        notes=(
            "089d is truncated, V6 of 016f is zero, leads of patients 1, 4, 5, 6, 89 may be reversed",
            "unconfirmed: 60 Hz, and the key of sex in the headers",
            "phases: BR 73, BC 114, BI 142, PC 95 and PR 96 records; they are read from a phases.csv of your own",
        ),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/????.hea",)),
            windows=Windows(length_s=10, every_s=60),
            tables=(Table(file="phases.csv", key="record", match="stem", required=False),),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(Where(path=r"(\d{3})[a-z]\.hea$"),),
            age=(Where(header="Age"),),
            sex=(Where(header="Sex"), Where(header="Gender")),
            acquired_at=(),
            labels={"phase": Label(find=(Where(column="phase"),), values=_PHASES)},
        ),
    ),
)
