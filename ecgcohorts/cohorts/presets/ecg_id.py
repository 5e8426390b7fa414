"""ECG-ID: 310 recordings of 20 s of 90 volunteers, Saint Petersburg, Russia. Lead I only, raw and filtered.

Layout `Person_01/rec_1.hea`; the person is the folder. With one lead no recipe of eight leads can be filled: cape-v1
refuses every recording as `leads_missing` (11 of them before that, for their checksums). Name a recipe of lead I:
docs/patient_pairs.md has one.
"""

from ecgcohorts.cohorts.schema import About, Files, Layout, Where
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="ecg_id",
    title="ECG-ID, Russia, 2004-2005, lead I only",
    licence="ODC-BY 1.0",
    citation="Lugovaya 2005, master's thesis, Electrotechnical University LETI; data doi:10.13026/C2J01F",
    mains_hz=50,  # Russia
    about=About(
        country="Russia",
        access="open",
        records=310,
        patients=90,
        repeated_patients=89,
        notes=(
            "lead I alone: recipes of eight leads refuse it, one of lead I takes it",
            "20 persons on several days, 10 days in all",
        ),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            # Raw and filtered lead are two signals of one record.
            files=Files(include=("**/*.hea",)),
            recording=(Where(path=r"(Person_\d+/[^/]+)\.hea$"),),  # every person has a rec_1
            patient=(Where(path=r"(?:^|/)(Person_\d+)/"),),
            age=(Where(header="Age"),),
            sex=(Where(header="Sex"),),
            acquired_at=(Where(header="ECG date"),),
            time_format="%d.%m.%Y",
        ),
    ),
)
