"""Where signals meet the input contract of weights: what is adapted exactly, what is refused, and a note of both.

Leads are found by name. Their order, a subset of them, the unit, and for raw arrays every step of the recipe are adapted
exactly. Missing leads are refused unless the caller chooses a policy. Nothing else is guessed.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from capezoo.specs.base import Spec, parse
from capezoo.specs.input import InputSpec
from capezoo.specs.scaling import OF_STATISTICS
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.leads import LIMB_LEADS, positions, select
from ecgcohorts.preprocess.steps import Recipe

MV_PER_UNIT = {"V": 1000.0, "mV": 1.0, "uV": 0.001}
_UNITS = (*MV_PER_UNIT, "none")
# refuse: an error. derive: limb leads from two others, by Einthoven and Goldberger; others are an error.
# zero: as derive, and what cannot be derived is fed as 0 mV.
MissingLeads = Literal["refuse", "derive", "zero"]
Mains = float | Literal["auto"] | None


class Adaptation(Spec):
    """What is done to signals before an encoder sees them. Embeddings of a store keep it beside them."""

    kind: Literal["store", "array"]
    leads: tuple[str, ...]  # as given
    rate_hz: float  # as given
    unit: Literal["V", "mV", "uV", "none"]  # as given; none: numbers that are no voltages
    recipe: str  # of the store, or applied to the array
    mains_hz: Mains = None  # notch; of a store: as it was ingested
    missing_leads: MissingLeads = "refuse"
    derived: tuple[str, ...] = ()  # of two other limb leads
    zeroed: tuple[str, ...] = ()  # fed as 0 mV
    forced: tuple[str, ...] = ()  # differences of the recipe that were overruled

    def steps(self, spec: InputSpec) -> list[str]:
        """Return the same in words, one line a step; nothing if the signals already are what `spec` asks for."""
        found = [f"recipe {self.recipe} applied to the raw signal"] if self.kind == "array" else []
        if self.unit != spec.unit:
            found.append(
                "numbers without a unit taken for mV" if self.unit == "none" else f"{self.unit} scaled to {spec.unit}"
            )
        found += [f"{self.rate_hz:g} resampled to {spec.rate_hz:g} Hz"] if self.rate_hz != spec.rate_hz else []
        own = [lead for lead in spec.leads if lead not in (*self.derived, *self.zeroed)]
        found += [f"leads {' '.join(own)} taken by name"] if list(self.leads) != own else []
        found += [f"{' '.join(self.derived)} derived from two limb leads"] if self.derived else []
        found += [f"{' '.join(self.zeroed)} missing, fed as 0 mV"] if self.zeroed else []
        found += [f"scaled by {spec.normalisation}"] if spec.normalisation != "none" else []
        return found + [f"forced: {difference}" for difference in self.forced]

    @classmethod
    def of_recipe(
        cls,
        spec: InputSpec,
        recipe: Recipe,
        what: str,
        missing_leads: MissingLeads = "refuse",
        force_recipe: bool = False,
    ) -> Self:
        """Return what must be done to strips of `recipe` to feed weights of `spec`. what: the store's name in messages.

        force_recipe overrules another recipe name only: rate, unit and length must fit in any case, but for numbers
        without a unit, which weights with a normalisation of their own take.
        Raises RecipeMismatch naming every difference, SpecError for a missing lead.
        """
        differences = spec.differences(recipe)
        overruled = ("leads", "recipe") if force_recipe else ("leads",)
        if force_recipe and recipe.unit == "none" and spec.normalisation != "none":
            overruled = (*overruled, "unit")
        spec.require_recipe(recipe, what, overruled)
        derived, zeroed = _plan_leads(spec.leads, recipe.leads, missing_leads, what)
        if spec.normalisation in OF_STATISTICS:
            if derived:  # a mean can be derived from two others, a deviation cannot
                raise SpecError(
                    f"{what}: found {' '.join(derived)} to derive, expected leads whose statistics ingest has kept, for "
                    f"{spec.normalisation}. Ingest with a recipe that stores them."
                )
            if not recipe.record_statistics:
                raise SpecError(
                    f"{what}: found recipe {recipe.name}, which keeps no statistics of whole recordings, expected one that "
                    f"does, for {spec.normalisation}. Ingest with a recipe that has the step record_statistics."
                )
        return cls(
            kind="store",
            leads=recipe.leads,
            rate_hz=recipe.rate_hz,
            unit=recipe.unit,
            recipe=recipe.name,
            missing_leads=missing_leads,
            derived=derived,
            zeroed=zeroed,
            forced=tuple(differences[name] for name in ("recipe", "unit") if name in differences),
        )

    @classmethod
    def of_array(
        cls, spec: InputSpec, signal: NDArray[Any], given: dict[str, Any], missing_leads: MissingLeads = "refuse"
    ) -> Self:
        """Return what must be done to a raw array to feed weights of `spec`. given: its rate_hz, leads, unit and mains_hz.

        Raises SpecError for a shape, type, description or lead that does not fit.
        """
        absent = [name for name in ("rate_hz", "leads", "unit") if given[name] is None]
        if absent:
            raise SpecError(f"found an array without {', '.join(absent)}, expected rate_hz, leads and unit: "
                            'embed(model, x, rate_hz=500, leads=["I", ...], unit="mV").')  # fmt: skip
        if isinstance(given["leads"], str):
            raise SpecError(
                f"found leads={given['leads']!r}, expected a list of names in the order of the array's axis."
            )
        _require_shape(signal, tuple(given["leads"]))
        return cls.of_raw(spec, given, missing_leads, "the array")

    @classmethod
    def of_raw(
        cls, spec: InputSpec, given: dict[str, Any], missing_leads: MissingLeads = "refuse", what: str = "the recording"
    ) -> Self:
        """Return what must be done to raw signals, whatever holds them. given: their rate_hz, leads, unit and mains_hz.

        what: their name in messages. Raises SpecError for a unit, a recipe or a lead that does not fit.
        """
        if given["unit"] not in _UNITS:
            raise SpecError(f"found unit {given['unit']!r}, expected one of {', '.join(_UNITS)}.")
        leads = tuple(given["leads"])
        recipe = spec.the_recipe()
        if (given["unit"] == "none") != (recipe.unit == "none"):
            raise SpecError(
                f"found unit {given['unit']!r}, expected {'a voltage' if recipe.unit == 'mV' else 'none'}, which recipe "
                f"{recipe.name} of these weights takes. Use weights made for such numbers."
            )
        spec.require_recipe(recipe, f"recipe {recipe.name}", ("leads",))
        if spec.normalisation == "cohort_lead_z":
            raise SpecError(
                f"found {what}, expected a store: weights of cohort_lead_z scale by the statistics of a whole cohort, which raw "
                "signals have not. Ingest the recordings."
            )
        if spec.normalisation in OF_STATISTICS and not recipe.record_statistics:
            raise SpecError(
                f"recipe {recipe.name}: keeps no statistics of whole recordings, expected the step record_statistics for "
                f"{spec.normalisation}."
            )
        derived, zeroed = _plan_leads(spec.leads, leads, missing_leads, what)
        made = {"kind": "array", "recipe": recipe.name, "missing_leads": missing_leads, "derived": derived}
        return parse(cls, {**given, **made, "leads": leads, "zeroed": zeroed}, f"the description of {what}")

    def fit(self, windows: NDArray[np.float32], names: Sequence[str], spec: InputSpec) -> NDArray[np.float32]:
        """Choose, order, derive and zero leads as planned: (record, name, time) to (record, lead of the spec, time)."""
        if tuple(names) == spec.leads:
            return windows
        there = [lead for lead in spec.leads if lead not in self.zeroed]
        out = np.zeros((len(windows), len(spec.leads), windows.shape[2]), np.float32)
        by_lead = select(np.moveaxis(windows, 1, 0), names, there)
        out[:, [spec.leads.index(lead) for lead in there]] = np.moveaxis(by_lead, 0, 1)
        return out


def _require_shape(signal: NDArray[Any], leads: tuple[str, ...]) -> None:
    if signal.dtype.kind not in "iuf":
        raise SpecError(f"found an array of {signal.dtype}, expected real numbers.")
    if signal.ndim == 3 and signal.shape[1] == len(leads):
        return
    remedy = ""
    if signal.ndim == 2 and signal.shape[0] == len(leads):
        remedy = " For one record give x[None]."
    elif signal.ndim == 3 and signal.shape[2] == len(leads):
        remedy = " Give x.transpose(0, 2, 1)."
    raise SpecError(f"found an array of shape {signal.shape}, expected (record, {len(leads)} leads, time).{remedy}")


def _plan_leads(
    wanted: Sequence[str], given: Sequence[str], policy: MissingLeads, what: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the wanted leads to derive, and those to feed as zeros. Raises SpecError where the policy allows neither."""
    have = positions(given)
    # Any two limb leads give all six (Einthoven, Goldberger); chest leads follow from nothing.
    missing = [lead for lead in wanted if lead not in have]
    derivable = [lead for lead in missing if lead in LIMB_LEADS and sum(limb in have for limb in LIMB_LEADS) >= 2]
    lost = [lead for lead in missing if lead not in derivable]
    # With no lead left that was measured, an embedding would be that of nothing: refused under every policy.
    if policy == "zero" and len(lost) < len(wanted):
        return tuple(derivable), tuple(lost)
    refused = missing if policy == "refuse" else lost
    if not refused:
        return tuple(derivable), ()
    ways = ['missing_leads="derive"'] if not lost else ['missing_leads="zero"'] if len(lost) < len(wanted) else []
    remedy = f"Give them, or state what to do: {ways[0]}." if ways else "Give them by these names."
    raise SpecError(
        f"{what}: found no {', '.join(refused)} among {len(given)} leads, expected {' '.join(wanted)}. {remedy}"
    )


def window_starts(valid_start: NDArray[Any], valid_stop: NDArray[Any], length: int) -> NDArray[np.int64]:
    """Return the first samples of the central windows. Raises StoreError if a valid part is shorter than the window."""
    # The centre: the same on every run, and farthest from the ends, where filters err by 59 uV in place of 2.6.
    slack = np.asarray(valid_stop, np.int64) - valid_start - length
    if (slack < 0).any():
        place = int(np.argmin(slack))
        raise StoreError(
            f"found {int(slack[place]) + length} valid samples in entry {place}, expected at least {length}. "
            "Use weights for shorter windows."
        )
    return np.asarray(valid_start + slack // 2, np.int64)
