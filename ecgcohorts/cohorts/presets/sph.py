"""SPH: 25,770 ECGs of 10 to 56 s of 24,666 patients, Shandong Provincial Hospital, China.

Layout `records/A00001.h5` and `metadata.csv`; the published `records.tar.gz` is a tar without compression. Each file
holds one dataset `ecg`, (12 leads, time), 500 Hz, in mV and in the order I, II, III, aVR, aVL, aVF, V1-V6: no file says
so, but both were confirmed on all of them. The recorder removed mains, drift and muscle noise before the files were made.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers.arrays.description import ArrayDescription

# Primary statements of AHA/ACC/HRS, doi:10.1161/CIRCULATIONAHA.106.180201. Statements are separated by ";", their
# modifiers follow after "+" (50+346: fibrillation with a rapid response); a modified statement counts as one.
_STATEMENTS = {
    "avb1": "82",  # prolonged PR interval: the standard has no other statement for a first-degree block
    "rbbb": "106",
    "lbbb": "104",
    "sb": "22",
    "af": "50",
    "st": "21",
    "normal_ecg": "1",
}
# The others of the 44 that code.csv of the release lists, each a column aha_<number>.
_OTHERS = (
    *(23, 30, 31, 36, 37, 51, 54, 60, 80, 81, 83, 84, 85, 86, 87, 88, 101, 102, 105, 108, 120, 121, 125, 140, 142, 143),
    *(145, 146, 147, 148, 152, 153, 155, 160, 161, 165, 166),
)

SPEC = CohortSpec(
    name="sph",
    title="SPH, Shandong Provincial Hospital, China, 2019-2020",
    licence="CC BY 4.0",
    citation="Liu et al. 2022, doi:10.1038/s41597-022-01403-5; data doi:10.6084/m9.figshare.c.5779802.v1",
    mains_hz=50,  # China
    about=About(
        country="China",
        access="open",
        records=25_770,
        patients=24_666,
        repeated_patients=1_066,
        notes=("45 records exceed 100 mV", "records.tar.gz is a tar without compression"),
    ),
    layouts=(
        Layout(
            name="hdf5",
            reader="arrays",
            files=Files(include=("**/A*.h5",)),
            # Nothing in the file states these; they were confirmed on the signals.
            arrays=ArrayDescription(
                kind="hdf5", name="ecg", rate_hz=500, unit="mV", leads=TWELVE_LEADS, axes="lead_time"
            ),
            tables=(Table(file="metadata.csv", key="ECG_ID", match="stem"),),
            recording=(Where(path=r"([^/]+)\.h5$"),),
            patient=(Where(column="Patient_ID"),),
            age=(Where(column="Age"),),
            sex=(Where(column="Sex"),),
            acquired_at=(Where(column="Date"),),
            labels={
                name: Label(find=(Where(column="AHA_Code"),), codes=(code,))
                for name, code in {**_STATEMENTS, **{f"aha_{number}": str(number) for number in _OTHERS}}.items()
            },
        ),
    ),
)
