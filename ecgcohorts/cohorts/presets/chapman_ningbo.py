"""Chapman-Ningbo: 45,152 ten-second ECGs, Shaoxing People's Hospital and Ningbo First Hospital, China.

PhysioNet `ecg-arrhythmia` 1.0.0: `WFDBRecords/01/010/JS00001.hea` with a MAT v4 file beside it, comments as in the
Challenge of 2021, which holds the same recordings. The release gives no patient id but says that each record is of
another patient. The two hospitals are told apart by the record number: 10,247 records from Shaoxing, 34,905 from Ningbo.
"""

from ecgcohorts.cohorts.presets._snomed import FROM_NINGBO, OTHERS, SIX, present
from ecgcohorts.cohorts.schema import About, Cohort, Files, Layout, Overlap, Where
from ecgcohorts.cohorts.spec import CohortSpec

_FLUTTER = "164890007"
_SINUS_RHYTHM = "426783006"

SPEC = CohortSpec(
    name="chapman_ningbo",
    title="Chapman-Ningbo, China",
    licence="CC BY 4.0",
    citation="Zheng et al. 2020, doi:10.1038/s41598-020-59821-7; data doi:10.13026/wgex-er52",
    mains_hz=50,  # China
    expected_gain_per_mv=1000,
    sentinel="clipping",  # -32768 is a sample at the foot of the range, in about a hundred records
    about=About(
        country="China",
        access="open",
        records=45_152,
        patients=45_152,
        repeated_patients=0,
        notes=(
            "the release states one record a patient, but no id: patients count as unknown",
            "2,243 records have flat leads, mostly of Ningbo; the header of JS01052 is damaged",
        ),
    ),
    overlaps=(
        Overlap(cohort="chapman_shaoxing", of="chapman_ningbo_shaoxing", what="all 10,247 records", found=True),
        Overlap(cohort="ningbo", of="chapman_ningbo_ningbo", what="all 34,905 records; JS23074 is S23074", found=True),
    ),
    cohorts=(
        Cohort(
            name="chapman_ningbo_ningbo",  # `ningbo` and `chapman_shaoxing` are the Challenge's
            path=rf"(^|/){FROM_NINGBO}",
            title="Ningbo First Hospital, China",
            mains_hz=50,
            sentinel="clipping",
            # none has the code of fibrillation and 7,615 have flutter: fibrillation is among those (assumed).
            # Source: the counts in dx_mapping_scored.csv and dx_mapping_unscored.csv of the Challenge, as for Shaoxing.
            unlabelled=("af", "dx_veb", "dx_ste"),
        ),
        Cohort(
            name="chapman_ningbo_shaoxing",
            path=r"(^|/)JS\d{5}$",  # what is not Ningbo
            title="Shaoxing People's Hospital, China",
            mains_hz=50,
            sentinel="clipping",
            unlabelled=("dx_brady", "dx_irbbb", "dx_lanfb", "dx_pr", "dx_sa", "dx_veb"),
        ),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/*.hea",)),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(),
            age=(Where(header="Age"),),
            sex=(Where(header="Sex"),),
            acquired_at=(),  # the date in a header is that of the conversion
            labels={
                **{name: present(*codes) for name, codes in {**SIX, **OTHERS}.items()},
                "af_or_flutter": present(*SIX["af"], _FLUTTER),
                "sinus_rhythm": present(_SINUS_RHYTHM),
            },
        ),
    ),
)
