"""MedalCare-XL 1.3: 16,842 simulated ten-second ECGs of 13 models of the heart, of eight classes.

`<class>/[<kind of infarct>/]<train|validation|test>/run_S62/000001_{raw,noise,filtered}.csv`: twelve rows of 5,000 numbers
in mV, without names. The three are one recording: that with noise is read, which comes nearest to what a recorder sees. A
model is a patient here. Two of them, S64 and S67, are on both sides of the published split: split by patient instead.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Where
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers.arrays.description import ArrayDescription

_CLASSES = ("sinus", "avblock", "lbbb", "rbbb", "lae", "fam", "iab", "mi")  # as the folders are called
_PART = r"(?:train|validation|test)"
_CLASS = Where(path=rf"(?:^|/)({'|'.join(_CLASSES)})/(?:[^/]+/)?{_PART}/run_")

SPEC = CohortSpec(
    name="medalcare_xl",
    title="MedalCare-XL, simulated ECGs",
    licence="CC BY 4.0",
    citation="MedalCare-XL 1.3, https://zenodo.org",
    mains_hz="auto",  # nothing was recorded
    about=About(
        country="simulated",
        access="open",
        records=16_842,
        patients=13,
        repeated_patients=13,
        notes=(
            "simulated: a patient is a model of the heart",
            "models S64 and S67 are on both sides of the published split",
            "sinus, avblock, lbbb, lae and fam have 1,300 records each, rbbb 1,298, iab 1,244, mi 7,800",
            "32 records exceed 10 mV",
        ),
    ),
    layouts=(
        Layout(
            name="csv",
            reader="arrays",
            files=Files(include=("**/run_*/*_noise.csv",), exclude=("**/mi/examples/**",)),
            arrays=ArrayDescription(
                kind="csv", rate_hz=500, unit="mV", leads=TWELVE_LEADS, axes="lead_time", samples=5000
            ),
            recording=(Where(path=rf"((?:{'|'.join(_CLASSES)})/(?:[^/]+/)?{_PART}/run_[^/]+/[^/]+)_noise\.csv$"),),
            patient=(Where(path=r"/run_([^/]+)/"),),
            age=(),
            sex=(),
            acquired_at=(),
            labels={
                **{
                    name: Label(find=(_CLASS,), values={one: float(one == name) for one in _CLASSES})
                    for name in _CLASSES
                },
                "split": Label(
                    find=(Where(path=rf"/({_PART})/run_"),), values={"train": 1, "validation": 2, "test": 3}
                ),
            },
        ),
    ),
)
