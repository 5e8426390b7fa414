"""Named pretraining runs, as functions that return a RunConfig. The function's name is the recipe's name."""

from collections.abc import Callable

from capezoo.runs.cape import cape_single, cape_x, cape_z
from capezoo.runs.smoke import smoke
from capezoo.specs import RunConfig
from ecgcohorts.errors import SpecError

__all__ = ["cape_single", "cape_x", "cape_z", "get", "names", "smoke"]

_OF_A_SEED: dict[str, Callable[[int], RunConfig]] = {recipe.__name__: recipe for recipe in (cape_x, cape_z, smoke)}
_OF_A_COHORT: dict[str, Callable[[int, str], RunConfig]] = {recipe.__name__: recipe for recipe in (cape_single,)}


def names() -> list[str]:
    """Recipes that `get` knows."""
    return sorted([*_OF_A_SEED, *_OF_A_COHORT])


def get(name: str, seed: int, cohort: str | None = None) -> RunConfig:
    """Return a recipe by name. Raises SpecError naming those there are, or for a cohort too many or too few."""
    if name not in names():
        raise SpecError(f"found pretraining recipe {name!r}, expected one of {', '.join(names())}.")
    if name in _OF_A_COHORT:
        if cohort is None:
            raise SpecError(f"found recipe {name} without a cohort, expected the one to train on: --cohort NAME.")
        return _OF_A_COHORT[name](seed, cohort)
    if cohort is not None:
        raise SpecError(f"found cohort {cohort!r} for recipe {name}, which trains on all. Use one of "
                        f"{', '.join(_OF_A_COHORT)}, or --set cohorts=[{cohort}].")  # fmt: skip
    return _OF_A_SEED[name](seed)
