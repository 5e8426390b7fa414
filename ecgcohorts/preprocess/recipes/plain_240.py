"""12 leads at 240 Hz, no filter but the resampler's: the scaling study and ECG-CPC."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="plain-240",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=TWELVE_LEADS),
        steps.FillGaps(),
        steps.Trim(),
        steps.Cut(strip_s=10.0, window_s=2.5),  # crops of 600 samples
        steps.Resample(rate_hz=240.0),
        steps.CheckAmplitude(above_hz=0.5),  # a unit taken for another must be found below an offset, too
        steps.Store(),
    ),
)
