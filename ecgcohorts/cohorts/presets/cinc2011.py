"""PhysioNet/CinC Challenge 2011: 1,000 (set a) and 500 (set b) ten-second ECGs, graded for quality.

Each record comes twice, side by side: as WFDB (`.hea`, `.dat`), whose header states gain, age and sex, and as text
(`.txt`, here also gzipped): a sample number and twelve leads a line, I, II, III, aVR, aVF, aVL, V1-V6. The order is
measured: in all 181 acceptable recordings at hand only this one agrees with I and II, and R grows from V1 to V6. The
text does not state its unit: 5 uV a step, by which amplitudes are those of ECGs, is an assumption. So text is read only
where there are no headers. Set a is graded in the lists `RECORDS-acceptable` and `RECORDS-unacceptable`, but for two
records in neither; set b is not. Ages in headers are 0 where unknown and 90 where above 89; their keys, `age` and
`sex`, are assumed.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.leads import CHEST_LEADS
from ecgcohorts.readers.arrays.description import ArrayDescription

_RECORD = r"([^/.]+)\.(?:hea|txt|txt\.gz)$"
# SRC may be the set or the folder of both sets; the third names are those of a copy, LinusKra/ECGAssess.
_LISTS = {
    "1": ("RECORDS-acceptable", "set-a/RECORDS-acceptable", "Lists/RECORDS-Group I.txt"),
    "0": ("RECORDS-unacceptable", "set-a/RECORDS-unacceptable", "Lists/RECORDS-Group II.txt"),
}
_TABLES = tuple(
    Table(name=file, file=file, listed=grade, pattern=_RECORD, required=False)
    for grade, files in _LISTS.items()
    for file in files
)
_LABELS = {"acceptable": Label(find=tuple(Where(column="listed", table=table.name) for table in _TABLES))}

SPEC = CohortSpec(
    name="cinc2011",
    title="PhysioNet/CinC Challenge 2011, ECG quality",
    licence="ODC-BY 1.0 (assumed)",
    citation="Silva et al. 2011, Computing in Cardiology 38:273-276, https://physionet.org/content/challenge-2011/1.0.0/",
    mains_hz="auto",  # where the recordings were made is not published
    about=About(access="open", records=1_500),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/*.hea",)),
            # Two records of set a stand in neither list, and all of set b: their grade is unknown.
            tables=_TABLES,
            recording=(Where(path=_RECORD),),
            patient=(),
            age=(Where(header="age"),),
            age_codes={"0": -1},  # unknown
            sex=(Where(header="sex"),),
            acquired_at=(),
            labels=_LABELS,
        ),
        Layout(
            name="text",
            reader="arrays",
            fallback=True,
            files=Files(include=("**/???????.txt", "**/???????.txt.gz"), exclude=("**/LICENSE.txt",)),
            arrays=ArrayDescription(
                kind="csv",
                rate_hz=500,
                unit="mV",
                steps_per_unit=200,  # assumed, see above
                leads=("I", "II", "III", "aVR", "aVF", "aVL", *CHEST_LEADS),
                axes="time_lead",
                samples=5000,
                columns=tuple(range(1, 13)),  # column 0 counts the samples
            ),
            tables=_TABLES,
            recording=(Where(path=_RECORD),),
            patient=(),
            age=(),
            sex=(),
            acquired_at=(),
            labels=_LABELS,
        ),
    ),
)
