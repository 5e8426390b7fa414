"""ECGRDVQ (SCR-002): 5,232 ten-second ECGs of 22 volunteers on ranolazine, dofetilide, verapamil, quinidine or placebo.

`raw/1001/<uuid>.hea` and `SCR-002.Clinical.Data.csv`, whose EGREFID is the name of a file. 1000 Hz, of which the recorder
made 500 by interpolation.
"""

from ecgcohorts.cohorts.presets._fda import INTERVALS, study
from ecgcohorts.cohorts.schema import About, Table

SPEC = study(
    "ecgrdvq",
    "ECG effects of ranolazine, dofetilide, verapamil and quinidine in healthy subjects (SCR-002)",
    About(
        records=5_232,
        patients=22,
        repeated_patients=22,
        notes=("sampled at 500 Hz and interpolated", "two values of PR wrapped around 2^32, so PR is not read"),
    ),
    (Table(name="clinical", file="SCR-002.Clinical.Data.csv", key="EGREFID", match="stem"),),
    INTERVALS,
)
