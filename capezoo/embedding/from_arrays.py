"""Windows from arrays of raw signals, through the recipe of the weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import MV_PER_UNIT, Adaptation, fit_leads, window_starts
from capezoo.specs.input import InputSpec
from capezoo.specs.scaling import scaled
from ecgcohorts.errors import RecordingError
from ecgcohorts.leads import positions
from ecgcohorts.preprocess.steps import SelectLeads
from ecgcohorts.recording import Recording


def array_windows(signal: NDArray[Any], spec: InputSpec, adaptation: Adaptation) -> NDArray[np.float32]:
    """Return the windows that the encoder sees, (record, lead, spec.length), of raw signals (record, lead, time).

    The recipe runs on all its leads that there are, wanted or not, so that the same ECG gives what its store gives.
    Raises RejectedRecording, naming the record, for a signal that the recipe refuses.
    """
    from ecgcohorts.preprocess.strip import make_strip  # loads scipy.signal

    recipe = spec.the_recipe()
    # Also leads that the weights do not read: what counts as padding, a gap or an amplitude depends on all of them.
    have = {*positions(adaptation.leads), *adaptation.derived}
    leads = tuple(lead for lead in dict.fromkeys((*recipe.leads, *spec.leads)) if lead in have)
    on_these = recipe if leads == recipe.leads else recipe.changed(recipe.name, SelectLeads(leads=leads))
    out = np.empty((len(signal), len(spec.leads), spec.length), np.float32)
    for number, raw in enumerate(signal):
        analog_mv = np.asarray(raw, np.float64) * MV_PER_UNIT[adaptation.unit]
        recording = Recording(f"record {number}", adaptation.leads, adaptation.rate_hz, analog_mv=analog_mv)
        try:
            strip = make_strip(recording, on_these, adaptation.mains_hz, with_quality=False)
        except RecordingError as error:
            raise type(error)(error.reason, error.found, error.expected, error.remedy, f"record {number}") from None
        start = window_starts(np.array([strip.valid_start]), np.array([strip.valid_stop]), spec.length)[0]
        window_mv = strip.samples[None, :, start : start + spec.length] * np.float32(recipe.lsb_uv / 1000)
        statistics = None
        if strip.statistics is not None:
            at = [leads.index(lead) if lead in leads else -1 for lead in spec.leads]
            with_nothing = np.concatenate(
                [strip.statistics, np.zeros((2, 1), np.float32)], axis=1
            )  # of a lead fed as 0 mV
            statistics = (with_nothing[0, at], with_nothing[1, at])
        fitted_mv = fit_leads(window_mv, leads, spec, adaptation)[0]
        out[number] = scaled(fitted_mv, spec.normalisation, statistics=statistics)
    return out
