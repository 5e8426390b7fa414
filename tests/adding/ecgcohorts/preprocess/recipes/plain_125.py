"""8 leads at 125 Hz, no filter but the resampler's. Made up for tests/test_adding_things.py."""

from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.preprocess.steps import CheckAmplitude, CheckRate, Cut, FillGaps, Recipe, Resample, SelectLeads, Store

RECIPE = Recipe(
    name="plain-125",
    steps=(
        CheckRate(),
        SelectLeads(leads=EIGHT_LEADS),
        FillGaps(),
        Cut(strip_s=8.0, window_s=4.0),
        Resample(rate_hz=125.0),
        CheckAmplitude(above_hz=0.5),
        Store(),
    ),
)
