"""InputSpec: what an encoder must be fed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from capezoo.specs.base import Spec
from capezoo.specs.scaling import Normalisation, Signal, scaled
from ecgcohorts.errors import RecipeMismatch, SpecError
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, canonical
from ecgcohorts.preprocess.recipes import get_recipe, recipe_names
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.recording import MISSING, Unit

# Samples of a window: twenty minutes at 800 Hz, and four of eight leads, as golden.npz holds them, take 64 MiB.
MAX_LENGTH = 1 << 20


class InputSpec(Spec):
    """The input an encoder expects, enforced where weights meet signals.

    Leads, rate and length that are not given are those of the recipe. own_recipe: the recipe itself, unless one of its
    name is installed. Weights carry it as stores do, so that a different chain of the same name is refused, and raw
    arrays can be embedded without the recipe's file.
    """

    leads: tuple[str, ...] = Field(default=EIGHT_LEADS, description="in this order; CAPE")
    rate_hz: float = Field(default=400.0, gt=0, le=1e5, description="samples per second; CAPE")
    length: int = Field(default=2800, gt=0, le=MAX_LENGTH, description="samples per window, 7 s; CAPE")
    unit: Unit = Field(default="mV", description="none: numbers without a unit, scaled by the weights; CAPE: mV")
    recipe: str = Field(default="cape-v1", description="preprocessing recipe of the signals; our default")
    normalisation: Normalisation = Field(default="none", description="scaling after the recipe; PCLR feeds plain mV")
    own_recipe: Recipe | None = Field(default=None, description="the recipe, if none of that name is installed")

    @classmethod
    def of_recipe(cls, recipe: Recipe, normalisation: Normalisation = "none") -> Self:
        """Return the input that stores of this recipe serve."""
        return cls(
            **_of(recipe),
            recipe=recipe.name,
            normalisation=normalisation,
        ).bound(recipe)

    @classmethod
    def of_model(cls, model: object) -> "InputSpec":
        """Return the input contract of a model, its `spec`. Raises SpecError if it has none."""
        spec = getattr(model, "spec", None)
        if not isinstance(spec, InputSpec):
            raise SpecError(
                "found a model without `spec`, expected one from capezoo.create_model or with an InputSpec set."
            )
        return spec

    def bound(self, recipe: Recipe) -> Self:
        """Carry a store's recipe, with what follows from it, if the spec names it and no such recipe is installed."""
        if recipe.name != self.recipe or recipe.name in recipe_names():
            return self
        follows = {name: value for name, value in _of(recipe).items() if name not in self.model_fields_set}
        return self.model_copy(update={"own_recipe": recipe, **follows})

    def the_recipe(self) -> Recipe:
        """Return the recipe that raw signals go through. Raises SpecError if it is neither installed nor carried."""
        return self.own_recipe or get_recipe(self.recipe)

    @model_validator(mode="before")
    @classmethod
    def _follows_the_recipe(cls, values: Any) -> Any:
        # 2,800 samples are 7 s at 400 Hz and 28 s at 100: the defaults of one recipe are wrong for every other.
        name = values.get("recipe") if isinstance(values, Mapping) else None
        return {**_of(get_recipe(name)), **values} if isinstance(name, str) and name in recipe_names() else values

    @model_validator(mode="after")
    def _own_recipe_is_meant(self) -> Self:
        if self.own_recipe is not None and self.own_recipe.name != self.recipe:
            raise ValueError(f"own_recipe is called {self.own_recipe.name}, recipe says {self.recipe}")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave own_recipe out where there is none: cards and fingerprints written before it existed stay as they are."""
        fields: dict[str, Any] = serialise(self)
        if self.own_recipe is None:
            fields.pop("own_recipe", None)
        return fields

    @field_validator("leads")
    @classmethod
    def _known_leads(cls, leads: tuple[str, ...]) -> tuple[str, ...]:
        if not leads or len(set(leads)) < len(leads) or any(canonical(lead) != lead for lead in leads):
            raise ValueError(f"some of {' '.join(TWELVE_LEADS)}, each once, spelt like this")
        return leads

    def scaled(self, signal: Signal, lsb_uv: float, statistics: tuple[Any, Any] | None = None) -> Signal:
        """Turn a tensor of stored int16 (..., lead, time), in steps of `lsb_uv` microvolts, into float32; missing is 0.

        statistics: mean and deviation in mV, each (..., lead), for the scalings that need them.
        """
        return scaled(signal.float() * (lsb_uv / 1000), self.normalisation, signal != MISSING, statistics)

    def differences(self, recipe: Recipe) -> dict[str, str]:
        """Fields in which `recipe` differs from this spec: name -> what was found and what was expected."""
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
        known = self.own_recipe or (get_recipe(self.recipe) if self.recipe in recipe_names() else None)
        if known is not None and recipe.name == self.recipe and recipe != known:
            found, wanted = recipe.told_from(known)
            wrong = {"recipe": f"recipe {found}, other steps under one name (expected {wanted})", **wrong}
        if self.length > recipe.strip_samples:
            wrong["length"] = f"strips of {recipe.strip_samples} samples (expected at least {self.length})"
        return wrong

    def require_recipe(
        self, recipe: Recipe, what: str = "the store", ignoring: Collection[str] = (), or_else: str | None = None
    ) -> None:
        """Raise RecipeMismatch, naming every difference, unless signals of `recipe` are what this spec asks for.

        Numbers without a unit are for weights with a normalisation of their own: raises SpecError for others.

        what: the name of the signals in the message. ignoring: names of differences that do not count. or_else: what to
        do instead of ingesting again; by default, use other weights.
        """
        if recipe.unit == "none" and self.normalisation == "none":
            raise SpecError(
                f"{what}: found numbers without a unit and normalisation 'none', expected weights that scale by themselves. "
                "Set the normalisation: --set input.normalisation=window_lead_z."
            )
        wrong = [text for name, text in self.differences(recipe).items() if name not in ignoring]
        if wrong:
            way = or_else or f"use weights made for {recipe.name!r}"
            raise RecipeMismatch(
                f"{what}: found {'; '.join(wrong)}. Ingest again with recipe {self.recipe!r}, or {way}."
            )


def _of(recipe: Recipe) -> dict[str, Any]:
    """The fields that a recipe decides."""
    return {"leads": recipe.leads, "rate_hz": recipe.rate_hz, "length": recipe.window_samples, "unit": recipe.unit}


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)
