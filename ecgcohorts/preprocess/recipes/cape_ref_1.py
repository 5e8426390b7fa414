"""What CAPE's public code does (gulrukhk/CAPE-test, `ecg_process` with filter flag 2), faults included."""

from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="cape-ref-1",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=EIGHT_LEADS),
        steps.FillGaps(),  # the code has no answer to a gap: one missing sample makes a whole lead NaN
        # Grids pinned at both ends: time is stretched by up to 1/400 - 1/rate, and nothing stands against aliases.
        steps.Resample(rate_hz=400.0, method="linear"),
        # Shorter recordings are stretched there until they fit, which changes the heart rate: refused here.
        steps.Cut(strip_s=7.0, window_s=7.0, keep="centre"),
        # After the cut, so that what filters do at ends lies inside the window.
        steps.BandPass(low_hz=0.5, high_hz=100.0, order=3, ends="gust"),
        # Hard-wired to 60 Hz, also where the mains have 50, with 120 and 180 Hz.
        steps.Notch(hz=60.0, q=30.0, harmonics=True, min_source_rate_ratio=0.0, ends="constant"),
        steps.CheckAmplitude(),
        steps.Store(),
    ),
)
