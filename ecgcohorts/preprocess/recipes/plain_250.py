"""12 leads at 250 Hz, no filter but the resampler's: ECG-JEPA."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="plain-250",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=TWELVE_LEADS),
        steps.FillGaps(),
        steps.Trim(),
        steps.Cut(
            strip_s=10.0, window_s=5.0
        ),  # our default; ECG-JEPA reads 10 s, and weights refuse strips that are shorter
        steps.Resample(rate_hz=250.0),
        steps.CheckAmplitude(above_hz=0.5),  # a unit taken for another must be found below an offset, too
        steps.Store(),
    ),
)
