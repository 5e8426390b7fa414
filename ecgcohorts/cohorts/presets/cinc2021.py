"""PhysioNet/CinC Challenge 2020 and 2021: eight public sources in one format, each a cohort of its own here.

The first six are those of 2020; 2021 added Chapman-Shaoxing and Ningbo. The record name says the source. These two
share the letters JS: the published folders `chapman_shaoxing` and `ningbo` tell them apart, and without such a folder
the number does (Chapman-Shaoxing ends at JS10646); one record of Ningbo is named S23074. Patients are unknown, except that `ptbxl_database.csv`, put beside
the records, gives those of HR records (HR00001 is ecg_id 1). The date in a header is that of the conversion, so no
acquisition time is taken from it.
"""

from ecgcohorts.cohorts.presets._snomed import FROM_NINGBO, OTHERS, SIX, present
from ecgcohorts.cohorts.schema import About, Cohort, Files, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

# S23074 is JS23074 of the original release; PTB's names have four digits behind the S.
_NINGBO = rf"(?i)^(?:.*/)?ningbo/(?:.*/)?JS\d{{5}}$|^(?!(?:.*/)?chapman[-_]?shaoxing/).*{FROM_NINGBO}|(?:^|/)S23074$"

SPEC = CohortSpec(
    name="cinc2021",
    title="PhysioNet/CinC Challenge 2020 and 2021 training data",
    licence="CC BY 4.0",
    citation="Reyna et al. 2021, doi:10.23919/CinC53138.2021.9662687; data doi:10.13026/34va-7q14",
    mains_hz=None,  # of a record of unknown source
    expected_gain_per_mv=1000,  # early headers claim 4880 (Georgia), 200 (PTB-XL) or 2,000,000 (PTB) for the same integers
    about=About(
        country="China, Germany, Russia, USA",
        access="open",
        records=88_253,
        notes=(
            "patients are unknown; PTB and INCART have several records a patient, which no split can keep together",
            "all 43,101 records of 2020 are in the release of 2021",
            "INCART: prefer the original, incart_original",
            "clipped at 32.767 mV: 1,021 records; leads of zeros: 1,531",
        ),
    ),
    # A label is "unlabelled" where not one record of the source carries it: nobody looked, so 0 would be a claim.
    # Source: the counts in dx_mapping_scored.csv and dx_mapping_unscored.csv.
    cohorts=(
        Cohort(
            name="cpsc2018",
            path=r"(^|/)A\d{4}$",
            title="CPSC 2018, China",
            mains_hz=50,
            unlabelled=(
                *("sb", "st", "dx_afl", "dx_brady", "dx_irbbb", "dx_lad", "dx_lanfb", "dx_lpr", "dx_lqrsv", "dx_lqt"),
                *("dx_nsivcb", "dx_pr", "dx_pvc", "dx_qab", "dx_rad", "dx_sa", "dx_tab", "dx_tinv"),
            ),
        ),
        Cohort(
            name="cpsc2018_extra",
            path=r"(^|/)Q\d{4}$",
            title="CPSC 2018 extra, China",
            mains_hz=50,
            unlabelled=("dx_lad", "dx_lanfb", "dx_lpr", "dx_lqrsv", "dx_veb"),
        ),
        Cohort(
            name="incart",
            path=r"(^|/)I\d{4}$",
            title="INCART, Russia",
            mains_hz=50,
            unlabelled=(
                *("avb1", "lbbb", "sb", "dx_afl", "dx_irbbb", "dx_lad", "dx_lanfb", "dx_lpr", "dx_lqrsv", "dx_lqt"),
                *("dx_nsr", "dx_pr", "dx_pvc", "dx_qab", "dx_rad", "dx_tab"),
            ),
        ),
        Cohort(
            name="cinc2021_ptb",  # as converted; `ptb` is left to the original
            path=r"(^|/)S\d{4}$",
            title="PTB Diagnostic ECG, Germany",
            mains_hz=50,
            unlabelled=(
                *("avb1", "rbbb", "lbbb", "sb", "dx_brady", "dx_irbbb", "dx_lad", "dx_lanfb", "dx_lpr", "dx_lqrsv"),
                *("dx_lqt", "dx_nsivcb", "dx_pac", "dx_pr", "dx_pvc", "dx_qab", "dx_rad", "dx_sa", "dx_tab", "dx_tinv"),
                *("dx_veb", "dx_std", "dx_ste"),
            ),
        ),
        Cohort(
            name="cinc2021_ptb_xl",
            path=r"(^|/)HR\d{5}$",
            title="PTB-XL, Germany",
            mains_hz=50,
            unlabelled=("dx_brady", "dx_pvc"),
        ),
        Cohort(
            name="georgia",
            path=r"(^|/)E\d{5}$",
            title="Georgia 12-lead, Emory University, USA",
            mains_hz=60,
            sentinel="clipping",  # -32768 is a sample at the foot of the range, in six or more records
            unlabelled=("dx_lpr", "dx_pr"),
        ),
        Cohort(
            name="ningbo",
            path=_NINGBO,
            title="Ningbo First Hospital, China",
            mains_hz=50,
            sentinel="clipping",
            unlabelled=("af", "dx_veb", "dx_ste"),
        ),
        Cohort(
            name="chapman_shaoxing",
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
            tables=(
                Table(
                    name="ptb_xl", file="ptbxl_database.csv", key="ecg_id", pattern=r"HR(\d{5})\.hea$", required=False
                ),
            ),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            # Only recordings from PTB-XL have patients, and only where its table was put beside them.
            patient=(Where(column="patient_id", fillers=("0",), usual_fillers=False),),
            age=(Where(header="Age"),),
            age_codes={"300": 90},  # 204 records of the folder ptb-xl, as PTB-XL writes "over 89"
            sex=(Where(header="Sex"),),
            acquired_at=(),
            labels={name: present(*codes) for name, codes in {**SIX, **OTHERS}.items()},
        ),
    ),
)
