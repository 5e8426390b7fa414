"""MIMIC-IV-ECG: 800,035 ten-second ECGs of 161,352 patients, Beth Israel Deaconess Medical Center, Boston.

Layout `files/pNNNN/pSUBJECT/sSTUDY/STUDY.hea`. The subject stands in `record_list.csv`, in each header and in the
path. Times are shifted per patient, so only differences within a patient mean anything. Tables that others publish are
used where they lie beside `record_list.csv`: `records_w_diag_icd10.csv` (MIMIC-IV-ECG-Ext-ICD: age, sex, diagnoses,
folds) and `patients.csv.gz` (MIMIC-IV: age and sex).
"""

from ecgcohorts.cohorts.presets._mimic import FULL
from ecgcohorts.cohorts.schema import About, Overlap
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="mimic_iv_ecg",
    title="MIMIC-IV-ECG, USA, 2008-2019",
    licence="ODbL 1.0 (assumed)",
    citation="Gow et al. 2023, doi:10.13026/4nqg-sb35",
    mains_hz=60,  # USA; `filtering` of machine_measurements.csv says "60 Hz notch"
    about=About(
        country="USA",
        access="open",
        records=800_035,
        patients=161_352,
        repeated_patients=104_008,
        notes=(
            "unconfirmed: one catalogue says credentialed, mirrors say ODbL; Ext-ICD and MIMIC-IV are credentialed",
            "10,554 records hold missing samples, 1,950 a lead of zeros",
            "a stay without ICD code is not one without disease: such labels are unknown",
            "folds of Ext-ICD and of Symile-MIMIC are independent of each other",
        ),
    ),
    overlaps=(Overlap(cohort="mimic_iv_ecg_demo", what="658 of the demo's 659 records, under other ids", found=True),),
    layouts=(FULL,),
)
