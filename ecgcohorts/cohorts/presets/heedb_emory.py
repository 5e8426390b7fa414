"""HEEDB, Emory: 1,452,964 ten-second ECGs of 552,481 patients, Atlanta, USA, by its preprint; 968,680 in release 4.

Name the folder `ECG/I0006`. Layout `WFDB/2013/MUSE_....hea`; `metadata/metadata.csv`, and below `12SL_diagnoses` the
statements of the recorder and of the physician. Some rows lack the patient: such a recording is a patient of its own.
"""

from ecgcohorts.cohorts.presets._heedb import institution
from ecgcohorts.cohorts.schema import About, Files, Where

SPEC = institution(
    "heedb_emory",
    "Emory, USA",
    About(
        country="USA",
        access="credentialed",
        records=1_452_964,
        patients=552_481,
        notes=("some rows lack the patient id", "numbers of the preprint; release 4 has 968,680 records"),
    ),
    # Known to be damaged.
    Files(include=("WFDB/????/*.hea",), exclude=("WFDB/2013/MUSE_20200225_081000_06000.hea",)),
    r"(WFDB/\d{4}/.+?)",
    (Where(column="Sex", table="metadata"),),
)
