"""12 leads at 100 Hz, no filter but the resampler's: OpenECG (10 s), xECG (2.5 s tokens of 10 s)."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="plain-100",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=TWELVE_LEADS),
        steps.FillGaps(),
        steps.Trim(),
        steps.Cut(strip_s=10.0, window_s=5.0),  # our default: OpenECG reads 10 s, and pads what is shorter
        steps.Resample(rate_hz=100.0),
        steps.CheckAmplitude(above_hz=0.5),  # a unit taken for another must be found below an offset, too
        steps.Store(),
    ),
)
