"""LUDB: 200 ten-second ECGs of 200 persons, with delineated waves, Lobachevsky University, Nizhny Novgorod, Russia.

`data/1.hea` to `data/200.hea` and `ludb.csv`, each of whose cells ends with a line end; several findings in a cell are
parted by line ends.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

_RHYTHMS = {
    "sinus_rhythm": ("Sinus rhythm",),
    "sb": ("Sinus bradycardia",),
    "st": ("Sinus tachycardia",),
    "af": ("Atrial fibrillation",),
    "flutter": ("Atrial flutter",),
}

SPEC = CohortSpec(
    name="ludb",
    title="LUDB, Russia",
    licence="ODC-BY 1.0",
    citation="Kalyakulina et al. 2020, doi:10.1109/ACCESS.2020.3029211; https://physionet.org/content/ludb/1.0.1/",
    mains_hz=50,  # Russia
    about=About(
        country="Russia",
        access="open",
        records=200,
        patients=200,
        repeated_patients=0,
        notes=(
            "each lead is scaled to span 1 mV: amplitudes mean nothing",
            "unconfirmed: the wording of the rhythms",
        ),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/data/*.hea",)),
            tables=(Table(file="ludb.csv", key="ID", match="stem"),),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(Where(path=r"([^/]+)\.hea$"),),
            age=(Where(column="Age"),),
            age_codes={">89": 90},
            sex=(Where(column="Sex"),),
            acquired_at=(),
            labels={
                name: Label(find=(Where(column="Rhythms"),), codes=codes, separator="\n", prefix=True)
                for name, codes in _RHYTHMS.items()
            },
        ),
    ),
)
