"""Named preprocessing recipes: every number between a decoded recording and a stored strip.

A changed number is a new name, never an edit: stores and weights carry the name and refuse to mix.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ecgcohorts.errors import SpecError
from ecgcohorts.leads import EIGHT_LEADS


class Recipe(BaseModel):
    """One preprocessing chain. Rates in Hz, durations in s, voltages in mV unless the name says uV."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    leads: tuple[str, ...] = EIGHT_LEADS
    rate_hz: float = 400.0  # CAPE
    unit: Literal["mV"] = "mV"
    lsb_uv: float = 1.0  # stored step; rounding adds 0.3 uV rms
    strip_s: float = 10.0  # the first 10 s after trimming, cut before resampling
    window_s: float = 7.0  # CAPE: 2800 samples; shorter recordings are refused
    band_hz: tuple[float, float] = (0.5, 100.0)  # CAPE; applied forward and backward: -6.02 dB at both edges
    band_order: int = 2  # order 3 and 4 ring into the centre (2-18 uV)
    band_top_of_source_rate: float = 0.45  # upper edge never above this share of the source rate
    notch_q: float = 30.0
    notch_min_rate_ratio: float = 2.2  # no notch if the source rate is below this times the mains frequency
    pad_s: float = 2.0  # even padding of the filter; 4 s makes no difference
    max_gap_s: float = 0.040  # longer gaps end the strip, shorter ones are interpolated
    source_rate_hz: tuple[float, float] = (100.0, 8000.0)
    max_denominator: int = 10_000  # of source rate / strip rate as a fraction
    low_rate_hz: float = 100.0  # sources at this rate or below carry nothing above half of it
    amplitude_mv: tuple[float, float] = (0.1, 10.0)  # plausible median over leads of the 99th percentile of |x|

    @property
    def strip_samples(self) -> int:
        return round(self.strip_s * self.rate_hz)

    @property
    def window_samples(self) -> int:
        return round(self.window_s * self.rate_hz)


CAPE_V1 = Recipe(name="cape-v1")
_RECIPES = {recipe.name: recipe for recipe in (CAPE_V1,)}


def recipe_names() -> list[str]:
    """Names of the recipes this version can apply."""
    return sorted(_RECIPES)


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name. Raises SpecError naming those there are."""
    if name not in _RECIPES:
        raise SpecError(f"found recipe {name!r}, expected one of {', '.join(recipe_names())}.")
    return _RECIPES[name]
