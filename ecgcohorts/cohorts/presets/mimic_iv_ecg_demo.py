"""MIMIC-IV-ECG demo 0.1: 659 ten-second ECGs of 92 patients of MIMIC-IV-ECG, open to all.

The layout is that of the full release, with `record_list.csv` alone: no measurements, labels, ages or sexes. Its
`study_id` is renumbered, so 658 of the records are in the full release under other ids.
"""

from ecgcohorts.cohorts.presets._mimic import DEMO
from ecgcohorts.cohorts.schema import About, Overlap
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="mimic_iv_ecg_demo",
    title="MIMIC-IV-ECG demo, USA",
    licence="ODbL 1.0",
    citation="MIMIC-IV-ECG demo 0.1, https://physionet.org",
    mains_hz=60,  # USA
    about=About(
        country="USA",
        access="open",
        records=659,
        patients=92,
        notes=("12 records hold missing samples, 13 have flat leads", "1 to 52 records a patient, 5 in the median"),
    ),
    overlaps=(Overlap(cohort="mimic_iv_ecg", what="658 of 659 records, under other ids", found=True),),
    layouts=(DEMO,),
)
