"""ECGDMMLD (SCR-003): 4,211 ten-second ECGs of 22 volunteers on dofetilide alone and with other drugs.

`raw/2001/<uuid>.hea` and `SCR-003.Clinical.Data.csv`, whose EGREFID is the name of a file. Concentrations of the drugs are
labels, because the arm of a visit is not the drug on board.
"""

from ecgcohorts.cohorts.presets._fda import INTERVALS, study
from ecgcohorts.cohorts.schema import About, Table

_DRUGS = {"dofetilide": "DOF", "lidocaine": "LIDO", "mexiletine": "MEXI", "moxifloxacin": "MOXI", "diltiazem": "DILT"}

SPEC = study(
    "ecgdmmld",
    "ECG effects of dofetilide, moxifloxacin, mexiletine, lidocaine and diltiazem in healthy subjects (SCR-003)",
    About(
        records=4_211,
        patients=22,
        repeated_patients=22,
        notes=(
            "the arm of a visit is not the drug on board: use the concentrations",
            "sampled at 500 Hz, interpolated",
        ),
    ),
    (Table(name="clinical", file="SCR-003.Clinical.Data.csv", key="EGREFID", match="stem"),),
    INTERVALS | _DRUGS,
)
