"""12 leads at 500 Hz, no filter but the resampler's: ECG-FM, MERL, ECG-JEPA."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="plain-500",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=TWELVE_LEADS),
        steps.FillGaps(),
        steps.Trim(),
        steps.RecordStatistics(),  # ECG-FM scales by mean and deviation of the whole recording
        steps.Cut(strip_s=10.0, window_s=5.0),  # ECG-FM reads segments of 2500 samples
        steps.Resample(rate_hz=500.0),
        steps.CheckAmplitude(above_hz=0.5),  # a unit taken for another must be found below an offset, too
        steps.Store(),
    ),
)
