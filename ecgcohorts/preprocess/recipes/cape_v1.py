"""CAPE's input, as the paper states it and as our measurements refined it: 8 leads, 400 Hz, 0.5-100 Hz, notch."""

from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="cape-v1",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=EIGHT_LEADS),
        steps.FillGaps(),
        steps.Trim(),
        # The first 10 s, cut before resampling: filtering first and cutting later differs by up to 23 uV. CAPE's window
        # is 7 s, 2800 samples.
        steps.Cut(strip_s=10.0, window_s=7.0),
        steps.Resample(rate_hz=400.0),
        # Order 3 and 4 ring into the centre (2-18 uV). Run twice, both edges lie at -6.02 dB. Even padding leaves the
        # least at the ends; 4 s of it make no difference.
        steps.BandPass(low_hz=0.5, high_hz=100.0, order=2, top_of_source_rate=0.45, ends="even", pad_s=2.0),
        steps.Notch(q=30.0, ends="even", pad_s=2.0, joined=True),
        steps.CheckAmplitude(),
        steps.Store(),
    ),
)
