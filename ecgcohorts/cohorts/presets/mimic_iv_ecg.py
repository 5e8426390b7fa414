"""MIMIC-IV-ECG: about 800,000 ten-second ECGs of 160,000 patients, Beth Israel Deaconess Medical Center, Boston.

Layout `files/pNNNN/pSUBJECT/sSTUDY/STUDY.hea`. The subject stands in `record_list.csv`, in each header and in the
path. Times are shifted per patient, so only differences within a patient mean anything.
"""

from ecgcohorts.cohorts.schema import Files, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="mimic_iv_ecg",
    title="MIMIC-IV-ECG, USA, 2008-2019",
    licence="ODbL 1.0 (assumed)",
    citation="Gow et al. 2023, doi:10.13026/4nqg-sb35",
    mains_hz=60,  # USA; `filtering` of machine_measurements.csv says "60 Hz notch"
    layouts=(
        Layout(
            name="files",
            reader="wfdb",
            files=Files(include=("**/*.hea",)),
            tables=(
                Table(name="records", file="record_list.csv", key="study_id", match="stem", required=False),
                Table(name="machine", file="machine_measurements.csv", key="study_id", match="stem", required=False),
            ),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(
                # The table may be missing from a copy, and so may the folders: any of the three places is enough.
                Where(column="subject_id", table="records", usual_fillers=False),
                Where(header="subject_id", usual_fillers=False),  # the comment is "# <subject_id>: 10012343"
                Where(path=r"(?:^|/)p(\d{6,})/", usual_fillers=False),
            ),
            # Age and sex stand in MIMIC-IV itself, not in this release.
            age=(),
            sex=(),
            acquired_at=(Where(column="ecg_time", table="records"), Where(reader=True)),
            device=(Where(column="cart_id", table="machine"),),
        ),
    ),
)
