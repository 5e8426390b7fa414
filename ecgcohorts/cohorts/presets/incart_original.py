"""INCART: 75 recordings of half an hour of 32 patients, Institute of Cardiological Technics, St Petersburg, Russia.

The release itself: `I01.hea` to `I75.hea`. The Challenge's copy (`incart` of `cinc2021`) has another gain, lost some
467,000 samples and the patients, and lacks I36. A window of ten seconds is taken each minute, 30 of a recording. The
patient stands in a comment of its own, `patient 1`, and sex before a tag without colon, `<sex>: F <diagnoses> ...`.
"""

from ecgcohorts.cohorts.schema import About, Files, Layout, Overlap, Where, Windows
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="incart_original",  # `incart` is the Challenge's
    title="INCART, Russia",
    licence="ODC-BY 1.0",
    citation="St Petersburg INCART 12-lead Arrhythmia Database 1.0.0, https://physionet.org/content/incartdb/1.0.0/",
    mains_hz=50,  # Russia
    about=About(
        country="Russia",
        access="open",
        records=75,
        patients=32,
        repeated_patients=30,
        notes=(
            "18 men and 14 women by the headers; the release's own text says 17 and 15",
            "3,166 of 3,174 beats with right bundle branch block are of one patient, I16 and I17",
            "clipped: I03 V3, I58 V4, I02 V6, I57 V4, I69",
        ),
    ),
    overlaps=(Overlap(cohort="incart", what="74 of 75 records, with another gain and samples lost", found=False),),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/I??.hea",)),
            windows=Windows(length_s=10, every_s=60),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(Where(header="patient"),),
            age=(Where(header="age"),),
            sex=(Where(header="sex"),),
            acquired_at=(),
        ),
    ),
)
