"""The chain of HuBERT-ECG (Edoar-do/HuBERT-ECG): 500 Hz, an FIR of 0.05-47 Hz, then every fifth sample."""

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess import steps

RECIPE = steps.Recipe(
    name="hubert-ecg-1",
    steps=(
        steps.CheckRate(),
        steps.SelectLeads(leads=TWELVE_LEADS),
        steps.FillGaps(),
        steps.Trim(),
        steps.Cut(strip_s=10.0, window_s=5.0),
        steps.Resample(rate_hz=500.0, method="fourier"),
        # 0.3 s of taps, made odd, forward and backward, as BioSPPy does. So short a filter has no edge at 0.05 Hz: of an
        # offset 96 % pass.
        steps.BandPass(low_hz=0.05, high_hz=47.0, kind="fir", order=151),
        # There the leads are decimated as one long row, so that the end of one leaks into the next; here each by itself.
        steps.Resample(rate_hz=100.0, method="decimate"),
        steps.CheckAmplitude(above_hz=0.5),
        steps.Store(),
    ),
)
