"""12 leads at 240 Hz, no filter but the resampler's: the scaling study and ECG-CPC."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess.steps import (
    CheckAmplitude,
    CheckRate,
    Cut,
    FillGaps,
    Recipe,
    Resample,
    SelectLeads,
    Store,
    Trim,
)

RECIPE = Recipe(
    name="plain-240",
    steps=(
        CheckRate(),
        SelectLeads(leads=TWELVE_LEADS),
        FillGaps(),
        Trim(),
        Cut(strip_s=10.0, window_s=2.5),  # crops of 600 samples
        Resample(rate_hz=240.0),
        CheckAmplitude(above_hz=0.5),  # a unit taken for another must be found below an offset, too
        Store(),
    ),
)
