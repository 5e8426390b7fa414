"""MIMIC-IV-ECG and its demo: one form of files, and the tables that others publish about them."""

from ecgcohorts.cohorts.schema import Files, Label, Layout, Table, Where

# What the cart writes where it could not measure: 29999 for times, 32767 and -32768 for axes, 65535 for RR.
_NOT_MEASURED = ("29999", "32767", "-32768", "65535")
_MEASURES = (
    *("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"),  # ms
    *("p_axis", "qrs_axis", "t_axis"),  # degrees
)
# Families of ICD-10 codes at discharge from the emergency department or the hospital.
_FAMILIES = {"icd_af": ("I48",), "icd_heart_failure": ("I50",), "icd_acute_mi": ("I21", "I22")}

# The table may be missing from a copy, and so may the folders: any of the three places is enough.
SUBJECT = (
    Where(column="subject_id", table="records", usual_fillers=False),
    Where(header="subject_id", usual_fillers=False),  # the comment is "# <subject_id>: 10012343"
    Where(path=r"(?:^|/)p(\d{6,})/", usual_fillers=False),
)
_RECORDS = Table(name="records", file="record_list.csv", key="study_id", match="stem", required=False)

DEMO = Layout(
    name="files",
    reader="wfdb",
    files=Files(include=("**/*.hea",)),
    tables=(_RECORDS,),
    recording=(Where(path=r"([^/]+)\.hea$"),),
    patient=SUBJECT,
    age=(),
    sex=(),
    acquired_at=(Where(column="ecg_time", table="records"), Where(reader=True)),
)
FULL = Layout(
    **dict(DEMO)
    | {
        "tables": (
            _RECORDS,
            Table(name="machine", file="machine_measurements.csv", key="study_id", match="stem", required=False),
            # MIMIC-IV-ECG-Ext-ICD, and MIMIC-IV itself: age and sex are in no file of this release.
            Table(name="icd", file="records_w_diag_icd10.csv", key="study_id", match="stem", required=False),
            Table(name="patients", file="patients.csv.gz", key="subject_id", by=SUBJECT, required=False),
        ),
        # The age at another year, 91 for all above 89; years are shifted, but alike for all records of a patient.
        "age": (Where(column="anchor_age", table="icd"), Where(column="anchor_age", table="patients")),
        "age_at": (Where(column="anchor_year", table="icd"), Where(column="anchor_year", table="patients")),
        "sex": (Where(column="gender", table="icd"), Where(column="gender", table="patients")),
        "device": (Where(column="cart_id", table="machine"),),
        "labels": {
            **{
                name: Label(find=(Where(column=name, table="machine", optional=True),), missing=_NOT_MEASURED)
                for name in _MEASURES
            },
            **{
                # An empty list means that nobody coded the stay, which is so for 332,030 records.
                name: Label(
                    find=(Where(column="all_diag_all", table="icd", pattern=r"^\s*\[(.*\w.*)\]\s*$", optional=True),),
                    codes=codes,
                    prefix=True,
                )
                for name, codes in _FAMILIES.items()
            },
            # Folds of Ext-ICD: 0 to 17 for training, 18 for validation, 19 for testing.
            "strat_fold": Label(find=(Where(column="strat_fold", table="icd", optional=True),)),
        },
    }
)
