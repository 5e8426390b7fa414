"""HEEDB, Massachusetts General Brigham: 10,471,531 ten-second ECGs of 1,818,247 patients, Boston, USA.

Name the folder `ECG/I0001`. Layout `WFDB/S0001/2019/.../NAME.hea` with a MAT v4 file beside it, four sites, 34 years of
a site; `metadata/metadata.csv`, and below `12SL_diagnoses` the statements of the recorder and of the physician. Of release
2, name the folder that holds `ECG/WFDB/S0001/...` and `Metadata`: patients, sexes and statements are read, ages are not.
"""

from ecgcohorts.cohorts.presets._heedb import RELEASE_2, institution
from ecgcohorts.cohorts.schema import About, Files, Where

SPEC = institution(
    "heedb_mgb",
    "Mass General Brigham, USA",
    About(
        country="USA",
        access="credentialed",
        records=10_471_531,
        patients=1_818_247,
        notes=(
            "unconfirmed of release 2: separators of its codes and the form of its file names; its unit of age is unknown",
            "release 2 lists duplicates in Metadata/duplicated.csv; copies of a waveform are found without it",
        ),
    ),
    Files(include=("WFDB/S*/**/*.hea",)),
    r"(/S\d+/.+?)",
    (
        Where(column="SexDSC", table="metadata", optional=True),
        Where(column="SexAssignedAtBirthDSC", table="metadata", optional=True),
    ),
    RELEASE_2,
)
