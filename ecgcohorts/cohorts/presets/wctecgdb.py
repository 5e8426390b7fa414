"""WCTECGDB: 540 ten-second ECGs of 92 patients with the potential of Wilson's central terminal, Sydney, Australia.

`patient001/seg01.hea`: 37 signals, of which I, II, III and V1 to V6 are the filtered leads; aVR, aVL and aVF are derived.
Raw leads, limb electrodes and the terminal itself have other names and are left alone.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Where
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="wctecgdb",
    title="WCTECGDB, Wilson Central Terminal, Australia",
    licence="ODC-BY 1.0",
    citation="Wilson Central Terminal ECG Database 1.0.1, https://physionet.org/content/wctecgdb/1.0.1/",
    mains_hz=50,  # Australia
    about=About(
        country="Australia",
        access="open",
        records=540,
        patients=92,
        repeated_patients=74,
        notes=("the precordial leads of 8 records were computed, as the label says; its wording is unconfirmed",),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/patient*/seg*.hea",)),
            recording=(Where(path=r"(patient\d+/[^/]+)\.hea$"),),  # every patient has a seg01
            patient=(Where(path=r"(?:^|/)(patient\d+)/"),),
            age=(Where(header="Age"),),
            sex=(Where(header="Sex"),),
            acquired_at=(),
            labels={"computed_precordials": Label(find=(Where(header="Reconstruct Precordials"),))},
        ),
    ),
)
