"""The chain of ST-MEM (bakqui/ST-MEM): 250 Hz, high-pass 0.67 Hz, low-pass 40 Hz."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess.steps import (
    BandPass,
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
    name="st-mem-1",
    steps=(
        CheckRate(),
        SelectLeads(leads=TWELVE_LEADS),
        FillGaps(),
        Trim(),
        # There a crop of 2250 samples is filtered; here the strip is, and windows are cut from it away from its ends.
        Cut(strip_s=10.0, window_s=9.0),
        Resample(rate_hz=250.0, method="fourier"),
        BandPass(low_hz=0.67, order=5),
        BandPass(high_hz=40.0, order=5),
        CheckAmplitude(),
        Store(),
    ),
)
