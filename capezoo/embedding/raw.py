"""Raw signals as the windows that an encoder sees: recipe, leads and scaling of the weights, for one recording at a time.

Knows nothing of models, so that processes that only decode need not load torch.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import MV_PER_UNIT, Adaptation, Mains, MissingLeads, window_starts
from capezoo.specs.input import InputSpec
from capezoo.specs.scaling import scaled
from ecgcohorts.errors import Reason, RejectedRecording, SpecError
from ecgcohorts.leads import positions
from ecgcohorts.preprocess.quality import Quality
from ecgcohorts.preprocess.steps import Recipe, SelectLeads
from ecgcohorts.recording import Recording, Unit

Window = NDArray[np.float32]  # (lead, time) as the encoder is fed


class RawWindows:
    """Makes windows of raw recordings for weights of `spec`; what has to be done is planned once for each kind of them.

    mains_hz: notch, as `make_strip` has it. missing_leads: as for `embed`.
    """

    def __init__(self, spec: InputSpec, mains_hz: Mains = "auto", missing_leads: MissingLeads = "refuse") -> None:
        self.spec, self._mains_hz, self._missing_leads = spec, mains_hz, missing_leads
        self._plans: dict[tuple[tuple[str, ...], float, str], Adaptation | SpecError] = {}

    def plan(self, recording: Recording) -> Adaptation:
        """Return what is done to such a recording. Raises SpecError for what cannot be adapted exactly."""
        key = recording.leads, recording.rate_hz, recording.unit
        if key not in self._plans:
            try:
                self._plans[key] = self._planned(*key)
            except SpecError as error:
                self._plans[key] = error
        found = self._plans[key]
        if isinstance(found, SpecError):
            raise found
        return found

    def _planned(self, leads: tuple[str, ...], rate_hz: float, unit: str) -> Adaptation:
        given = {"leads": leads, "rate_hz": rate_hz, "unit": unit, "mains_hz": self._mains_hz}
        return Adaptation.of_raw(self.spec, given, self._missing_leads)

    def of(self, recording: Recording, with_quality: bool = False) -> tuple[Window, Quality]:
        """Return the window of a recording and the quality of its strip, as `window_of` does.

        Raises RejectedRecording for a signal that the recipe refuses, and for one that lacks leads or has another unit.
        """
        try:
            plan = self.plan(recording)
        except SpecError as error:
            # Of one file among many this is a fact about the file.
            raise _as_refusal(recording, self.spec, error) from None
        return window_of(recording, self.spec, plan, with_quality)


def _as_refusal(recording: Recording, spec: InputSpec, error: SpecError) -> RejectedRecording:
    if recording.unit != spec.the_recipe().unit:
        return RejectedRecording(Reason.UNIT, f"numbers in {recording.unit}", f"numbers in {spec.the_recipe().unit}")
    have = positions(recording.leads)
    if all(lead in have for lead in spec.leads):
        # About the weights: no file would do.
        raise error
    missing = " ".join(lead for lead in spec.leads if lead not in have)
    remedy = "State what to do with missing leads: derive or zero."
    return RejectedRecording(Reason.LEADS, f"no lead {missing}", " ".join(spec.leads), remedy)


def _recordings_of(signals: Iterable[NDArray[Any]], adaptation: Adaptation) -> Iterator[Recording]:
    """Yield raw signals (lead, time), all of one description, as recordings."""
    factor = MV_PER_UNIT.get(adaptation.unit, 1.0)
    for number, raw in enumerate(signals):
        analog_mv = np.asarray(raw, np.float64) * factor
        unit: Unit = "none" if adaptation.unit == "none" else "mV"
        yield Recording(f"record {number}", adaptation.leads, adaptation.rate_hz, analog_mv=analog_mv, unit=unit)


def window_of(
    recording: Recording, spec: InputSpec, adaptation: Adaptation, with_quality: bool = False
) -> tuple[Window, Quality]:
    """Return the window (lead, spec.length) that the encoder sees of a raw recording, and the quality of its strip.

    The recipe runs on all its leads that there are, wanted or not, so that the same ECG gives what its store gives.
    with_quality: measure it, which costs about as much as the filters. Raises RejectedRecording for a signal that the
    recipe refuses.
    """
    from ecgcohorts.preprocess.strip import make_strip  # loads scipy.signal

    recipe = spec.the_recipe()
    leads, on_these = _recipe_on(spec, adaptation)
    strip = make_strip(recording, on_these, adaptation.mains_hz, with_quality=with_quality)
    if strip.valid_stop - strip.valid_start < spec.length:
        found = f"{(strip.valid_stop - strip.valid_start) / spec.rate_hz:g} s"
        raise RejectedRecording(Reason.TOO_SHORT, found, f"at least {spec.length / spec.rate_hz:g} s for these weights")
    start = window_starts(np.array([strip.valid_start]), np.array([strip.valid_stop]), spec.length)[0]
    window_mv = strip.samples[None, :, start : start + spec.length] * np.float32(recipe.lsb_uv / 1000)
    statistics = None
    if strip.statistics is not None:
        at = [leads.index(lead) if lead in leads else -1 for lead in spec.leads]
        # The last column is that of a lead fed as 0 mV.
        whole = np.concatenate([strip.statistics, np.zeros((2, 1), np.float32)], axis=1)
        statistics = (whole[0, at], whole[1, at])
    fitted_mv = adaptation.fit(window_mv, leads, spec)[0]
    return scaled(fitted_mv, spec.normalisation, statistics=statistics), strip.quality


@lru_cache(maxsize=64)
def _recipe_on(spec: InputSpec, adaptation: Adaptation) -> tuple[tuple[str, ...], Recipe]:
    """Return the leads that a strip will have, and the recipe that makes it."""
    recipe = spec.the_recipe()
    # Also leads that the weights do not read: what counts as padding, a gap or an amplitude depends on all of them.
    have = {*positions(adaptation.leads), *adaptation.derived}
    leads = tuple(lead for lead in dict.fromkeys((*recipe.leads, *spec.leads)) if lead in have)
    return leads, recipe if leads == recipe.leads else recipe.changed(recipe.name, SelectLeads(leads=leads))
