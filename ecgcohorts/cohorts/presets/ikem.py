"""IKEM: 98,130 ECGs of 8.192 s of 30,290 patients, Institute for Clinical and Experimental Medicine, Prague, Czechia.

`exams_part_0.hdf5` to `exams_part_2.hdf5` and `exams.csv`. `tracings` (exam, 4096 samples, 8 leads) holds int16 in uV, not
in steps of 4.88 uV as stated, at 500 Hz; the leads are V1 to V6, II, I, which the signals show. -1 means unknown in every
column. There are no diagnoses. The licence forbids to publish tables derived from it.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.leads import CHEST_LEADS
from ecgcohorts.readers.arrays.description import ArrayDescription

_UNKNOWN = ("-1",)
_MEASURES = ("weight", "height", "ventricular_rate", "atrial_rate")

SPEC = CohortSpec(
    name="ikem",
    title="IKEM, Prague, Czechia, 2004-2022",
    licence="CC BY-NC-ND 4.0",
    citation="IKEM ECG data set, Prague, https://zenodo.org",
    mains_hz=50,  # Czechia
    about=About(
        country="Czechia",
        access="open",
        records=98_130,
        patients=30_290,
        repeated_patients=19_078,
        notes=(
            "no derived tables may be published",
            "ages are unknown for 9.0 %; ages of 0 (546) and above 99 (21) stand in the table",
            "48 records have 2,500 samples, which recipes of 7 s refuse",
            "92 % were recorded in 2017 and 2018",
            "unconfirmed: the numbers of the parts",
        ),
    ),
    layouts=(
        Layout(
            name="hdf5",
            reader="arrays",
            files=Files(include=("**/exams_part_*.hdf5",)),
            arrays=ArrayDescription(
                kind="hdf5",
                name="tracings",
                ids="exam_id",
                lengths="real_lengths",
                rate_hz=500,
                unit="uV",
                leads=(*CHEST_LEADS, "II", "I"),
                axes="record_time_lead",
            ),
            tables=(Table(file="exams.csv", key="exam_id", match="entry"),),
            recording=(Where(path=r"#(.+)$"),),
            patient=(Where(column="patient_id"),),
            age=(Where(column="age"),),
            sex=(Where(column="is_male"),),
            sex_codes={"1": "male", "0": "female", "True": "male", "False": "female"},
            acquired_at=(Where(column="acquisition_date"),),
            time_format="%m-%d-%Y",
            labels={name: Label(find=(Where(column=name),), missing=_UNKNOWN) for name in _MEASURES},
        ),
    ),
)
