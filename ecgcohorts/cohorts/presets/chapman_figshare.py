"""Chapman-Shaoxing on figshare: 10,646 ten-second ECGs of 10,646 patients, Shaoxing People's Hospital, China.

`ECGData/MUSE_20180113_171327_27000.csv`: a line of names, then 5,000 lines of twelve leads in uV. `ECGDataDenoised` holds
the same recordings filtered, and is left alone. `Diagnostics.xlsx` needs openpyxl: `pip install "ecgcohorts[xlsx]"`.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Overlap, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers.arrays.description import ArrayDescription

# AF is flutter here, and AFIB fibrillation.
_RHYTHMS = {
    "sb": "SB",
    "sinus_rhythm": "SR",
    "af": "AFIB",
    "st": "ST",
    "svt": "SVT",
    "flutter": "AF",
    "sinus_irregularity": "SA",
    "atrial_tachycardia": "AT",
    "avnrt": "AVNRT",
    "avrt": "AVRT",
    "wandering_pacemaker": "SAAWR",
}
# The other statements, parted by spaces; a recording without one says NONE.
_BEATS = {"avb1": "1AVB", "rbbb": "RBBB", "lbbb": "LBBB"}
_BEAT = (Where(column="Beat", pattern=r"^(?!\s*NONE\s*$)(.+)$"), Where(column="Beat", pattern=r"^\s*(N)ONE\s*$"))
_SHARED = "10,247 of 10,646 records, equal to 0.5 uV"

SPEC = CohortSpec(
    name="chapman_figshare",
    title="Chapman-Shaoxing on figshare, China",
    licence="CC0",
    citation="Zheng et al. 2020, doi:10.1038/s41597-020-0386-x; data doi:10.6084/m9.figshare.c.4560497.v2",
    mains_hz=50,  # China
    about=About(
        country="China",
        access="open",
        records=10_646,
        patients=10_646,
        repeated_patients=0,
        notes=(
            "the Rhythm AF is flutter, AFIB is fibrillation",
            "399 records are in this release alone",
            "unconfirmed: 1AVB, RBBB, LBBB and NONE as the texts of Beat",
        ),
    ),
    overlaps=(
        Overlap(cohort="chapman_shaoxing", what=_SHARED, found=False),
        Overlap(cohort="chapman_ningbo_shaoxing", what=_SHARED, found=False),
    ),
    layouts=(
        Layout(
            name="csv",
            reader="arrays",
            files=Files(include=("**/ECGData/*.csv",)),
            arrays=ArrayDescription(
                kind="csv",
                rate_hz=500,
                unit="uV",
                leads=TWELVE_LEADS,
                axes="time_lead",
                samples=5000,
                skip_lines=1,
            ),
            tables=(Table(file="Diagnostics.xlsx", key="FileName", match="stem"),),
            recording=(Where(path=r"([^/]+)\.csv$"),),
            patient=(),
            age=(Where(column="PatientAge"),),
            sex=(Where(column="Gender"),),
            acquired_at=(),
            labels={
                **{name: Label(find=(Where(column="Rhythm"),), codes=(code,)) for name, code in _RHYTHMS.items()},
                **{name: Label(find=_BEAT, codes=(code,), separator=" ") for name, code in _BEATS.items()},
            },
        ),
    ),
)
