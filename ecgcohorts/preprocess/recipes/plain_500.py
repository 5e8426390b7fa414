"""12 leads at 500 Hz, no filter but the resampler's: ECG-FM, MERL, ECG-JEPA."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess.steps import (
    CheckAmplitude,
    CheckRate,
    Cut,
    FillGaps,
    Recipe,
    RecordStatistics,
    Resample,
    SelectLeads,
    Store,
    Trim,
)

RECIPE = Recipe(
    name="plain-500",
    steps=(
        CheckRate(),
        SelectLeads(leads=TWELVE_LEADS),
        FillGaps(),
        Trim(),
        RecordStatistics(),  # ECG-FM scales by mean and deviation of the whole recording
        Cut(strip_s=10.0, window_s=5.0),  # ECG-FM reads segments of 2500 samples
        Resample(rate_hz=500.0),
        CheckAmplitude(above_hz=0.5),  # a unit taken for another must be found below an offset, too
        Store(),
    ),
)
