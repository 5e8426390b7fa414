"""12 leads at 100 Hz, no filter but the resampler's: OpenECG (10 s), xECG (2.5 s tokens of 10 s)."""

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
    name="plain-100",
    steps=(
        CheckRate(),
        SelectLeads(leads=TWELVE_LEADS),
        FillGaps(),
        Trim(),
        Cut(strip_s=10.0, window_s=5.0),  # our default: OpenECG reads 10 s, and pads what is shorter
        Resample(rate_hz=100.0),
        CheckAmplitude(above_hz=0.5),  # a unit taken for another must be found below an offset, too
        Store(),
    ),
)
