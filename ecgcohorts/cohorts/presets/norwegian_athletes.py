"""Norwegian endurance athletes: 28 ten-second ECGs of 28 athletes, with the findings of a recorder and a cardiologist.

`ath_001.hea`. Each lead is scaled to the whole range of 16 bits, so that amplitudes mean nothing although the header
states 50,000 steps per mV. Age and sex are unknown. Findings stand in two comments, `SL12` of the recorder and `C` of the
cardiologist, as lists whose statements may hold commas themselves; a label is 1 if the list begins a statement with it.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Where
from ecgcohorts.cohorts.spec import CohortSpec

_STATEMENTS = {"sb": ("sinus bradycardia", "Sinus bradycardia"), "sinus_rhythm": ("sinus rhythm", "Sinus rhythm")}

SPEC = CohortSpec(
    name="norwegian_athletes",
    title="Norwegian endurance athletes",
    licence="CC BY 4.0",
    citation="Norwegian Endurance Athlete ECG Database 1.0.0, https://physionet.org/content/norwegian-athlete-ecg/1.0.0/",
    mains_hz=50,  # Norway
    unit="none",  # whatever the headers state
    about=About(
        country="Norway",
        access="open",
        records=28,
        patients=28,
        repeated_patients=0,
        notes=(
            "each lead is scaled to the full range of 16 bits: amplitudes mean nothing",
            "unconfirmed: the wording of the statements",
        ),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/ath_*.hea",)),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(Where(path=r"([^/]+)\.hea$"),),
            age=(),
            sex=(),
            acquired_at=(),
            labels={
                f"{name}{end}": Label(find=(Where(header=key),), codes=codes, prefix=True, separator=",")
                for name, codes in _STATEMENTS.items()
                for end, key in (("", "C"), ("_software", "SL12"))
            },
        ),
    ),
)
