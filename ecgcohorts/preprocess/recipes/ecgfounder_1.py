"""The chain of ECGFounder (PKUDigitalHealth/ECGFounder): 500 Hz, notch at 50 Hz, 0.67-40 Hz, minus a running median."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="ecgfounder-1",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=TWELVE_LEADS),
        steps.FillGaps(),
        # No trim: a recording of 10 s that begins with 0 mV stays 10 s long, and the weights want 5000 samples.
        steps.Cut(strip_s=10.0, window_s=10.0),
        steps.Resample(rate_hz=500.0),  # ours: the released code filters 500 Hz and resamples nothing
        steps.Notch(hz=50.0, q=30.0, min_source_rate_ratio=0.0),
        steps.BandPass(low_hz=0.67, high_hz=40.0, order=4),
        steps.SubtractMedian(width_s=0.4),
        steps.CheckAmplitude(),
        steps.Store(),
    ),
)
