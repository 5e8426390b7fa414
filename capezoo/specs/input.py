"""InputSpec: what an encoder must be fed."""

from collections.abc import Collection, Sequence
from typing import Literal, Self

from pydantic import Field, field_validator

from capezoo.specs.base import Spec
from ecgcohorts.errors import RecipeMismatch
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, canonical
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe


class InputSpec(Spec):
    """What an encoder must be fed. Enforced where weights meet signals."""

    leads: tuple[str, ...] = Field(default=EIGHT_LEADS, description="in this order; CAPE")
    rate_hz: float = Field(default=400.0, gt=0, description="samples per second; CAPE")
    length: int = Field(default=2800, gt=0, description="samples per window, 7 s; CAPE")
    unit: Literal["mV"] = Field(default="mV", description="CAPE")
    recipe: str = Field(default=CAPE_V1.name, description="preprocessing recipe of the signals; our default")
    normalisation: Literal["none"] = Field(default="none", description="scaling after the recipe; PCLR feeds plain mV")

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> Self:
        """The input that stores of this recipe serve."""
        return cls(
            leads=recipe.leads,
            rate_hz=recipe.rate_hz,
            length=recipe.window_samples,
            unit=recipe.unit,
            recipe=recipe.name,
        )

    @field_validator("leads")
    @classmethod
    def _known_leads(cls, leads: tuple[str, ...]) -> tuple[str, ...]:
        if not leads or len(set(leads)) < len(leads) or any(canonical(lead) != lead for lead in leads):
            raise ValueError(f"some of {' '.join(TWELVE_LEADS)}, each once, spelt like this")
        return leads

    def differences(self, recipe: Recipe) -> dict[str, str]:
        """What signals of `recipe` have otherwise than this spec asks for: name -> found and expected."""
        checks: tuple[tuple[str, object, object], ...] = (
            ("recipe", recipe.name, self.recipe),
            ("leads", recipe.leads, self.leads),
            ("rate_hz", recipe.rate_hz, self.rate_hz),
            ("unit", recipe.unit, self.unit),
        )
        wrong = {
            name: f"{name} {_text(found)} (expected {_text(wanted)})"
            for name, found, wanted in checks
            if found != wanted
        }
        if self.length > recipe.strip_samples:
            wrong["length"] = f"strips of {recipe.strip_samples} samples (expected at least {self.length})"
        return wrong

    def require_recipe(self, recipe: Recipe, what: str = "the store", ignoring: Collection[str] = ()) -> None:
        """Raise RecipeMismatch, naming every difference, unless signals of `recipe` are what this spec asks for.

        ignoring: names of differences that do not count.
        """
        wrong = [text for name, text in self.differences(recipe).items() if name not in ignoring]
        if wrong:
            raise RecipeMismatch(f"{what}: found {'; '.join(wrong)}. Ingest again with recipe {self.recipe!r}, or use "
                                 f"weights made for {recipe.name!r}.")  # fmt: skip


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)
