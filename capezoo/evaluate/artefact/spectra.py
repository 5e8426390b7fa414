"""How far a cohort's own devices differ, in the unit in which signatures are made: the measure of what a strength means."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from capezoo.evaluate.artefact.rendering import Material
from capezoo.evaluate.artefact.signatures import KINDS, Signature

# In Hz, one around each tone that a device may have: above the QRS complex, and where devices and mains differ.
BANDS = ((25.0, 45.0), (45.0, 55.0), (55.0, 72.0), (72.0, 90.0))
_BLOCK = 64  # recordings at a time


def device_amplitudes(material: Material, least: int = 20) -> Mapping[str, tuple[float, ...]]:
    """Return for each of the cohort's own devices the amplitude in each of BANDS, in uV, after the recipe.

    The amplitude is that of a tone with the power of the band: the median over patients of the mean over leads. So a tone
    of 100 uV adds 100 in its band. Devices of fewer than `least` patients are left out.
    """
    amplitudes = np.concatenate([_amplitudes(material, at) for at in range(0, len(material), _BLOCK)])
    found = {}
    for code, name in enumerate(material.devices):
        here = material.device == code
        if here.sum() >= least:
            found[name] = tuple(float(one) for one in np.median(amplitudes[here], axis=0))
    return found


def _amplitudes(material: Material, at: int) -> NDArray[np.float64]:
    """Return (patient, band) in uV of a block of patients."""
    places = np.arange(at, min(at + _BLOCK, len(material)))
    strips = material.render(places, np.zeros_like(places), Signature(KINDS[0], 0.0, 0))
    # Windows that every strip can give, so that all have the same frequencies.
    length = material.recipe.window_samples
    signal_uv = strips[:, :, :length] * material.recipe.lsb_uv
    window = np.hanning(length)
    power = np.abs(np.fft.rfft(signal_uv * window)) ** 2 * (4 / (length * np.square(window).sum()))
    hz = np.fft.rfftfreq(length, 1 / material.recipe.rate_hz)
    bands = [np.sqrt(power[..., (hz >= low) & (hz < high)].sum(axis=-1)).mean(axis=1) for low, high in BANDS]
    return np.stack(bands, axis=1)
