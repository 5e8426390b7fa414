"""The chain of ST-MEM (bakqui/ST-MEM): 250 Hz, high-pass 0.67 Hz, low-pass 40 Hz."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="st-mem-1",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=TWELVE_LEADS),
        steps.FillGaps(),
        steps.Trim(),
        # There a crop of 2250 samples is filtered; here the strip is, and windows are cut from it away from its ends.
        steps.Cut(strip_s=10.0, window_s=9.0),
        steps.Resample(rate_hz=250.0, method="fourier"),
        steps.BandPass(low_hz=0.67, order=5),
        steps.BandPass(high_hz=40.0, order=5),
        steps.CheckAmplitude(),
        steps.Store(),
    ),
)
